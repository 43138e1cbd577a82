"""How sure the cuts are: what `reap_dist inspect --json saliency.h5` says (docs/format/stability.md)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reap_tools.errors import BadInputError
from reap_tools.report.fields import Fields, is_number, parse
from reap_tools.report.plan import Plan

FORMAT = ("reap-stability", 1)
_PATIENCE = 600  # seconds

Known = tuple[float | None, ...]  # by layer; None where nothing can be said


@dataclass(frozen=True)
class Cut:
    """One criterion at one ratio. L layers, D domains that have tokens."""

    criterion: str
    ratio: float
    kept: int
    halves: tuple[float, ...]  # [L] share of the kept experts that both halves of the samples keep
    margin: Known  # [L] distance of the last kept and the first dropped score, in standard errors
    changes: Known  # [L] kept experts that unlimited samples are expected to exchange
    domains: tuple[str, ...]
    overlap: tuple[tuple[float, ...], ...]  # [D][D] kept by both / kept by either
    only: tuple[int, ...]  # [D] experts that this domain alone would keep

    @property
    def name(self) -> str:
        """As the outputs of a run are called."""
        return f"{self.criterion.replace(':', '_')}-{self.ratio}"


@dataclass(frozen=True)
class Stability:
    """The whole answer."""

    model_digest: str
    calibration_digest: str
    cuts: tuple[Cut, ...]


def _known(noise: Fields, name: str, layers: int) -> Known:
    values = noise.items(name, layers)
    if not all(value is None or is_number(value) for value in values):
        raise noise.wrong(name, "a list of numbers and nulls")
    return tuple(None if value is None else float(value) for value in values)


def _cut(fields: Fields, layers: int) -> Cut:
    domains = fields.object("domains")
    names = domains.texts("names")
    overlap = domains.items("overlap", len(names))
    if not all(isinstance(row, list) and len(row) == len(names) and all(map(is_number, row)) for row in overlap):
        raise domains.wrong("overlap", f"{len(names)} lists of {len(names)} numbers")
    only = domains.items("only", len(names))
    if not all(isinstance(sets, list) and all(isinstance(each, list) for each in sets) for sets in only):
        raise domains.wrong("only", "a list of experts for each layer of each domain")
    nothing: Known = (None,) * layers
    noise = fields.object("noise") if fields.has("noise") else None
    return Cut(
        criterion=fields.text("criterion"),
        ratio=fields.number("ratio"),
        kept=fields.whole("kept"),
        halves=tuple(fields.numbers("halves", layers)),
        margin=_known(noise, "margin", layers) if noise else nothing,
        changes=_known(noise, "changes", layers) if noise else nothing,
        domains=tuple(names),
        overlap=tuple(tuple(map(float, row)) for row in overlap),
        only=tuple(sum(len(each) for each in sets) for sets in only),
    )


def stability_of(content: bytes, where: str) -> Stability:
    """What the JSON says."""
    file = Fields(parse(content, where), where)
    found = (file.text("format"), file.whole("version"))
    if found != FORMAT:
        raise BadInputError(f"{where}: its format is {found[0]} {found[1]}, not {FORMAT[0]} {FORMAT[1]}")
    layers = file.whole("layers")
    if layers == 0:
        raise file.wrong("layers", "above 0")
    cuts = tuple(_cut(each, layers) for each in file.objects("cuts"))
    return Stability(file.object("model").text("digest"), file.text("calibration"), cuts)


def ask_reap_dist(program: Path | None, saliency: Path, plans: list[Plan]) -> tuple[Stability | None, str]:
    """Has reap_dist look at the saliency file: the answer, or why there is none. If named, the program has to tell."""
    found = str(program) if program else shutil.which("reap_dist")
    if found is None:
        return None, "reap_dist is not in PATH (--reap-dist names it)."
    ratios = [str(ratio) for ratio in sorted({plan.ratio for plan in plans})]
    criteria = list(dict.fromkeys(plan.criterion for plan in plans))
    wishes = [["--ratio", *ratios, "--criterion", *criteria], []] if plans else [[]]
    problem = ""
    for wish in wishes:  # a criterion or ratio that it cannot judge leaves the usual ones
        try:
            done = subprocess.run(
                [found, "inspect", str(saliency), "--json", *wish], capture_output=True, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = f"{found}: {error}"
            break
        if done.returncode == 0:
            return stability_of(done.stdout, f"{found} inspect --json"), ""
        told = done.stderr.decode(errors="replace").strip().splitlines()
        problem = told[-1] if told else f"{found} ended with {done.returncode}"
    if program is not None:
        raise BadInputError(f"--reap-dist: {problem}")
    return None, f"reap_dist could not tell: {problem}"
