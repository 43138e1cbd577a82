"""One line, the right exit code, and nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, MODEL, Run, copy_model, write_lines

CHATS = str(DATA / "chats.jsonl")


def expect(run: Run, code: int, message: str, *arguments: object) -> None:
    outcome = run(*arguments)
    assert outcome.code == code, outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("reap-tools: error: "), outcome.err
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to read: give --source"),
        (["--source", "a.jsonl:chat"], "has to be PATH:DOMAIN:COUNT"),
        (["--source", "a.jsonl::3"], "has to be PATH:DOMAIN:COUNT"),
        (["--source", "a.jsonl:my domain:3"], "'my domain' is no name for a domain"),
        (["--source", "a.jsonl:chat:0"], "'0' is no amount"),
        (["--source", "a.jsonl:chat:-3"], "'-3' is no amount"),
        (["--source", "a.jsonl:chat:30%"], "a share is written 30x, with --samples"),
        (["--source", "a.jsonl:chat:0x"], "'0x' is no amount"),
        (["--source", "a:chat:3", "--source", "b:chat:3"], "domain 'chat' is given twice"),
        (["--source", "a:chat:3x"], "--samples says how many"),
        (["--source", "a:chat:3", "--samples", "9"], "--samples is for sources with weights"),
        (["--source", "a:chat:3x", "--source", "b:c:all", "--samples", "9"], "do not go together"),
        (["--source", "a:chat:3x", "--source", "b:c:9", "--samples", "9"], "leaves less than one sample"),
        (["--source", "a:c:1", "--max-tokens", "0"], "--max-tokens 0"),
        (["--source", "a:c:1", "--min-tokens", "9", "--max-tokens", "8"], "--min-tokens 9"),
        (["--source", "a:c:1", "--seed", "-1"], "--seed -1"),
        (["--source", "a:c:1", "--long", "cut"], "invalid choice: 'cut'"),
        (["--source", "a:c:1", "--template-arg", "x"], "NAME=VALUE"),
        (["--source", "a:c:1", "--data", "d"], "--data is for --recipe"),
        (["--source", "a:c:1", "--recipe", "cerebras-24576"], "do not go together"),
        (["--recipe", "nothing"], "neither a TOML file nor one of cerebras-24576, evol-codealpaca-64x512"),
        (["--recipe", "cerebras-24576"], "needs --data DIR"),
        (["--recipe", "cerebras-24576", "--data", "d", "--field", "text"], "every source has its own"),
        (["--sour", "a:c:1"], "unrecognized arguments"),
        ([f"--source={CHATS}:c:1", "--date", "soon"], "--date soon"),
        ([f"--source={DATA / 'prose.jsonl'}:c:1", "--pack", "--separator", "<no>"], "'<no>' is no token"),
    ],
)
def test_usage(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    expect(run, 2, message, "calibrate", "--model", MODEL, "--output", tmp_path / "c.h5", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_no_command(run: Run) -> None:
    assert run().code == 2
    expect(run, 2, "invalid choice", "prune")
    expect(run, 2, "--model", "calibrate")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"text": "a"}', "{"], r"rows.jsonl, line 2: is not JSON: .*; --bad-rows skip"),
        (['{"text": "a"}', "", '{"text": ""}'], r"rows.jsonl, line 3: is empty"),
        (['{"body": "a"}'], r"line 1: no field is known .*--field: body"),
        (['{"messages": [{"role": "user"}, 3]}'], r"line 1: messages\[1\] has to be an object"),
        (['{"text": "a"}', '{"text": "b"}'], r"domain 'd' asks for 3 samples, but its 2 rows give 2$"),
        (['{"text": "a"}', '{"text": "a"}'], r"give 1 \(1 duplicates\)"),
    ],
)
def test_rows(run: Run, tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    output = tmp_path / "c.h5"
    arguments = ("calibrate", "--model", MODEL, "--source", f"{path}:d:3", "--sampling", "first", "--output", output)
    expect(run, 3, message, *arguments)
    assert not output.exists()


def test_bad_rows_are_left_out_when_asked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{\n{"text": ""}\n{"text": "b"}\n' + "3\n" * 9)
    command = ("calibrate", "--model", MODEL, "--source", f"{path}:d:all", "--dry-run", "--bad-rows", "skip")
    outcome = run(*command, "--sampling", "first")
    assert outcome.code == 0
    assert "left out: 11 bad rows" in outcome.out
    assert outcome.err.count("reap-tools: left out: ") == 5, "the first ones are named"
    assert f"{path}, line 3: is empty" in outcome.err


def test_a_row_that_is_not_drawn_does_no_harm(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{\n')
    command = ("calibrate", "--model", MODEL, "--source", f"{path}:d:1", "--dry-run", "--sampling", "first")
    assert run(*command).code == 0


def test_tokens_beyond_the_vocabulary(run: Run, tmp_path: Path) -> None:
    model = copy_model(tmp_path / "model", vocab_size=300)
    message = r"prose.jsonl, line \d: token \d+ at position \d+ is beyond the model's vocabulary of 300"
    arguments = ("--source", f"{DATA / 'prose.jsonl'}:d:1", "--bad-rows", "skip", "--dry-run")
    expect(run, 3, message, "calibrate", "--model", model, *arguments)


def test_the_last_token_of_the_vocabulary(run: Run, calibrate: Any, tmp_path: Path) -> None:
    source = ("--source", f"{DATA / 'maths.jsonl'}:d:all")
    highest = max(max(sample) for sample in calibrate(*source)["samples"])
    enough = copy_model(tmp_path / "enough", vocab_size=highest + 1)
    assert run("calibrate", "--model", enough, *source, "--dry-run").code == 0
    small = copy_model(tmp_path / "small", vocab_size=highest)
    message = f"token {highest} at position .* beyond the model's vocabulary of {highest}"
    expect(run, 3, message, "calibrate", "--model", small, *source, "--dry-run")


def test_models(run: Run, tmp_path: Path) -> None:
    def broken(name: str, content: str | None, source: str = "prose") -> tuple[object, ...]:
        model = copy_model(tmp_path / f"m{len(list(tmp_path.iterdir()))}")
        (model / name).unlink() if content is None else (model / name).write_text(content)
        return ("calibrate", "--model", model, "--source", f"{DATA / source}.jsonl:d:1", "--dry-run")

    expect(
        run,
        3,
        "line 1: is a conversation, but the model has no chat template",
        *broken("tokenizer_config.json", "{}", "chats"),
        "--sampling",
        "first",
    )
    config = json.dumps({"chat_template": "{% for %}"})
    expect(run, 3, "tokenizer_config.json: line 1 of the chat template", *broken("tokenizer_config.json", config))
    expect(run, 3, "tokenizer_config.json: is not JSON", *broken("tokenizer_config.json", "{"))
    expect(run, 3, "cannot be read as a tokenizer", *broken("tokenizer.json", "{}"))
    expect(run, 3, "says no vocab_size", *broken("config.json", "{}"))
    expect(run, 4, "tokenizer.json: No such file", *broken("tokenizer.json", None))
    expect(run, 4, "config.json: No such file", *broken("config.json", None))


def test_files(run: Run, tmp_path: Path) -> None:
    prose = f"{DATA / 'prose.jsonl'}:d:1"
    expect(
        run,
        4,
        "missing.jsonl: no such file",
        "calibrate",
        "--model",
        MODEL,
        "--source",
        "missing.jsonl:d:1",
        "--dry-run",
    )
    expect(
        run,
        4,
        "nowhere: no such folder",
        "calibrate",
        "--model",
        MODEL,
        "--source",
        prose,
        "--output",
        tmp_path / "nowhere" / "c.h5",
    )
    (tmp_path / "c.h5").write_text("precious")
    expect(
        run,
        3,
        "c.h5: exists; name another file or give --overwrite",
        "calibrate",
        "--model",
        MODEL,
        "--source",
        prose,
        "--output",
        tmp_path / "c.h5",
    )
    assert (tmp_path / "c.h5").read_text() == "precious"
    expect(
        run,
        3,
        "c.h5: cannot be read",
        "calibrate",
        "--model",
        MODEL,
        "--source",
        prose,
        "--dry-run",
        "--exclude",
        tmp_path / "c.h5",
    )


def test_tools_of_a_source(run: Run, tmp_path: Path) -> None:
    for content, message in (("{", "is not JSON"), ("3", "tools has to be a list")):
        (tmp_path / "tools.json").write_text(content)
        arguments: list[Any] = ["--source", f"{CHATS}:d:1", "--tools", tmp_path / "tools.json", "--dry-run"]
        expect(run, 3, f"tools.json: {message}", "calibrate", "--model", MODEL, *arguments)


def test_a_bug_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("reap_tools.cli.Checkpoint", lambda *_: 1 // 0)
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    outcome = run("calibrate", "--model", MODEL, "--source", f"{path}:d:1", "--dry-run")
    assert outcome.code == 70 and "ZeroDivisionError" in outcome.err and "a bug of reap-tools" in outcome.err
