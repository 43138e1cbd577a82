"""Recipes: those of the package are sound, and do what they say on files of the right shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from conftest import DATA, MODEL, Run, copy_model, read, write_lines

from reap_tools import recipes
from reap_tools.settings import Settings


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_of_the_package(name: str) -> None:
    table = recipes.read(recipes.locate(name))
    assert table["title"] and table["cites"]
    settings = Settings(**recipes.load(name, Path("data")))
    assert settings.recipe == name
    assert all(source.dataset and source.obtain and "data/" in source.obtain for source in settings.sources)
    assert all(source.tools is None or source.tools.is_file() for source in settings.sources)


def test_the_published_amounts() -> None:
    mix = Settings(**recipes.load("cerebras-24576", Path("data")))
    assert (sum(target or 0 for target in mix.targets()), mix.max_tokens) == (24576, 16384)
    small = Settings(**recipes.load("evol-codealpaca-64x512", Path("data")))
    assert (small.targets(), small.max_tokens, small.seed) == ([64], 512, 42)


def test_missing_data_are_named_with_the_way_to_get_them(run: Run, tmp_path: Path) -> None:
    outcome = run("calibrate", "--model", MODEL, "--recipe", "cerebras-24576", "--data", tmp_path, "--dry-run")
    assert outcome.code == 4
    assert f"{tmp_path}/evol-codealpaca-v1/train.jsonl (hf download theblackcat102/evol-codealpaca-v1" in outcome.err
    assert f"--local-dir {tmp_path}/SWE-smith-trajectories)" in outcome.err


def fake_data(folder: Path) -> None:
    """Files with the names and columns of the mix, three rows each."""
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nt\n</think>\n\na"}]
    (folder / "evol-codealpaca-v1").mkdir(parents=True)
    rows: list[dict[str, Any]] = [{"instruction": f"write {i}", "output": "x = 1"} for i in range(3)]
    write_lines(folder / "evol-codealpaca-v1" / "train.jsonl", rows)
    for subset in ("code", "math", "science"):
        (folder / "Mixture-of-Thoughts" / subset).mkdir(parents=True)
        rows = [
            {"messages": [*chat, {"role": "user", "content": f"{subset} {i}"}], "num_tokens": 3, "source": "s"}
            for i in range(3)
        ]
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / "Mixture-of-Thoughts" / subset / "train-00000-of-00001.parquet"
        )
    (folder / "xlam-function-calling-60k").mkdir()
    answers = json.dumps([{"name": "giveaways", "arguments": {"type": "beta"}}])
    tools = json.dumps([{"name": "giveaways", "description": "d", "parameters": {"type": {"type": "str"}}}])
    rows = [{"id": i, "query": f"where {i}?", "answers": answers, "tools": tools} for i in range(3)]
    (folder / "xlam-function-calling-60k" / "xlam_function_calling_60k.json").write_text(json.dumps(rows))
    (folder / "SWE-smith-trajectories" / "data").mkdir(parents=True)
    call = {"function": {"name": "bash", "arguments": '{"command": "ls"}'}, "id": "c", "type": "function"}
    turns = [
        {"role": "system", "content": "You help.", "agent": "main"},
        {"role": "user", "content": [{"type": "text", "text": "fix it"}]},
        {"role": "assistant", "content": "look", "tool_calls": [call], "thought": "look"},
        {"role": "tool", "content": [{"type": "text", "text": "a.py"}], "tool_call_ids": ["c"]},
    ]
    rows = [{"messages": json.dumps([{"role": "user", "content": str(i)}, *turns]), "resolved": True} for i in range(3)]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), folder / "SWE-smith-trajectories" / "data" / "tool-00000-of-00001.parquet"
    )


def test_the_mix_on_files_of_its_shape(run: Run, tmp_path: Path) -> None:
    fake_data(tmp_path / "data")
    recipe = tmp_path / "data" / "small.toml"
    recipe.write_text(recipes.describe("cerebras-24576").replace("4096", "2").replace("16384", "900"))
    tools = recipes.locate("cerebras-24576").parent / "swe-smith-tools.json"
    (tmp_path / "data" / "swe-smith-tools.json").write_bytes(tools.read_bytes())
    model = copy_model(tmp_path / "model")
    (model / "chat_template.jinja").write_bytes((DATA / "tools.jinja").read_bytes())
    output = tmp_path / "c.h5"
    outcome = run("calibrate", "--model", model, "--recipe", recipe, "--output", output)
    assert outcome.code == 0, outcome.err
    content = read(output)
    names = ["code", "reasoning-code", "reasoning-math", "reasoning-science", "tool-calls", "agentic-code"]
    assert content["attributes"]["domains"] == names
    assert content["domains"] == [name for name in names for _ in range(2)]
    assert content["source"]["recipe"] == "small"
    assert content["source"]["sources"][4]["dataset"] == "Salesforce/xlam-function-calling-60k"
    outcome = run("calibrate", "--model", model, "--recipe", recipe, "--dry-run")
    assert '<tools>\n{"name": "giveaways"' in outcome.out
    assert '<tools>\n{"name": "bash"' in outcome.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "is not TOML"),
        ("sede = 1", "the recipe has an unknown key 'sede'"),
        ("seed = '1'", "seed has to be of type int"),
        ("pack = 1", "pack has to be of type bool"),
        ("seed = 1", r"has no \[\[source\]\]"),
        ("[[source]]\npath = 'a'\ncount = 1", "source 1 lacks domain"),
        ("[[source]]\npath = 'a'\ncount = 1\ndomain = 3", "source 1: domain has to be text"),
        ("[[source]]\npath = 'a'\ncount = 1\ndomain = 'd'\nfile = 'x'", "source 1 has an unknown key 'file'"),
    ],
)
def test_recipes_that_are_none(run: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    outcome = run("calibrate", "--model", MODEL, "--recipe", tmp_path / "own.toml", "--dry-run")
    assert outcome.code == 3
    assert re.search(message, outcome.err), outcome.err


def test_own_recipes_stand_by_their_data(run: Run, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(4)])
    recipe = tmp_path / "own.toml"
    recipe.write_text("seed = 7\nmax_tokens = 9\n[[source]]\npath = 'a.jsonl'\ndomain = 'd'\ncount = 'all'\n")
    output = tmp_path / "c.h5"
    assert run("calibrate", "--model", MODEL, "--recipe", recipe, "--output", output, "--seed", 8).code == 0
    content = read(output)
    assert (content["attributes"]["seed"], content["attributes"]["max_len"]) == (8, 9), "the command line wins"


def test_recipes_are_listed_and_printed(run: Run) -> None:
    assert "cerebras-24576 " in run("recipes").out
    assert 'dataset = "Salesforce/xlam-function-calling-60k"' in run("recipes", "cerebras-24576").out
