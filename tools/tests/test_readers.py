"""Rows of files: the same rows whatever the file's kind, taken in any selection."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from conftest import write_lines

from reap_tools.errors import BadInputError, RowError, UsageError
from reap_tools.readers import JsonArray, JsonLines, find_files, open_rows

ROWS: list[Any] = [{"text": f"row {i} ü\u2028", "n": i} for i in range(11)]


def test_all_kinds_give_the_same_rows(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "b.json").write_bytes(lines.read_bytes())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=4)
    for name in ("a.jsonl", "a.jsonl.gz", "a.json", "b.json", "a.parquet"):
        file = open_rows(tmp_path / name, name)
        assert file.numbers.tolist() == list(range(11)), name
        for some in ([], [0], [3, 4, 10], [2, 9], list(range(11))):
            assert list(file.take(some)) == [ROWS[i] for i in some], name


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\r\n  \n{"a": 2}')
    file = JsonLines(path, "a")
    assert file.numbers.tolist() == [0, 3]
    assert list(file.take([3])) == [{"a": 2}]
    assert file.where(3) == f"{path}, line 4"


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": \n[1]\n\xff\n"text"\n' + b"[" * 100_000 + b"\n")
    broken, number, binary, text, deep = JsonLines(path, "a").take(range(5))
    assert isinstance(broken, RowError) and "is not JSON: " in str(broken) and "column" in str(broken)
    assert isinstance(number, RowError) and "is a list" in str(number)
    assert isinstance(binary, RowError) and "is not UTF-8" in str(binary)
    assert text == "text"
    assert isinstance(deep, RowError)


def test_nulls_of_parquet_are_missing_keys(tmp_path: Path) -> None:
    rows = [{"m": [{"role": "a", "calls": None}, {"role": "b", "calls": [{"x": 1, "y": None}]}], "tools": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(open_rows(tmp_path / "a.parquet", "a").take([0])) == [
        {"m": [{"role": "a"}, {"role": "b", "calls": [{"x": 1}]}]}
    ]


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.json", b"[1, 2", "is not JSON"),
        ("b.json", b"3", "neither a JSON array nor JSON lines"),
        ("c.parquet", b"PAR1", "is not a Parquet file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=message):
            open_rows(tmp_path / name, name)
    with pytest.raises(UsageError, match="its name does not tell"):
        open_rows(write_lines(tmp_path / "a.xyz", ROWS), "a")
    assert next(open_rows(tmp_path / "a.xyz", "a", plain=True).take([0])).startswith('{"text"')


def test_numbers_of_an_array(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    assert len(JsonArray(tmp_path / "a.json", "a").numbers) == 0


def test_files_of_a_source(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/1.jsonl", "a.txt", "picture.png", ".hidden/c.txt", "x[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert [name for _, name in find_files(str(tmp_path))] == ["a.txt", "b/1.jsonl", "b/2.jsonl", "x[1].txt"]
    assert [name for _, name in find_files(str(tmp_path / "b" / "*.jsonl"))] == ["1.jsonl", "2.jsonl"]
    assert [name for _, name in find_files(str(tmp_path / "x[1].txt"))] == ["x[1].txt"]
    assert find_files(str(tmp_path / "*.parquet")) == []
    with pytest.raises(BadInputError, match="no file with a known ending"):
        find_files(str(next(p for p in [tmp_path / "empty"] if not p.mkdir())))
