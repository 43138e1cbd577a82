"""JSON whose members are checked as they are taken: a file that is not what it should be ends with one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from reap_tools.errors import BadInputError

_MOST = 1e100


class Fields:
    """The members of a JSON object, and where it stands in its file."""

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise BadInputError(f"{where}: has to be an object")
        self._members: dict[str, Any] = value

    @classmethod
    def of_file(cls, path: Path) -> Fields:
        """The object that a file holds."""
        return cls(parse(path.read_bytes(), str(path)), str(path))

    def has(self, name: str) -> bool:
        """Whether the member is there, and not null."""
        return self._members.get(name) is not None

    def names(self) -> list[str]:
        """Names of all members, in their order."""
        return list(self._members)

    def any(self, name: str) -> Any:
        """The member as it is."""
        if name not in self._members:
            raise BadInputError(f"{self.where}: '{name}' is missing")
        return self._members[name]

    def text(self, name: str) -> str:
        """A string."""
        value = self.any(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def whole(self, name: str) -> int:
        """An integer that is not negative."""
        value = self.any(name)
        if not is_whole(value):
            raise self.wrong(name, "an integer, not negative")
        return int(value)

    def wholes(self, name: str, size: int | None = None) -> list[int]:
        """Integers that are not negative, so many."""
        values = self.items(name, size)
        if not all(is_whole(value) for value in values):
            raise self.wrong(name, "a list of integers, not negative")
        return values

    def number(self, name: str) -> float:
        """A finite number."""
        value = self.any(name)
        if not is_number(value):
            raise self.wrong(name, "a number")
        return float(value)

    def measured(self, name: str) -> float:
        """A finite number that sums leave finite; nan for null, which stands where there was no token."""
        if self.any(name) is None:
            return math.nan
        value = self.number(name)
        if abs(value) > _MOST:
            raise self.wrong(name, "a number that can be drawn")
        return value

    def numbers(self, name: str, size: int | None = None) -> list[float]:
        """Finite numbers, so many."""
        values = self.items(name, size)
        if not all(is_number(value) for value in values):
            raise self.wrong(name, "a list of numbers")
        return [float(value) for value in values]

    def texts(self, name: str) -> list[str]:
        """Strings."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "a list of strings")
        return values

    def items(self, name: str, size: int | None = None) -> list[Any]:
        """A list, of that length."""
        value = self.any(name)
        if not isinstance(value, list) or (size is not None and len(value) != size):
            raise self.wrong(name, "a list" if size is None else f"a list of {size}")
        return value

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields(self.any(name), f"{self.where}: '{name}'")

    def objects(self, name: str, size: int | None = None) -> list[Fields]:
        """Objects, so many."""
        values = self.items(name, size)
        return [Fields(value, f"{self.where}: '{name}'[{i}]") for i, value in enumerate(values)]

    def wrong(self, name: str, wanted: str) -> BadInputError:
        """What to raise for a member that is something else."""
        return BadInputError(f"{self.where}: '{name}' has to be {wanted}")


def parse(content: bytes, where: str) -> Any:
    """JSON from bytes."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{where}: is not JSON: {error}") from None


def is_whole(value: Any) -> bool:
    """Whether JSON's value is an integer that an array can hold, and not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Whether JSON's value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
