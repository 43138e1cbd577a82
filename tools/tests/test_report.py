"""The report: what the page says, what it says when something is missing, and that it is the same every time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import pytest
import report_folder
from conftest import TEST_DATA, Run

Change = Callable[[dict], object]  # type: ignore[type-arg]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all files."""
    return report_folder.write_folder(tmp_path / "results")


class Reader(HTMLParser):
    """Rows of all tables, and everything that could lead out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "srcset", "data", "action"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def report(run: Run, folder: Path, *arguments: object) -> tuple[str, Reader]:
    outcome = run("report", folder, *arguments)
    assert outcome.code == 0, outcome.err
    text = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    reader = Reader()
    reader.feed(text)
    return text, reader


def row(reader: Reader, begin: str) -> list[str]:
    """The first row whose first cell begins so."""
    return next(
        [re.sub(r"\s+", " ", c).strip() for c in row] for row in reader.rows if row and row[0].startswith(begin)
    )


def test_overview(run: Run, folder: Path) -> None:
    text, reader = report(run, folder)
    # exp(0.02) - 1, exp(2 * 0.02) - 1, exp(2.02)
    assert row(reader, "reap-0.25") == [
        "reap-0.25",
        "25 %",
        "+2.0 %",
        "code +4.1 %",
        "0.020",
        "99.0 %",
        "7.538",
        "18 of 24",
    ]
    assert row(reader, "reap_0.5-0.25")[0] == "reap_0.5-0.25 least KL"
    assert row(reader, "reap-0.5")[0] == "reap-0.5 least KL"
    assert row(reader, "unpruned")[-2:] == ["7.389", "24"]
    assert "reap:0.5 stays closest to the unpruned model: perplexity +1.5 %" in text
    assert "reap itself: +2.0 %" in text
    assert "too close to call" not in text


def test_halves_that_disagree(run: Run, folder: Path) -> None:
    sweep = json.loads((folder / "sweep.json").read_text())
    sweep["variants"][0]["halves"][1]["kl"] = 0.001
    report_folder.write_json(folder / "sweep.json", sweep)
    text, _ = report(run, folder)
    assert "The halves of the held-out text disagree (reap:0.5 and reap): too close to call." in text


def test_nothing_to_predict(run: Run, folder: Path) -> None:
    """A domain without tokens, and a perplexity beyond all numbers, are null."""

    def silence(sweep: dict) -> None:  # type: ignore[type-arg]
        models = [sweep["base"], *sweep["variants"]]
        for model in models:
            for measure in (model["domains"][1], model["halves"][1]):
                measure.update({name: None for name in measure if name != "predicted"}, predicted=0)
        sweep["variants"][-1]["all"]["perplexity"] = None

    edit(folder, "sweep.json", silence)
    text, reader = report(run, folder)
    assert row(reader, "reap-0.25")[2:5] == ["+2.0 %", "prose +2.0 %", "0.020"]
    assert row(reader, "frequency-0.5")[2] == "n/a"
    assert "1 of 3 domains have no held-out tokens" in text and '<figure id="perplexity-1">' not in text


def test_no_variants(run: Run, folder: Path) -> None:
    edit(folder, "sweep.json", lambda sweep: sweep.update(variants=[]))
    text, _ = report(run, folder)
    assert "No variant was measured" in text and "<h1>Pruning made_up</h1>" in text


def test_choice(run: Run, folder: Path) -> None:
    sweep = json.loads((folder / "sweep.json").read_text())
    sweep["choice"] = [{"name": "auto-0.5", "chosen": "frequency-0.5"}]
    report_folder.write_json(folder / "sweep.json", sweep)
    text, reader = report(run, folder)
    assert row(reader, "frequency-0.5")[0] == "frequency-0.5 chosen"
    assert set(re.findall(r'<figure id="plan-(.*?)-(?:id|order)">', text)) == {"frequency-0.5"}


def test_other_sections(run: Run, folder: Path) -> None:
    text, reader = report(run, folder)
    assert row(reader, "load") == ["load", "5 MB", "0.020 s", "1 %", "250 MB/s", "12 % of 2 GB/s"]
    assert row(reader, "observe")[-2:] == ["1,800 tokens/s, 300.0 GFLOP/s", "75 % of 400 GFLOP/s (measured)"]
    assert row(reader, "write, 2 times")[-1] == "38 % of 0.4 GB/s"
    starved = int((report_folder.counts().sum(axis=0) < 100).sum())
    assert row(reader, "all") == ["all", "3,600", "1", str(starved)]
    assert f"{starved} of 120 experts were judged by fewer than 100 tokens; of these" in text
    for fact in (report_folder.MODEL_DIGEST, report_folder.CALIBRATION_DIGEST, "e5" * 16, "4 on n1 and n2"):
        assert fact in text


def test_stability(run: Run, folder: Path) -> None:
    text, reader = report(run, folder)
    rows = [row for row in reader.rows if row and row[0] == "reap-0.5"]
    assert rows[-1] == ["reap-0.5", "12", "93.0 %; 80.0 % in layer 2", "3.0; 1.5 in layer 2", "1.5; 0.1 in layer 2"]
    unknown = [row for row in reader.rows if row and row[0] == "frequency-0.5"][-1]
    assert unknown[-2:] == ["not known", "not known"]
    assert row(reader, "chat") != [] and ["prose", "", "80 %", "50 %", "3"] in reader.rows
    assert "agree on 93.0 % of reap_0.5-0.25 and 93.0 % of reap-0.5." in text
    assert "Unlimited samples would be expected to change 3.0 and 3.0 experts." in text
    assert '<figure id="halves">' in text and '<figure id="changes">' in text


def program(path: Path, script: str) -> Path:
    """A program that stands in for reap_dist."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_reap_dist_is_asked(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "stability.json").rename(tmp_path / "answer.json")
    asked = tmp_path / "asked"
    good = program(tmp_path / "good", f'echo "$@" >> "{asked}"; cat "{tmp_path / "answer.json"}"')
    text, _ = report(run, folder, "--reap-dist", good)
    assert '<figure id="halves">' in text
    wishes = "--json --ratio 0.25 0.5 --criterion reap frequency reap:0.5"
    assert asked.read_text() == f"inspect {folder / 'saliency.h5'} {wishes}\n"
    # A criterion that it does not know leaves the usual cuts.
    picky = program(tmp_path / "picky", f'[ $# = 3 ] && cat "{tmp_path / "answer.json"}"')
    assert '<figure id="halves">' in report(run, folder, "--reap-dist", picky)[0]
    bad = program(tmp_path / "reap_dist", "echo reap_dist: error: no >&2; exit 3")
    (folder / "report.html").unlink()
    fails(run, folder, 3, "--reap-dist: reap_dist: error: no", "--reap-dist", bad)
    fails(run, folder, 3, "--reap-dist: .*gone", "--reap-dist", tmp_path / "gone")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "reap_dist could not tell: reap_dist: error: no" in report(run, folder)[0]
    monkeypatch.setenv("PATH", str(folder))
    assert "reap_dist is not in PATH" in report(run, folder)[0]


def test_preserved_experts(run: Run, folder: Path) -> None:
    def keep_worst(plan: dict) -> None:  # type: ignore[type-arg]
        layer = plan["layers"][0]
        worst = min(set(range(24)) - set(layer["keep"]), key=lambda e: layer["score"][e])
        layer["keep"] = sorted([*layer["keep"][1:], worst])
        layer["preserved"] = [worst]
        plan["protect"] = {"code": 0.1}

    (folder / "sweep.json").unlink()
    edit(folder, "reap-0.5.plan.json", keep_worst)
    text, _ = report(run, folder, "--plan", "reap-0.5")
    assert (
        "Kept whatever their score, as super experts or for a domain: 1." in text
        and "protect {&#34;code&#34;: 0.1}" in text
    )


def test_nothing_leads_out(run: Run, folder: Path) -> None:
    text, reader = report(run, folder)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert not reader.tags & {"script", "iframe", "object", "embed", "video", "audio", "base"}
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(reader.ids) == len(set(reader.ids))
    known = set(reader.ids)
    assert all(link[1:] in known for link in reader.links if link.startswith("#"))


def test_same_files_same_bytes(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("report", folder, "--output", tmp_path / f"{name}.html", "--png", tmp_path / name).code == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    pictures = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "plan-reap-0.5-order.png" in pictures and "kl.png" in pictures
    for name in pictures:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        image = matplotlib.image.imread(tmp_path / "one" / name)
        assert image.std() > 0.02, f"{name} is blank"


def test_plans_asked_for(run: Run, folder: Path) -> None:
    text, _ = report(run, folder, "--plan", "frequency-0.25", "--title", "A <title>")
    assert set(re.findall(r'<figure id="plan-(.*?)-(?:id|order)">', text)) == {"frequency-0.25"}
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert "Others with" in text


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"saliency.h5"}, ["No variant was measured", "no cut to show", "run_log.json is not in the folder"]),
        ({"sweep.json"}, ["neither plans nor saliency.h5", "nothing is known of tokens per expert", "--calibration"]),
        (
            {"reap-0.5.plan.json", "run_log.json"},
            ["No variant was measured", "GFLOP/s are not known", "peak is not known"],
        ),
    ],
)
def test_what_is_not_there(run: Run, folder: Path, kept: set[str], said: list[str]) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    text, _ = report(run, folder)
    for sentence in said:
        assert sentence in text
    assert text.count("<svg") == text.count("</svg>")


def test_calibration_file(run: Run, folder: Path) -> None:
    outcome = run("report", folder, "--calibration", TEST_DATA / "calib_64x512.h5")
    assert outcome.code == 3 and "the saliency is of other samples (digest c2c2" in outcome.err
    (folder / "saliency.h5").unlink()  # then there is nothing to compare with
    text, _ = report(run, folder, "--calibration", TEST_DATA / "calib_64x512.h5")
    assert "13 samples, 6,656 tokens" in text


def test_model_of_four_bits(run: Run, folder: Path) -> None:
    def round_it(sweep: dict) -> None:  # type: ignore[type-arg]
        rounded = {**sweep["variants"][0], "name": "reap-0.5-w4a16", "criterion": "reap w4a16 opt-rtn"}
        rounded["model_digest"] = rounded.pop("plan_digest")
        sweep["variants"].append(rounded)

    edit(folder, "sweep.json", round_it)
    text, _ = report(run, folder)
    assert "reap w4a16 opt-rtn" in text and "reap-0.5-w4a16" in text


def edit(folder: Path, name: str, change: Change) -> None:
    value = json.loads((folder / name).read_text())
    change(value)
    report_folder.write_json(folder / name, value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sweep.json", lambda s: s["variants"][0].pop("all"), r"sweep.json: 'variants'\[0\]: 'all' is missing"),
        ("sweep.json", lambda s: s["variants"][0]["domains"].pop(), r"'domains' has to be a list of 3"),
        ("sweep.json", lambda s: s["base"]["all"].update(perplexity="low"), r"'perplexity' has to be a number"),
        ("sweep.json", lambda s: s["base"]["all"].update(perplexity=0), r"'perplexity' has to be above 0"),
        (
            "sweep.json",
            lambda s: s["base"]["all"].update(perplexity=1e300),
            r"'perplexity' has to be a number that can",
        ),
        ("sweep.json", lambda s: s.update(domains=[]), r"'domains' has to be a list of at least one"),
        ("sweep.json", lambda s: s.update(calibration="b"), r"its plans rest on other samples \(digest b\)"),
        ("sweep.json", lambda s: s.update(version=2), r"its format is reap-evaluation 2, not reap-evaluation 1"),
        ("sweep.json", lambda s: s["model"].update(digest="b"), r"of another model \(digest b\)"),
        ("sweep.json", lambda s: s["variants"][1].update(plan_digest="b"), r"measured another plan under the name"),
        ("sweep.json", lambda s: s.update(choice=[{"chosen": "x"}]), r"its choice, x, is none of its variants"),
        ("reap-0.5.plan.json", lambda p: p.update(format="reap-plan-9"), r"its format is reap-plan-9"),
        ("reap-0.5.plan.json", lambda p: p["layers"].pop(), r"its layers and experts are not those of the rest"),
        ("reap-0.5.plan.json", lambda p: p["layers"][2].update(keep=[1, 99]), r"'layers'\[2\]: 'keep' has to be"),
        ("reap-0.5.plan.json", lambda p: p["layers"][2].update(score=[1]), r"'score' has to be a list of 24"),
        ("reap-0.5.plan.json", lambda p: p.update(model_digest="b"), r"of another model \(digest b\)"),
        ("reap-0.5.plan.json", lambda p: p["layers"][2].update(keep=[]), r"a layer keeps no expert"),
        ("stability.json", lambda s: s.update(layers=4), r"'halves' has to be a list of 4"),
        (
            "stability.json",
            lambda s: s["cuts"][0]["domains"].update(overlap=[[1], 2, 3]),
            r"'overlap' has to be 3 lists",
        ),
        ("stability.json", lambda s: s["model"].update(digest="b"), r"stability.json: is of another model"),
        ("run_log.json", lambda r: r.update(phases=3), r"run_log.json: 'phases' has to be a list"),
        (
            "reap-0.5.plan.json",
            lambda p: p["layers"][2]["count"].__setitem__(0, 1e300),
            r"'count' has to be a list of in",
        ),
        ("estimate.json", lambda e: e.update(ranks=0), r"'ranks' has to be above 0"),
        ("estimate.json", lambda e: e.pop("machine"), r"estimate.json: 'machine' is missing"),
    ],
)
def test_bad_inputs(run: Run, folder: Path, name: str, change: Change, message: str) -> None:
    edit(folder, name, change)
    fails(run, folder, 3, message)


def fails(run: Run, folder: Path, code: int, message: str, *arguments: object) -> None:
    outcome = run("report", folder, *arguments)
    assert outcome.code == code, outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and re.search(message, lines[0]), outcome.err
    assert not (folder / "report.html").exists()


def test_damaged_files(run: Run, folder: Path) -> None:
    (folder / "run_log.json").write_bytes(b"\xff{")
    fails(run, folder, 3, "run_log.json: is not JSON")
    (folder / "run_log.json").write_text("[" * 100_000)
    fails(run, folder, 3, "run_log.json: is not JSON")
    (folder / "run_log.json").unlink()
    (folder / "metrics.jsonl").write_text('{"event": "progress"}\n{')
    fails(run, folder, 3, "metrics.jsonl, line 2: is not JSON")
    (folder / "metrics.jsonl").unlink()
    whole = (folder / "saliency.h5").read_bytes()
    (folder / "saliency.h5").write_bytes(whole[: len(whole) // 2])
    fails(run, folder, 3, "saliency.h5: cannot be read as a saliency file")


def test_command_line(run: Run, folder: Path, tmp_path: Path) -> None:
    fails(run, tmp_path / "nothing", 4, "nothing: no such folder")
    (tmp_path / "empty").mkdir()
    fails(run, tmp_path / "empty", 3, "holds no saliency.h5, no .*plan.json and no sweep.json")
    fails(run, folder, 2, "--plan x: the folder has reap-0.25, ", "--plan", "x")
    fails(run, folder, 2, "--starved 0", "--starved", 0)
    fails(run, folder, 4, "gone.json: No such file", "--evaluation", tmp_path / "gone.json")
    other = tmp_path / "notes.html"
    other.write_text("mine")
    fails(run, folder, 3, "exists and is no report", "--output", other)
    assert other.read_text() == "mine"
    assert run("report", folder).code == 0
    assert run("report", folder).code == 0  # a report may be made again


@pytest.fixture
def reap_dist() -> str:
    """The program, where the tests are told of one."""
    import os

    program = os.environ.get("REAP_DIST") or shutil.which("reap_dist")
    if program is None:
        pytest.skip("no reap_dist: REAP_DIST names it")
    return program


def test_folder_of_a_run(run: Run, tmp_path: Path, reap_dist: str) -> None:
    results = tmp_path / "results"
    calibration = TEST_DATA / "calib_64x512.h5"
    model, metrics = ["--model", TEST_DATA / "m2-nano-fp8", "--compute", "fp32"], tmp_path / "metrics.jsonl"

    def reap(command: str, *arguments: object) -> None:
        words = [str(each) for each in (reap_dist, command, *model, *arguments)]
        subprocess.run(words, check=True, capture_output=True, timeout=300)

    reap("run", "--calibration", calibration, "--ratio", 0.25, 0.5, "--criterion", "reap", "frequency", "--output",
         results, "--metrics", metrics)  # fmt: skip
    reap("eval", "--heldout", TEST_DATA / "heldout.h5", "--samples-per-domain", 1, "--evaluation",
         results / "sweep.json", "--plan", results / "reap-0.25.plan.json", results / "reap-0.5.plan.json")  # fmt: skip
    text, reader = report(run, results, "--calibration", calibration, "--metrics", metrics, "--reap-dist", reap_dist)
    assert "4 layers of 32 experts, 4 for each token." in text
    assert row(reader, "reap-0.5")[-1] == "16 of 32" and row(reader, "reap-0.5")[2].startswith("+")
    assert '<figure id="halves">' in text and '<figure id="changes">' in text and '<figure id="kl">' in text
    assert row(reader, "observe")[1] == "32,768 tokens" and "GFLOP/s" in row(reader, "observe")[4]
    assert ["python", "6,656"] in [row[:2] for row in reader.rows]
