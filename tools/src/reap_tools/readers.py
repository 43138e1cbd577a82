"""Rows of local files: JSON lines, JSON arrays, Parquet, and text files that are one row each.

A row has a number that stays: its line in JSON lines (from 0), its position in a JSON array or Parquet file, 0 for a
text file. Files are opened once for their digest and number of rows; rows are then taken by number, in ascending order.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet

from reap_tools.errors import BadInputError, RowError, UsageError

Row = dict[str, Any] | str
_PIECE = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as it lies on the disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RowFile(ABC):
    """A file of rows. `numbers` are those of its rows, ascending."""

    counts_from_one = False

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        # For provenance: relative to the source. A name on a disk may be any bytes.
        self.name = name.encode("utf-8", "backslashreplace").decode()
        self.sha256 = file_sha256(path)
        self.numbers: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def where(self, number: int) -> str:
        """A row's place, as an editor or a library counts."""
        return f"{self.path}, line {number + 1}" if self.counts_from_one else f"{self.path}, row {number}"

    @abstractmethod
    def take(self, numbers: Sequence[int]) -> Iterator[Row | RowError]:
        """The rows of these numbers, which ascend; an error in place of a row that cannot be read."""


def _as_row(value: Any) -> Row | RowError:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return value
    return RowError(f"has to be a JSON object or a string, is {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    return names.get(type(value), type(value).__name__)


def _open_binary(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


class JsonLines(RowFile):
    """One JSON value per line, possibly gzipped; blank lines are no rows."""

    counts_from_one = True

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        starts, numbers, position = [], [], 0
        with _open_binary(path) as file:
            for number, line in enumerate(file):
                if line.strip():
                    starts.append(position)
                    numbers.append(number)
                position += len(line)
        self.numbers = np.array(numbers, np.int64)
        self._starts = np.array(starts, np.int64)

    def take(self, numbers: Sequence[int]) -> Iterator[Row | RowError]:
        """Rows by seeking to their lines."""
        with _open_binary(self.path) as file:
            for start in self._starts[np.searchsorted(self.numbers, np.array(numbers, np.int64))]:
                file.seek(int(start))
                line = file.readline()
                try:
                    yield _as_row(json.loads(line.decode("utf-8-sig")))
                except UnicodeDecodeError as error:
                    yield RowError(f"is not UTF-8 ({error.reason} at byte {error.start})")
                except json.JSONDecodeError as error:
                    yield RowError(f"is not JSON: {error.msg} at column {error.colno}")
                except RecursionError:
                    yield RowError("is nested too deeply")


class JsonArray(RowFile):
    """A JSON array, held in memory."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        try:
            with _open_binary(path) as file:
                self._values = json.loads(file.read().decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise BadInputError(f"{path}: is not JSON: {error}") from None
        self.numbers = np.arange(len(self._values), dtype=np.int64)

    def take(self, numbers: Sequence[int]) -> Iterator[Row | RowError]:
        """Rows by position."""
        for number in numbers:
            yield _as_row(self._values[number])


class ParquetRows(RowFile):
    """A Parquet file, read by row groups. Nulls are left out: its columns and structs have all keys in all rows."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise BadInputError(f"{path}: is not a Parquet file: {error}") from None
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._ends = np.cumsum(np.array(sizes, np.int64)) if sizes else np.zeros(0, np.int64)
        self.numbers = np.arange(metadata.num_rows, dtype=np.int64)

    def take(self, numbers: Sequence[int]) -> Iterator[Row | RowError]:
        """Rows by position; a row group is read once for all its rows."""
        wanted = np.asarray(numbers, np.int64)
        group_of = np.searchsorted(self._ends, wanted, side="right")
        for group in np.unique(group_of):
            start = self._ends[group - 1] if group else 0
            try:
                table = self._file.read_row_group(int(group)).take(wanted[group_of == group] - start)
            except (pyarrow.ArrowException, OSError) as error:
                raise BadInputError(f"{self.path}: row group {group} cannot be read: {error}") from None
            for value in table.to_pylist():
                yield _as_row(_without_nulls(value))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


class TextFile(RowFile):
    """A text file: one row."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.numbers = np.zeros(1, np.int64)

    def where(self, number: int) -> str:
        """The file itself."""
        return str(self.path)

    def take(self, numbers: Sequence[int]) -> Iterator[Row | RowError]:
        """The whole text."""
        for _ in numbers:
            try:
                with _open_binary(self.path) as file:
                    yield file.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                yield RowError(f"is not UTF-8 ({error.reason} at byte {error.start})")


_READERS: dict[str, type[RowFile]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": ParquetRows,
    ".txt": TextFile,
    ".text": TextFile,
    ".md": TextFile,
}
KNOWN = ".jsonl, .ndjson, .json, .txt, .text, .md (these also with .gz) and .parquet"


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _is_known(path: Path) -> bool:
    return _suffix(path) == ".json" or _suffix(path) in _READERS


def open_rows(path: Path, name: str, *, plain: bool = False) -> RowFile:
    """The reader for a file's name. `plain`: names that say nothing are text files."""
    suffix = _suffix(path)
    if suffix == ".json":
        return _open_json(path, name)
    if suffix in _READERS:
        return _READERS[suffix](path, name)
    if plain:
        return TextFile(path, name)
    raise UsageError(f"{path}: its name does not tell what it is; known are {KNOWN}; --format text takes any file")


def _open_json(path: Path, name: str) -> RowFile:
    """An array, or JSON lines under another name, which many datasets have."""
    with _open_binary(path) as file:
        head = file.read(_PIECE).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        return JsonArray(path, name)
    if head.startswith(b"{"):
        return JsonLines(path, name)
    raise BadInputError(f"{path}: starts neither with [ nor with {{, so it is neither a JSON array nor JSON lines")


def find_files(pattern: str) -> list[tuple[Path, str]]:
    """Files of a source, in order of their names: one file, the known files of a folder, or what a pattern matches."""
    path = Path(pattern)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_known(file))
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not files:
            raise BadInputError(f"{path}: no file with a known ending in this folder; known are {KNOWN}")
        return [(file, file.relative_to(path).as_posix()) for file in files]
    if path.exists():
        return [(path, path.name)]
    if glob.has_magic(pattern):
        matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())  # noqa: PTH207
        return [(file, file.name) for file in matches]
    return []
