"""calibration.h5, schema reap-calibration-1 (docs/format/calibration.md)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reap_tools.errors import BadInputError
from reap_tools.samples import Sample

SCHEMA = "reap-calibration-1"
ORIGIN_COLUMNS = "sample file row begin end"


@contextlib.contextmanager
def _reproducible_file(path: Path) -> Iterator[h5py.File]:
    """A file of HDF5 1.8's encoding, whose metadata have checksums, without times of writing."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    file = h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))
    try:
        yield file
    finally:
        file.close()


def _text(value: str) -> np.ndarray[Any, Any]:
    """Text of fixed length, UTF-8."""
    encoded = value.encode()
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded))))


def _texts(values: Sequence[str]) -> np.ndarray[Any, Any]:
    encoded = [value.encode() for value in values]
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))


def write_calibration(
    path: Path,
    domains: Sequence[tuple[str, Sequence[Sample]]],
    attributes: dict[str, str | int],
    source: dict[str, Any],
) -> None:
    """Writes samples, domain after domain, to a temporary name, and renames the finished file."""
    samples = [sample for _, members in domains for sample in members]
    lengths = np.array([len(sample.tokens) for sample in samples], np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    domain = np.repeat(np.arange(len(domains), dtype=np.uint8), [len(members) for _, members in domains])
    origin = np.array([(i, *each) for i, sample in enumerate(samples) for each in sample.origins], np.int64)

    partial = path.with_name(path.name + ".partial")
    try:
        with _reproducible_file(partial) as file:

            def create(name: str, shape: tuple[int, ...], dtype: str) -> Any:
                return file.create_dataset(name, shape, dtype, track_times=False)

            tokens = create("tokens", (int(offsets[-1]),), "<i4")
            for sample, begin in zip(samples, offsets, strict=False):
                tokens[begin : begin + len(sample.tokens)] = sample.tokens
            create("offsets", offsets.shape, "<i8")[:] = offsets
            create("domain", domain.shape, "u1")[:] = domain
            table = create("origin", origin.shape, "<i8")
            table[:] = origin
            table.attrs["columns"] = _text(ORIGIN_COLUMNS)
            file.attrs["schema"] = _text(SCHEMA)
            file.attrs["domains"] = _texts([name for name, _ in domains])
            for name, value in attributes.items():
                file.attrs[name] = _text(value) if isinstance(value, str) else np.int64(value)
            file.attrs["source"] = _text(json.dumps(source, indent=1, ensure_ascii=False))
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # h5py says RuntimeError when closing fails
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OSError(getattr(error, "errno", None) or 5, reason, str(path)) from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_origins(path: Path) -> set[tuple[str, int]]:
    """(SHA-256 of the file, number of the row) of every row that a calibration file was made of."""
    with path.open("rb"):
        pass  # a missing file is an error of its own, with its name
    try:
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema", b"")
            if (schema.decode() if isinstance(schema, bytes) else schema) != SCHEMA or "origin" not in file:
                raise BadInputError(f"{path}: does not say which rows it was made of; only files of reap-tools do")
            digests = [
                each["sha256"] for source in json.loads(file.attrs["source"])["sources"] for each in source["files"]
            ]
            return {(digests[index], int(row)) for _, index, row, _, _ in file["origin"][:]}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInputError(f"{path}: cannot be read as a calibration file of reap-tools: {error}") from None
