"""Where the calibration samples come from: the digest of a calibration file, and what it says of its sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from reap_tools.errors import BadInputError

_CHUNK = 1 << 22  # tokens read at a time


@dataclass(frozen=True)
class Domain:
    """One domain's part of the file."""

    name: str
    samples: int
    tokens: int


@dataclass(frozen=True)
class Calibration:
    """A calibration file, without its tokens."""

    digest: str
    domains: tuple[Domain, ...]
    source: str | dict[str, Any] | None  # a text, or the JSON of reap-tools


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _source(attributes: Any) -> str | dict[str, Any] | None:
    if "source" not in attributes:
        return None
    text = _text(attributes["source"])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _digest(file: Any, offsets: Any, domain: Any, names: list[str]) -> str:
    """XXH3-128 over the content (docs/format/calibration.md, Identity)."""
    digest = xxhash.xxh3_128()
    digest.update(_text(file.attrs["schema"]).encode())
    for values, form in ((offsets, "<i8"), (domain, "u1")):
        digest.update(np.int64(len(values)).astype("<i8").tobytes())
        digest.update(values.astype(form).tobytes())
    for name in names:
        digest.update(np.int64(len(name.encode())).astype("<i8").tobytes())
        digest.update(name.encode())
    tokens = file["tokens"]
    for begin in range(0, tokens.shape[0], _CHUNK):
        digest.update(tokens[begin : begin + _CHUNK].astype("<i4").tobytes())
    return digest.hexdigest()


def read_calibration(path: Path) -> Calibration:
    """Reads a calibration file and forms its digest."""
    with path.open("rb"):
        pass
    try:
        with h5py.File(path, "r") as file:
            offsets = file["offsets"][:]
            domain = file["domain"][:] if "domain" in file else np.zeros(len(offsets) - 1, "u1")
            numbers = range(int(domain.max(initial=0)) + 1)
            names = [_text(name) for name in file.attrs.get("domains", [str(i) for i in numbers])]
            lengths = np.diff(offsets)
            domains = tuple(
                Domain(name, int((domain == i).sum()), int(lengths[domain == i].sum())) for i, name in enumerate(names)
            )
            return Calibration(_digest(file, offsets, domain, names), domains, _source(file.attrs))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path}: cannot be read as a calibration file: {error}") from None
