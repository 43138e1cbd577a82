"""What is said meanwhile."""

from __future__ import annotations

import sys

import pytest

from reap_tools import progress
from reap_tools.progress import Progress


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("code", 10, "samples") as bar:
        for done in range(1, 11):
            now[0] += 12.0
            bar.to(done)
    assert capsys.readouterr().err.splitlines() == [f"code: {n} of 10 samples" for n in (3, 6, 9)]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("code", 10, "samples") as bar:
        bar.to(10)
    assert "code: " in capsys.readouterr().err
