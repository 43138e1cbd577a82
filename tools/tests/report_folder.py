"""A folder such as `reap_dist run` leaves. All figures in it are made up, from fixed formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

LAYERS, EXPERTS, TOP_K = 5, 24, 3
DOMAINS = ("prose", "code", "chat")
TOKENS = 600  # of each group; a domain has two
MODEL_DIGEST, CALIBRATION_DIGEST = "a1" * 32, "c2" * 16
RATIOS = (0.25, 0.5)
CRITERIA = ("reap", "reap:0.5", "frequency")


def counts() -> Any:
    """Slots [group, layer, expert]: uneven, and the last expert of layer 1 has none."""
    groups = 2 * len(DOMAINS)
    g, at, e = np.meshgrid(np.arange(groups), np.arange(LAYERS), np.arange(EXPERTS), indexing="ij")
    weight = 1.0 + (7 * e + 5 * at + 3 * (g // 2)) % EXPERTS
    weight[:, 1, -1] = 0
    found = np.floor(weight / weight.sum(axis=2, keepdims=True) * TOKENS * TOP_K).astype(np.int64)
    found[:, :, 0] += TOKENS * TOP_K - found.sum(axis=2)
    return found


def scores() -> Any:
    """Mean saliency [layer, expert]."""
    at, e = np.meshgrid(np.arange(LAYERS), np.arange(EXPERTS), indexing="ij")
    return np.where(counts().sum(axis=0) > 0, (1 + at) * np.exp(-((11 * e + at) % EXPERTS) / 10.0), 0.0)


def write_saliency(path: Path) -> None:
    """The parts of saliency.h5 that the report reads."""
    count = counts()
    with h5py.File(path, "w") as file:
        file["fields/count"] = count
        file["sums/gate_norm"] = scores() * count.sum(axis=0)
        texts = {
            "schema": "reap-saliency-1", "model_type": "made_up", "model_digest": MODEL_DIGEST,
            "calibration_digest": CALIBRATION_DIGEST, "compute": "fp32", "numerics_id": "made up",
        }  # fmt: skip
        for name, value in texts.items():
            file.attrs[name] = np.bytes_(value)
        wholes = {"block_tokens": 512, "samples": 12, "tokens": 2 * len(DOMAINS) * TOKENS, "top_k": TOP_K}
        for name, number in wholes.items():
            file.attrs[name] = np.int64(number)
        file.attrs["domains"] = np.array([name.encode() for name in DOMAINS])


def plan(criterion: str, ratio: float) -> dict[str, Any]:
    """A plan that keeps what the score asks for."""
    kept = EXPERTS - math.floor(EXPERTS * ratio)
    layers = []
    for number, (score, count) in enumerate(zip(scores(), counts().sum(axis=0), strict=True)):
        own = score if criterion.startswith("reap") else count.astype(float)
        order = np.argsort(-own, kind="stable")
        layers.append({
            "layer": number, "keep": sorted(int(e) for e in order[:kept]),
            "margin": float(own[order[kept - 1]] - own[order[kept]]), "preserved": [],
            "score": [float(s) for s in own], "count": [int(n) for n in count],
        })  # fmt: skip
    return {
        "format": "reap-plan-1", "model_type": "made_up", "model_digest": MODEL_DIGEST,
        "calibration_digest": CALIBRATION_DIGEST, "compute": "fp32", "block_tokens": 512, "numerics_id": "made up",
        "criterion": criterion, "ratio": ratio, "keep": 0, "keep_multiple": 1, "seed": 0,
        "preserve_super_experts": False, "experts": EXPERTS, "kept": kept, "top_k": TOP_K, "layers": layers,
    }  # fmt: skip


def _measure(nll: float, growth: float | None) -> dict[str, Any]:
    grown = nll + (growth or 0.0)
    measure: dict[str, Any] = {"predicted": 3000, "nll": grown, "perplexity": math.exp(grown)}
    if growth is not None:
        measure |= {"kl": growth, "top1": 1 - growth / 2, "overlap": 1 - growth / 2}
    return measure


def _measured(growth: float | None) -> dict[str, Any]:
    """`code` suffers twice as much as the whole, `chat` half as much."""
    shares = (1.0, 2.0, 0.5)
    levels = (3.0, 2.0, 0.4)
    return {
        "all": _measure(2.0, growth),
        "domains": [_measure(n, None if growth is None else growth * s) for n, s in zip(levels, shares, strict=True)],
        "halves": [_measure(2.0, growth), _measure(2.0, growth)],
    }


def sweep(folder: Path) -> dict[str, Any]:
    """reap:0.5 is best at 25 %, reap at 50 %."""
    growths = {
        ("reap", 0.25): 0.02, ("reap:0.5", 0.25): 0.015, ("frequency", 0.25): 0.1,
        ("reap", 0.5): 0.09, ("reap:0.5", 0.5): 0.11, ("frequency", 0.5): 0.4,
    }  # fmt: skip
    variants = []
    for (criterion, ratio), growth in growths.items():
        name = name_of(criterion, ratio)
        digest = xxhash.xxh3_128_hexdigest((folder / f"{name}.plan.json").read_bytes())
        kept = EXPERTS - math.floor(EXPERTS * ratio)
        head = {"name": name, "criterion": criterion, "ratio": ratio, "kept": kept, "plan_digest": digest}
        variants.append(head | _measured(growth))
    return {
        "format": "reap-evaluation", "version": 1, "model": {"type": "made_up", "digest": MODEL_DIGEST},
        "heldout": {"digest": "e5" * 16, "samples": 30, "tokens": 3030}, "compute": "fp32", "block_tokens": 512,
        "numerics": "made up", "domains": list(DOMAINS), "calibration": CALIBRATION_DIGEST,
        "base": _measured(None), "variants": variants,
    }  # fmt: skip


def stability() -> dict[str, Any]:
    """What `reap_dist inspect --json` says: layer 2 is the least sure, and `frequency` has no noise."""
    cuts = []
    for criterion in CRITERIA:
        for ratio in RATIOS:
            kept = EXPERTS - math.floor(EXPERTS * ratio)
            changes = [0.5, 0.25, 1.5, None, 0.75]
            noise = {"dispersion": [1.0] * LAYERS, "margin": [2.0, 3.0, 0.1, None, 1.0], "changes": changes}
            overlap = [[1.0, 0.8, 0.5], [0.8, 1.0, 0.6], [0.5, 0.6, 1.0]]
            cuts.append({
                "criterion": criterion, "ratio": ratio, "kept": kept, "halves": [1.0, 0.9, 0.8, 1.0, 0.95],
                "noise": None if criterion == "frequency" else noise,
                "domains": {"names": list(DOMAINS), "overlap": overlap, "only": [[[1], [2, 3], [], [], []]] * 3},
            })  # fmt: skip
    return {
        "format": "reap-stability", "version": 1, "model": {"type": "made_up", "digest": MODEL_DIGEST},
        "calibration": CALIBRATION_DIGEST, "layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "cuts": cuts,
    }  # fmt: skip


def name_of(criterion: str, ratio: float) -> str:
    """As a run calls its outputs."""
    return f"{criterion.replace(':', '_')}-{ratio}"


def write_json(path: Path, value: Any) -> None:
    """As reap_dist writes it, or nearly."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_folder(folder: Path) -> Path:
    """All files that the report can use but the calibration file."""
    folder.mkdir()
    write_saliency(folder / "saliency.h5")
    for criterion in CRITERIA:
        for ratio in RATIOS:
            write_json(folder / f"{name_of(criterion, ratio)}.plan.json", plan(criterion, ratio))
    write_json(folder / "sweep.json", sweep(folder))
    write_json(folder / "stability.json", stability())
    phases = [("load", "bytes", 5_000_000, 0.02), ("observe", "tokens", 3600, 2.0)]
    phases += [("write", "bytes", 4_000_000, 0.03), ("write", "bytes", 2_000_000, 0.01)]
    log = {
        "software": "reap_dist 0.1.0", "command": "run", "finished_utc": "2026-01-01T00:00:00Z",
        "options": {"model": "made-up", "ratio": "0.25 0.5"}, "hosts": ["n1", "n1", "n2", "n2"],
        "phases": [dict(zip(("name", "unit", "units", "seconds"), phase, strict=True)) for phase in phases],
    }  # fmt: skip
    write_json(folder / "run_log.json", log)
    event = {"event": "phase_end", "phase": "observe", "unit": "tokens", "seconds": 2.0, "gflops": 300.0}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    rates = {"fp32": 100.0, "bf16": 200.0, "read": 1.0, "read-total": 2.0, "write": 0.1, "write-total": 10.0}
    machine = {name: {"value": value, "unit": "", "source": "measured"} for name, value in rates.items()}
    write_json(folder / "estimate.json", {"ranks": 4, "machine": {"kind": "cpu, 4 threads"} | machine})
    return folder
