"""Cutting and packing against the plainest way to say the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from reap_tools.draw import draw_order, ticket
from reap_tools.samples import Cutter, Sample
from reap_tools.settings import Amount, Settings, Source

SETTINGS = Settings(sources=(Source("p", "d", Amount()),), max_tokens=8)


def cut(settings: Settings, rows: list[list[int]], separator: list[int]) -> tuple[list[list[int]], Counter[str]]:
    """All samples of these rows, their origins checked."""
    skipped: Counter[str] = Counter()
    cutter = Cutter(settings, skipped)
    samples: list[Sample] = []
    for i, row in enumerate(rows):
        samples += cutter.add(row, 5, i, separator)
    samples += cutter.rest()
    for sample in samples:
        assert all(origin.file == 5 for origin in sample.origins)
        named = [token for o in sample.origins for token in rows[o.row][o.begin : o.end]]
        assert [token for token in sample.tokens.tolist() if token != 0] == named
    return [sample.tokens.tolist() for sample in samples], skipped


@pytest.mark.parametrize("minimum", [1, 5])
@pytest.mark.parametrize("separator", [[], [0]])
@pytest.mark.parametrize("seed", range(5))
def test_against_the_plain_way(seed: int, separator: list[int], minimum: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 99, rng.integers(1, 30)).tolist() for _ in range(40)]
    settings = replace(SETTINGS, min_tokens=minimum)

    plain = [row[:8] for row in rows if len(row[:8]) >= minimum]
    assert cut(settings, rows, separator)[0] == plain
    plain = [row for row in rows if minimum <= len(row) <= 8]
    assert cut(replace(settings, long="skip"), rows, separator)[0] == plain
    pieces = [row[i : i + 8] for row in rows for i in range(0, len(row), 8)]
    plain = [piece for piece in pieces if len(piece) >= minimum]
    assert cut(replace(settings, long="split"), rows, separator)[0] == plain

    whole = [token for i, row in enumerate(rows) for token in (separator if i else []) + row]
    packed, skipped = cut(replace(settings, long="split", pack=True), rows, separator)
    # Where a sample ends with a row, the next one begins without a separator or with it: both are seen below.
    rest = [token for sample in packed for token in sample if token]
    assert rest == [token for token in whole if token][: len(rest)]
    assert all(len(sample) == 8 for sample in packed[:-1])
    assert len([token for token in whole if token]) - len(rest) < minimum
    assert skipped["short"] <= 1


def test_a_separator_stands_between_rows_only() -> None:
    packing = replace(SETTINGS, long="split", pack=True)
    assert cut(packing, [[1] * 3, [2] * 3, [3] * 3], [0])[0] == [[1, 1, 1, 0, 2, 2, 2, 0], [3, 3, 3]]
    assert cut(packing, [[1] * 8, [2] * 8], [0])[0] == [[1] * 8, [2] * 8]
    assert cut(packing, [[1] * 7, [2] * 8], [0])[0] == [[1] * 7 + [0], [2] * 8]
    assert cut(replace(packing, max_tokens=1), [[1, 2], [3]], [0])[0] == [[1], [2], [3]]


def test_tickets_are_what_the_documentation_says() -> None:
    # printf '42:%s:7' $(printf 'a%.0s' {1..64}) | sha256sum
    assert ticket(42, "a" * 64, 7) == 0x41AECF920AEBC911


def test_rows_are_drawn_evenly(tmp_path: object) -> None:
    class File:
        """Rows without content."""

        sha256 = "f" * 64
        numbers = np.arange(20_000, dtype=np.int64)

    _, order = draw_order([File()], 1, "random")  # type: ignore[list-item]
    assert sorted(order.tolist()) == list(range(20_000))
    # Of the first half of the draw, half comes from the first half of the file: 5,000 of 10,000, sigma 50.
    assert abs(int((order[:10_000] < 10_000).sum()) - 5_000) < 300
