"""calibration.h5, schema reap-calibration-1 (docs/format/calibration.md)."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reap_tools.errors import BadInputError
from reap_tools.samples import Sample

SCHEMA = "reap-calibration-1"
ORIGIN_COLUMNS = "sample file row begin end"


def _file_in(memory: io.BytesIO) -> h5py.File:
    """A file of HDF5 1.8's encoding, whose metadata have checksums, without times of writing. In memory, because HDF5
    notices a full disk when it closes the file, and may crash then; not by HDF5's own driver, because its image of a
    file has a wrong checksum in some releases."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, memory)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    return h5py.File(h5py.h5f.create(b"calibration.h5", h5py.h5f.ACC_TRUNC, creation, access))


def _text(value: str) -> np.ndarray[Any, Any]:
    """Text of fixed length, UTF-8."""
    encoded = value.encode()
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded))))


def _texts(values: Sequence[str]) -> np.ndarray[Any, Any]:
    encoded = [value.encode() for value in values]
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))


def file_image(
    domains: Sequence[tuple[str, Sequence[Sample]]], attributes: dict[str, str | int], source: dict[str, Any]
) -> memoryview:
    """The bytes of a calibration file with these samples, domain after domain."""
    samples = [sample for _, members in domains for sample in members]
    offsets = np.cumsum([0, *(len(sample.tokens) for sample in samples)], dtype="<i8")
    domain = np.repeat(np.arange(len(domains), dtype="u1"), [len(members) for _, members in domains])
    origin = np.array([(i, *each) for i, sample in enumerate(samples) for each in sample.origins], "<i8")
    memory = io.BytesIO()
    with _file_in(memory) as file:
        tokens = file.create_dataset("tokens", (int(offsets[-1]),), "<i4", track_times=False)
        for sample, begin in zip(samples, offsets, strict=False):
            tokens[begin : begin + len(sample.tokens)] = sample.tokens
        for name, values in (("offsets", offsets), ("domain", domain), ("origin", origin)):
            file.create_dataset(name, data=values, track_times=False)
        file["origin"].attrs["columns"] = _text(ORIGIN_COLUMNS)
        file.attrs["schema"] = _text(SCHEMA)
        file.attrs["domains"] = _texts([name for name, _ in domains])
        for name, value in attributes.items():
            file.attrs[name] = _text(value) if isinstance(value, str) else np.int64(value)
        file.attrs["source"] = _text(json.dumps(source, indent=1, ensure_ascii=False))
    return memory.getbuffer()


def write_atomically(path: Path, content: memoryview) -> None:
    """Writes under a temporary name, and renames the finished file; leaves nothing behind when that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
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
