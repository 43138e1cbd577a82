"""The bundled calibration tokens, made again from the texts that they were made of, by another program at the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA, SHARED, TEST_DATA, read, write_lines

PACKED = ("--pack", "--long", "split", "--max-tokens", 512, "--separator", "eos", "--sampling", "first")
TEXTS = SHARED / "calibration" / "text"


def stream(content: dict[str, Any], domain: str) -> list[int]:
    """All tokens of a domain."""
    return [t for s, d in zip(content["samples"], content["domains"], strict=True) if d == domain for t in s]


def find(part: list[int], whole: list[int]) -> int:
    """Where a run of tokens begins in another, or -1."""
    at = np.array(whole, "<i4").tobytes().find(np.array(part, "<i4").tobytes())
    return at if at < 0 else at // 4


def test_packed_prose(calibrate: Any) -> None:
    ours = calibrate("--source", f"{DATA / 'prose.jsonl'}:prose:7", *PACKED)
    published = read(TEST_DATA / "calib_64x512.h5")
    theirs = [s for s, d in zip(published["samples"], published["domains"], strict=True) if d == "prose"]
    assert ours["samples"] == theirs[:7]


def test_templated_chat(calibrate: Any, tmp_path: Path) -> None:
    first = (DATA / "chats.jsonl").read_text().splitlines()[0]
    chat = tmp_path / "chat.jsonl"
    chat.write_text(first + "\n")
    (ours,) = calibrate("--source", f"{chat}:chat:all")["samples"]
    assert len(ours) == 992
    assert find(ours, stream(read(TEST_DATA / "calib_64x512.h5"), "tools")) == 1789


@pytest.mark.skipif(not TEXTS.is_dir(), reason=f"{TEXTS} is not there")
def test_packed_python(calibrate: Any, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (TEXTS / "python.jsonl").read_text().splitlines()]
    path = write_lines(tmp_path / "one.jsonl", [row for row in rows if row["id"].endswith("test_defaultdict.py")])
    ours = calibrate("--source", f"{path}:python:4", *PACKED)
    assert ours["samples"] == read(TEST_DATA / "calib_64x512.h5")["samples"][:4]


@pytest.mark.skipif(not TEXTS.is_dir(), reason=f"{TEXTS} is not there")
@pytest.mark.parametrize(("domain", "rows"), [("python", [1, 4]), ("cpp", [17, 35])])
def test_whole_documents(calibrate: Any, domain: str, rows: list[int]) -> None:
    ours = calibrate("--source", f"{TEXTS / f'{domain}.jsonl'}:{domain}:all", "--sampling", "first")
    theirs = stream(read(SHARED / "calibration" / "calib_code.h5"), domain)
    for row in rows:
        assert find(ours["samples"][row], theirs) >= 0
