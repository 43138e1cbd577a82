"""Plans (docs/format/plan.md): which experts stay, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from reap_tools.errors import BadInputError
from reap_tools.report.fields import Fields

FORMAT = "reap-plan-1"


@dataclass(frozen=True)
class Plan:
    """A plan. L layers, E experts before pruning."""

    name: str
    digest: str  # XXH3-128 of the text
    model_type: str
    model_digest: str
    calibration_digest: str
    criterion: str
    ratio: float
    experts: int
    top_k: int
    kept: NDArray[np.bool_]  # [L, E]
    score: NDArray[np.float64]  # [L, E]
    count: NDArray[np.int64]  # [L, E]
    exempt: NDArray[np.bool_]  # [L, E] kept whatever their score: super experts, and those that carry a domain
    margin: NDArray[np.float64]  # [L]
    wishes: dict[str, Any]  # weights of domains and what they protect, where that was asked for

    @property
    def layers(self) -> int:
        """Layers."""
        return int(self.kept.shape[0])

    @property
    def kept_counts(self) -> list[int]:
        """Experts that stay, by layer."""
        return [int(n) for n in self.kept.sum(axis=1)]


def _members(layer: Fields, names: tuple[str, ...], experts: int) -> NDArray[np.bool_]:
    """Which experts are in any of these lists."""
    row = np.zeros(experts, bool)
    for name in names:
        ids = layer.wholes(name) if layer.has(name) else []
        if any(b <= a for a, b in zip([-1, *ids], ids, strict=False)) or (ids and ids[-1] >= experts):
            raise layer.wrong(name, f"expert ids below {experts}, ascending")
        row[np.array(ids, np.int64)] = True
    return row


def read_plan(path: Path, name: str) -> Plan:
    """Reads a plan; `name` is what the page calls it."""
    plan = Fields.of_file(path)
    if (found := plan.text("format")) != FORMAT:
        raise BadInputError(f"{path}: its format is {found}, not {FORMAT}")
    experts = plan.whole("experts")
    layers = plan.objects("layers")
    if not layers or experts == 0:
        raise BadInputError(f"{path}: holds no layers")
    score = np.array([layer.numbers("score", experts) for layer in layers])  # before anything is made of that size
    kept = np.array([_members(layer, ("keep",), experts) for layer in layers])
    if not kept.any(axis=1).all():
        raise BadInputError(f"{path}: a layer keeps no expert")
    return Plan(
        name=name,
        digest=xxhash.xxh3_128_hexdigest(path.read_bytes()),
        model_type=plan.text("model_type"),
        model_digest=plan.text("model_digest"),
        calibration_digest=plan.text("calibration_digest"),
        criterion=plan.text("criterion"),
        ratio=plan.number("ratio"),
        experts=experts,
        top_k=plan.whole("top_k"),
        kept=kept,
        exempt=np.array([_members(layer, ("preserved", "protected"), experts) for layer in layers]),
        score=score,
        count=np.array([layer.wholes("count", experts) for layer in layers], np.int64),
        margin=np.array([layer.number("margin") for layer in layers]),
        wishes={name: plan.any(name) for name in ("domain_weights", "protect") if plan.has(name)},
    )
