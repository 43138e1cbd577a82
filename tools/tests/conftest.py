"""Paths of the repository's test data, and the command as a function."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from reap_tools.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parent / "data"
TEST_DATA = Path(os.environ.get("REAP_TEST_DATA") or REPOSITORY / "tests" / "data")
SHARED = Path(os.environ.get("REAP_SHARED") or REPOSITORY.parent / "shared")
MODEL = TEST_DATA / "m2-nano-fp8"


class Outcome(NamedTuple):
    """What a run of the command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs reap-tools with these arguments."""

    def call(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(code), captured.out, captured.err)

    return call


@pytest.fixture
def calibrate(run: Run, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs `calibrate` with the bundled model and returns the content of the file."""

    def call(*arguments: object, model: Path = MODEL, name: str = "calibration.h5") -> dict[str, Any]:
        output = tmp_path / name
        outcome = run("calibrate", "--model", model, "--output", output, "--overwrite", *arguments)
        assert outcome.code == 0, outcome.err
        return read(output)

    return call


def read(path: Path) -> dict[str, Any]:
    """A calibration file: samples as lists, the domain's name of each, attributes."""
    with h5py.File(path) as file:
        tokens, offsets = file["tokens"][:], file["offsets"][:]
        attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in file.attrs.items()}
        names = [name.decode() if isinstance(name, bytes) else name for name in attributes["domains"]]
        content = {
            "samples": [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)],
            "domains": [names[i] for i in file["domain"][:]],
            "attributes": attributes | {"domains": names},
        }
        if "origin" in file:
            content["origin"] = file["origin"][:]
            content["source"] = json.loads(attributes["source"])
        return content


def write_lines(path: Path, rows: list[Any]) -> Path:
    """A JSON lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def copy_model(folder: Path, **config: Any) -> Path:
    """The bundled model's text side, with changes of config.json."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(MODEL / name, folder)
    own = json.loads((MODEL / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(own))
    return folder


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Forty texts that tell themselves apart, of two to six words."""
    rng = np.random.default_rng(1)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    rows = [{"text": f"{i}: " + " ".join(rng.choice(words, 2 + i % 5))} for i in range(40)]
    return write_lines(tmp_path / "numbers.jsonl", rows)
