"""From the tokens of rows to samples: truncating, splitting, packing, leaving out duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reap_tools.settings import Settings

Tokens = npt.NDArray[np.int32]


class Origin(NamedTuple):
    """Where tokens of a sample come from: [begin, end) of the tokens of a row."""

    file: int
    row: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A calibration sample."""

    tokens: Tokens
    origins: list[Origin]


@dataclass
class Seen:
    """Digests of the texts and samples taken so far, from all sources."""

    texts: set[bytes] = field(default_factory=set)
    samples: set[bytes] = field(default_factory=set)

    @staticmethod
    def _add(digests: set[bytes], content: bytes) -> bool:
        digest = hashlib.sha256(content).digest()
        new = digest not in digests
        digests.add(digest)
        return new

    def new_text(self, text: str) -> bool:
        """Whether a text is new; it no longer is afterwards."""
        return self._add(self.texts, text.encode())

    def new_sample(self, sample: Sample) -> bool:
        """Whether a sample's token ids are new."""
        return self._add(self.samples, sample.tokens.astype("<i4").tobytes())


class Cutter:
    """Makes samples of at most `max_tokens` from rows; with packing, rows follow each other in a sample."""

    def __init__(self, settings: Settings, skipped: Counter[str]) -> None:
        self._settings = settings
        self._skipped = skipped
        self._buffer: list[int] = []
        self._origins: list[Origin] = []

    def add(self, tokens: list[int], file: int, row: int, separator: list[int]) -> list[Sample]:
        """The samples that a row completes."""
        limit = self._settings.max_tokens
        if len(tokens) > limit and self._settings.long == "skip":
            self._skipped["long"] += 1
            return []
        if self._settings.long == "truncate":
            tokens = tokens[:limit]
        if self._settings.pack:
            return self._pack(tokens, file, row, separator)
        pieces = [(begin, tokens[begin : begin + limit]) for begin in range(0, len(tokens), limit)]
        long_enough = [(begin, piece) for begin, piece in pieces if len(piece) >= self._settings.min_tokens]
        self._skipped["short"] += len(pieces) - len(long_enough)
        return [
            Sample(np.array(piece, np.int32), [Origin(file, row, begin, begin + len(piece))])
            for begin, piece in long_enough
        ]

    def _pack(self, tokens: list[int], file: int, row: int, separator: list[int]) -> list[Sample]:
        done: list[Sample] = []
        if self._buffer:
            self._buffer += separator
            done += self._full()
        begin = 0
        while begin < len(tokens):
            end = min(len(tokens), begin + self._settings.max_tokens - len(self._buffer))
            self._buffer += tokens[begin:end]
            self._origins.append(Origin(file, row, begin, end))
            done += self._full()
            begin = end
        return done

    def _full(self) -> list[Sample]:
        limit = self._settings.max_tokens
        if len(self._buffer) < limit:
            return []
        sample = Sample(np.array(self._buffer[:limit], np.int32), self._origins)
        self._buffer, self._origins = self._buffer[limit:], []
        return [sample]

    def rest(self) -> list[Sample]:
        """What was packed last, when it is long enough."""
        if not self._origins:
            return []
        if len(self._buffer) < self._settings.min_tokens:
            self._skipped["short"] += 1
            return []
        return [Sample(np.array(self._buffer, np.int32), self._origins)]
