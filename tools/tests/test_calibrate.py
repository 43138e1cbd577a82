"""`reap-tools calibrate` as its users run it: what is in the file, and that it is the same file every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tokenizers
from conftest import DATA, MODEL, Run, read, write_lines

SOURCES = (
    *("--source", f"{DATA / 'chats.jsonl'}:chat:3"),
    *("--source", f"{DATA / 'prose.jsonl'}:prose:8"),
    *("--source", f"{DATA / 'maths.jsonl'}:maths:all"),
    *("--long", "split", "--max-tokens", 256),
)


def test_the_file_is_as_the_format_says(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "calibration.h5"
    assert run("calibrate", "--model", MODEL, *SOURCES, "--output", output).code == 0
    digest = hashlib.sha256((MODEL / "tokenizer.json").read_bytes()).hexdigest()
    with h5py.File(output) as file:
        tokens, offsets, domain = file["tokens"], file["offsets"], file["domain"]
        assert (tokens.dtype, offsets.dtype, domain.dtype) == (np.dtype("<i4"), np.dtype("<i8"), np.dtype("u1"))
        assert offsets[0] == 0 and (np.diff(offsets[:]) > 0).all() and offsets[-1] == len(tokens)
        assert np.diff(offsets[:]).max() == 256
        assert file.attrs["schema"] == b"reap-calibration-1"
        assert list(file.attrs["domains"]) == [b"chat", b"prose", b"maths"]
        assert (file.attrs["seed"], file.attrs["max_len"]) == (42, 256)
        assert file.attrs["tokenizer_sha256"].decode() == digest
        assert (np.diff(domain[:].astype(int)) >= 0).all()
        assert np.bincount(domain[:])[:2].tolist() == [3, 8]
    head = output.read_bytes()[:9]
    assert head == b"\x89HDF\r\n\x1a\n\x02", "superblock of HDF5 1.8, which has checksums"


def test_the_same_inputs_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{i}.h5" for i in range(3))
    assert run("calibrate", "--model", MODEL, *SOURCES, "--output", first).code == 0
    time.sleep(1.1)  # longer than the resolution of HDF5's times
    assert run("calibrate", "--model", MODEL, *SOURCES, "--output", second).code == 0
    command = [sys.executable, "-m", "reap_tools", "calibrate", "--model", MODEL, *SOURCES, "--output", third]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false", "TZ": "Asia/Tokyo"}
    subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_the_draw_stays_what_it_was(calibrate: Any) -> None:
    """A change of these tokens is a change of what every recipe draws: it needs a line in the changelog."""
    content = calibrate(*SOURCES)
    tokens = np.concatenate([np.array(sample, "<i4") for sample in content["samples"]])
    assert hashlib.sha256(tokens.tobytes()).hexdigest() == (
        "dc53012f86c9ad953b68df8a7e298768904f8eff8da222b3fa4286efd4a36e6b"
    )


def test_draws_are_nested_and_do_not_disturb_each_other(calibrate: Any, numbers: Path) -> None:
    few = calibrate("--source", f"{numbers}:n:5")["samples"]
    many = calibrate("--source", f"{numbers}:n:20")["samples"]
    behind = calibrate("--source", f"{DATA / 'maths.jsonl'}:maths:2", "--source", f"{numbers}:n:5")
    assert many[:5] == few == behind["samples"][2:]
    assert calibrate("--source", f"{numbers}:n:5", "--seed", 43)["samples"] != few


def test_origins_lead_back_to_the_rows(calibrate: Any) -> None:
    for packing in ((), ("--pack",), ("--pack", "--separator", "none")):
        content = calibrate(*SOURCES, *packing)
        tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        files = {f["number"]: f["name"] for source in content["source"]["sources"] for f in source["files"]}
        assert files == {0: "chats.jsonl", 1: "prose.jsonl", 2: "maths.jsonl"}
        for i, sample in enumerate(content["samples"]):
            rest = sample
            for _, file, row, begin, end in content["origin"][content["origin"][:, 0] == i]:
                value = json.loads((DATA / files[file]).read_text().splitlines()[row])
                turns = "".join(
                    f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in value.get("messages", [])
                )
                piece = tokenizer.encode(value.get("text") or turns, add_special_tokens=False).ids[begin:end]
                at = 0 if rest[: len(piece)] == piece else 1  # a separator stands before rows that follow others
                assert rest[at : at + len(piece)] == piece
                rest = rest[at + len(piece) :]
            assert len(rest) <= 1, "nothing but a separator is left"


def test_provenance(calibrate: Any, numbers: Path) -> None:
    content = calibrate("--source", f"{numbers}:n:5", "--source", f"{DATA / 'chats.jsonl'}:chat:2", "--seed", 3)
    source = content["source"]
    assert source["settings"]["seed"] == 3
    assert source["template"]["file"] == "tokenizer_config.json"
    template = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    assert source["template"]["sha256"] == hashlib.sha256(template.encode()).hexdigest()
    first, second = source["sources"]
    assert (first["domain"], first["asked"], first["rows"], first["samples"]) == ("n", "5", 40, 5)
    assert first["files"] == [
        {"number": 0, "name": "numbers.jsonl", "sha256": hashlib.sha256(numbers.read_bytes()).hexdigest(), "rows": 40}
    ]
    assert second["files"][0]["number"] == 1
    assert second["tokens"] == sum(map(len, content["samples"][5:]))
    assert str(numbers.parent) not in json.dumps(source), "folders are not part of what a file is made of"


def test_many_files_have_room_in_the_provenance(calibrate: Any, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(700):
        (folder / f"{i:04}.txt").write_text(f"text number {i}")
    content = calibrate("--source", f"{folder}:t:all")
    assert len(content["samples"]) == 700
    assert len(content["attributes"]["source"]) > 65536, "more than an attribute in HDF5's oldest encoding can hold"


def test_duplicates_are_left_out(calibrate: Any, tmp_path: Path) -> None:
    rows = ["one two", "three four", "one two", "five six", "one  two"]
    one = write_lines(tmp_path / "one.jsonl", [{"text": text} for text in rows])
    two = write_lines(tmp_path / "two.jsonl", [{"text": text} for text in [*rows[:2], "seven"]])
    sources = ("--source", f"{one}:a:all", "--source", f"{two}:b:all", "--sampling", "first")
    content = calibrate(*sources)
    assert content["domains"] == ["a"] * 4 + ["b"]
    assert [s["left_out"] for s in content["source"]["sources"]] == [{"duplicate": 1}, {"duplicate": 2}]
    assert len(calibrate(*sources, "--keep-duplicates")["samples"]) == 8


def test_equal_beginnings_are_duplicates_once_they_are_cut(calibrate: Any, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", [{"text": "one two three four " + end} for end in ("five", "six")])
    assert len(calibrate("--source", f"{path}:t:all")["samples"]) == 2
    assert len(calibrate("--source", f"{path}:t:all", "--max-tokens", 3)["samples"]) == 1


def test_weights_share_what_counts_leave(calibrate: Any, numbers: Path, tmp_path: Path) -> None:
    others = []
    for i in range(2):
        rows = [{"text": f"{i} and {j} make {i + j}"} for j in range(30)]
        others.append(write_lines(tmp_path / f"{i}.jsonl", rows))
    sources = [f"{numbers}:n:4", f"{others[0]}:a:2x", f"{others[1]}:b:0.5x"]
    content = calibrate(*(part for source in sources for part in ("--source", source)), "--samples", 24)
    assert [content["domains"].count(domain) for domain in "nab"] == [4, 16, 4]


def test_excluded_rows_do_not_come_again(calibrate: Any, numbers: Path, tmp_path: Path) -> None:
    source = ("--source", f"{numbers}:n:15")
    first = calibrate(*source, name="first.h5")
    second = calibrate(*source, "--exclude", tmp_path / "first.h5", name="second.h5")
    rows = [set(content["origin"][:, 2]) for content in (first, second)]
    assert len(rows[0] & rows[1]) == 0 and len(rows[0] | rows[1]) == 30
    assert second["source"]["sources"][0]["left_out"] == {"excluded": 15}


def test_short_and_long_rows(calibrate: Any, numbers: Path) -> None:
    source = ("--source", f"{numbers}:n:all")
    lengths = sorted(len(sample) for sample in calibrate(*source)["samples"])
    longest, middle = lengths[-1], lengths[20]
    kept = calibrate(*source, "--min-tokens", middle)["samples"]
    assert sorted(map(len, kept)) == [n for n in lengths if n >= middle]
    kept = calibrate(*source, "--max-tokens", longest - 1, "--long", "skip")["samples"]
    assert sorted(map(len, kept)) == [n for n in lengths if n < longest]


def test_dry_run_writes_nothing_and_shows_the_beginnings(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "calibration.h5"
    outcome = run("calibrate", "--model", MODEL, *SOURCES, "--output", output, "--dry-run")
    assert outcome.code == 0 and not output.exists()
    assert "<|im_start|>system\nYou are a helpful assistant" in outcome.out
    assert "chat                        3" in outcome.out


def test_special_tokens_are_those_of_the_tokenizer_or_of_the_template(calibrate: Any, tmp_path: Path) -> None:
    from conftest import copy_model

    model = copy_model(tmp_path / "model")
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(model / "tokenizer.json"))
    prose, chats = f"{DATA / 'prose.jsonl'}:prose:1", f"{DATA / 'chats.jsonl'}:chat:1"
    assert calibrate("--source", prose, model=model)["samples"][0][0] == 1
    assert calibrate("--source", prose, "--no-special-tokens", model=model)["samples"][0][0] != 1
    chat = calibrate("--source", chats, model=model)["samples"][0]
    assert chat[0] == tokenizer.token_to_id("<|im_start|>") and len(chat) > 100


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    if sys.platform == "win32":
        pytest.skip("limits are POSIX")
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from reap_tools.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "calibrate", "--model", MODEL, *SOURCES, "--output", tmp_path / "c.h5"]
    outcome = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert outcome.returncode == 4, outcome.stderr
    assert outcome.stderr.count("\n") == 1 and "c.h5: " in outcome.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("REAP_DIST" not in os.environ, reason="REAP_DIST does not name the program")
def test_reap_dist_reads_it(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "calibration.h5"
    assert run("calibrate", "--model", MODEL, *SOURCES, "--output", output).code == 0
    program = os.environ["REAP_DIST"]
    said = subprocess.run([program, "inspect", str(output)], capture_output=True, text=True, check=True).stdout
    content = read(output)
    for domain in ("chat", "prose", "maths"):
        samples = [s for s, d in zip(content["samples"], content["domains"], strict=True) if d == domain]
        assert f"{domain} {len(samples)} {sum(map(len, samples))}" in " ".join(said.split())
    observe = [program, "observe", "--model", MODEL, "--calibration", output, "--saliency", tmp_path / "s.h5"]
    subprocess.run(list(map(str, observe)), capture_output=True, check=True)
    assert (tmp_path / "s.h5").exists()
