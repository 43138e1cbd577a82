"""What a person sees meanwhile: a bar on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

_EVERY = 30.0  # seconds between plain lines


def say(text: str) -> None:
    """A line that does not disturb a bar."""
    tqdm.write(text, file=sys.stderr)


class Progress:
    """Progress of one source, in samples, or in rows where the number of samples is not known."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0
        self._said = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", leave=False, file=sys.stderr, disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def to(self, done: int) -> None:
        """Moves on to so many."""
        self._bar.update(done - self._done)
        self._done = done
        if self._bar.disable and time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            say(f"{self._name}: {done} of {self._total} {self._unit}")
