"""The other tables of the page: usage by domain, time, provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from reap_tools.report.plan import Plan
from reap_tools.report.read import Material
from reap_tools.report.run_log import Machine, Phase
from reap_tools.report.saliency import Saliency
from reap_tools.report.words import amount, listed, seconds, share, whole

_MOST_LISTED = 24  # entries of a list in the provenance before it is cut short


@dataclass(frozen=True)
class DomainUse:
    """How a domain's tokens meet the experts."""

    name: str
    slots: str
    unused: str
    starved: str


def usage_rows(saliency: Saliency, starved: int) -> list[DomainUse]:
    """A row per domain, and one for all."""
    parts = [(name, saliency.counts_of(i)) for i, name in enumerate(saliency.domains)]
    return [
        DomainUse(
            name,
            whole(int(counts.sum()) // (saliency.layers * saliency.top_k)),
            whole(int((counts == 0).sum())),
            whole(int((counts < starved).sum())),
        )
        for name, counts in [*parts, ("all", saliency.counts())]
    ]


@dataclass(frozen=True)
class Timing:
    """A phase of the job."""

    name: str
    done: str
    seconds: str
    of_all: float
    rate: str
    peak: str  # share of what the machine can do, or why that is not known


def timings(material: Material) -> list[Timing]:
    """Rows for the phases of the run log."""
    if material.run_log is None:
        return []
    total = sum(phase.seconds for phase in material.run_log.phases) or 1.0
    rows = []
    for phase in material.run_log.phases:
        per_second = phase.units / max(phase.seconds, 1e-9)
        gflops = (material.gflops or {}).get(phase.name)
        rate = f"{amount(per_second, phase.unit)}/s"
        if gflops is not None:
            rate += f", {gflops:,.1f} GFLOP/s"
        name = phase.name if phase.times == 1 else f"{phase.name}, {phase.times} times"
        done = amount(phase.units, phase.unit)
        peak = _share_of_peak(phase, gflops, material)
        rows.append(Timing(name, done, seconds(phase.seconds), phase.seconds / total, rate, peak))
    return rows


def _share_of_peak(phase: Phase, gflops: float | None, material: Material) -> str:
    machine = material.machine
    if machine is None:
        return "unknown"
    if phase.unit == "bytes":
        kind = "write" if phase.name == "write" else "read"
        peak = _of_ranks(machine, kind)
        reached = phase.units / max(phase.seconds, 1e-9) * 1e-9
        return "unknown" if peak is None else f"{share(reached / peak)} of {peak:.3g} GB/s"
    compute = material.saliency.compute if material.saliency else ""
    rate = machine.rate.get(compute)
    if gflops is None or not rate:
        return "unknown"
    peak = rate * machine.ranks
    return f"{share(gflops / peak)} of {peak:,.4g} GFLOP/s ({machine.source[compute]})"


def _of_ranks(machine: Machine, kind: str) -> float | None:
    """Reading or writing rate of all ranks together."""
    own = machine.rate.get(kind)
    if not own:
        return None
    return min(own * machine.ranks, machine.rate.get(f"{kind}-total") or float("inf"))


Entry = tuple[str, str]


def provenance(material: Material) -> list[tuple[str, list[Entry]]]:
    """Groups of names and values: all that it takes to say how the results came to be."""
    groups = [("Model", _model(material)), ("Calibration", _calibration(material))]
    if material.plans:
        groups.append(("Plans", [(plan.name, _plan(plan)) for plan in material.plans]))
    if (e := material.evaluation) is not None:
        heldout = f"{whole(e.samples)} samples, {whole(e.tokens)} tokens, domains {listed(list(e.domains))}"
        groups.append(("Held-out text", [("digest", e.heldout_digest), ("holds", heldout), ("compute", e.compute)]))
    if (log := material.run_log) is not None:
        hosts = sorted(set(log.hosts))
        entries = [("program", log.software), ("command", log.command), ("finished", log.finished)]
        entries.append(("ranks", f"{len(log.hosts)} on {_short(hosts)}"))
        groups.append(("Run", entries + [(f"--{name}", value) for name, value in log.options.items()]))
    files = [(file.name, f"{whole(file.bytes)} bytes, SHA-256 {file.sha256}") for file in material.files]
    groups.append(("Files that this page was made of", files))
    return groups


def _plan(plan: Plan) -> str:
    wishes = "".join(f", {name.replace('_', ' ')} {json.dumps(value)}" for name, value in plan.wishes.items())
    of = f"samples {plan.calibration_digest}, XXH3 {plan.digest}"
    return f"criterion {plan.criterion}, ratio {plan.ratio}{wishes}, {of}"


def _model(material: Material) -> list[Entry]:
    kind, digest = material.model
    entries = [("type", kind), ("digest", digest)]
    if material.shape:
        layers, experts, top_k = material.shape
        entries.append(("experts", f"{layers} layers of {experts}, {top_k} for each token"))
    return entries


def _calibration(material: Material) -> list[Entry]:
    entries: list[Entry] = []
    if (s := material.saliency) is not None:
        entries = [
            ("digest", s.calibration_digest),
            ("holds", f"{whole(s.samples)} samples, {whole(s.tokens)} tokens, domains {listed(list(s.domains))}"),
            ("compute", f"{s.compute}, blocks of {whole(s.block_tokens)} tokens"),
            ("numerics", s.numerics_id),
        ]
    elif material.plans:
        entries = [("digest", material.plans[0].calibration_digest)]
    if (c := material.calibration) is None:
        return [*entries, ("sources", "unknown: give the calibration file with --calibration")]
    entries += [(f"domain {d.name}", f"{whole(d.samples)} samples, {whole(d.tokens)} tokens") for d in c.domains]
    if isinstance(c.source, dict):
        return entries + [(name, _value(value)) for name, value in c.source.items()]
    return [*entries, ("sources", c.source or "the calibration file does not say")]


def _value(value: Any) -> str:
    """A member of the calibration file's own account of its sources."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _short(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return listed(names) if more <= 0 else ", ".join(names[:_MOST_LISTED]) + f" and {more} more"
