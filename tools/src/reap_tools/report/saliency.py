"""saliency.h5, schema reap-saliency-1 (docs/format/saliency.md): what the report needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reap_tools.errors import BadInputError

SCHEMA = "reap-saliency-1"


@dataclass(frozen=True)
class Saliency:
    """Tokens and mean saliency of every expert. G = 2 groups per domain, L layers, E experts."""

    model_type: str
    model_digest: str
    calibration_digest: str
    compute: str
    numerics_id: str
    block_tokens: int
    samples: int
    tokens: int
    top_k: int
    domains: tuple[str, ...]
    count: NDArray[np.int64]  # [G, L, E] slots
    reap: NDArray[np.float64]  # [L, E] mean of g * norm(f) over the expert's slots; 0 without slots

    @property
    def layers(self) -> int:
        """Layers."""
        return int(self.count.shape[1])

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return int(self.count.shape[2])

    def counts(self) -> NDArray[np.int64]:
        """Slots over all groups, [L, E]."""
        return np.asarray(self.count.sum(axis=0))

    def counts_of(self, domain: int) -> NDArray[np.int64]:
        """Slots of a domain, [L, E]."""
        return np.asarray(self.count[2 * domain : 2 * domain + 2].sum(axis=0))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_saliency(path: Path) -> Saliency:
    """Reads the file and checks that no slot is missing."""
    with path.open("rb"):
        pass  # a missing file is an error of its own, with its name
    try:
        with h5py.File(path, "r") as file:
            schema = _text(file.attrs.get("schema", "none"))
            if schema != SCHEMA:
                raise BadInputError(f"{path}: its schema is {schema}, not {SCHEMA}")
            count = np.asarray(file["fields/count"][:], np.int64)
            gate_norm = np.asarray(file["sums/gate_norm"][:], np.float64)
            saliency = Saliency(
                model_type=_text(file.attrs["model_type"]),
                model_digest=_text(file.attrs["model_digest"]),
                calibration_digest=_text(file.attrs["calibration_digest"]),
                compute=_text(file.attrs["compute"]),
                numerics_id=_text(file.attrs["numerics_id"]),
                block_tokens=int(file.attrs["block_tokens"]),
                samples=int(file.attrs["samples"]),
                tokens=int(file.attrs["tokens"]),
                top_k=int(file.attrs["top_k"]),
                domains=tuple(_text(name) for name in file.attrs["domains"]),
                count=count,
                reap=gate_norm / np.maximum(count.sum(axis=0), 1),
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path}: cannot be read as a saliency file: {error}") from None
    _check(saliency, path)
    return saliency


def _check(saliency: Saliency, path: Path) -> None:
    count = saliency.count
    if count.ndim != 3 or count.shape[0] != 2 * len(saliency.domains) or saliency.reap.shape != count.shape[1:]:
        raise BadInputError(f"{path}: its tables do not fit its {len(saliency.domains)} domains; it is damaged")
    if min(count.shape) == 0 or (count.sum(axis=(0, 2)) != saliency.top_k * saliency.tokens).any():
        raise BadInputError(f"{path}: its counts do not add up to top_k times tokens; it is damaged")
    if not np.isfinite(saliency.reap).all():
        raise BadInputError(f"{path}: holds sums that are not finite; it is damaged")
