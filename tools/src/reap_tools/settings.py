"""What a user asks for: sources, amounts, and how rows become samples."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from reap_tools.errors import UsageError

FORMATS = ("auto", "text", "messages", "alpaca", "prompt", "xlam")
LONG = ("truncate", "split", "skip")
SAMPLING = ("random", "first")
BAD_ROWS = ("error", "skip")
MAX_DOMAINS = 256

_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Amount:
    """How many samples a source gives: a count, a weight (share of --samples), or all it has (neither)."""

    count: int | None = None
    weight: Fraction | None = None

    @staticmethod
    def parse(text: str) -> Amount:
        """`64`, `2x`, `0.5x` or `all`."""
        if text == "all":
            return Amount()
        if text.endswith("x") and _NUMBER.fullmatch(text[:-1]) and Fraction(text[:-1]) > 0:
            return Amount(weight=Fraction(text[:-1]))
        if text.isascii() and text.isdecimal() and int(text) > 0:
            return Amount(count=int(text))
        hint = f"; a share is written {text[:-1]}x, with --samples" if text.endswith("%") else ""
        raise UsageError(f"'{text}' is no amount of samples: give a number, a weight such as 0.3x, or all{hint}")

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        return "all" if self.weight is None else f"{float(self.weight):g}x"


def check_domain(name: str) -> str:
    """The name, if it can be one of a domain."""
    if not _DOMAIN.fullmatch(name):
        raise UsageError(f"'{name}' is no name for a domain: letters, digits and . _ + - only, a letter or digit first")
    return name


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one domain, and how their rows are read."""

    path: str  # a file, a folder (all files in it), or a pattern
    domain: str
    amount: Amount
    format: str = "auto"
    field: str | None = None
    tools: Path | None = None  # JSON list of tool descriptions, for chats whose rows have none
    dataset: str | None = None  # where the files come from; recipes know
    obtain: str | None = None  # the command that gets them

    @staticmethod
    def parse(text: str, **how: Any) -> Source:
        """`PATH:DOMAIN:COUNT`; the path may hold colons, since the last two separate."""
        parts = text.rsplit(":", 2)
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"--source {text}: has to be PATH:DOMAIN:COUNT, for example chats.jsonl:tools:64")
        return Source(path=parts[0], domain=check_domain(parts[1]), amount=Amount.parse(parts[2]), **how)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the content of a calibration file, next to the model and the data."""

    sources: tuple[Source, ...]
    samples: int | None = None  # for weights: all samples together
    seed: int = 42
    max_tokens: int = 2048
    min_tokens: int = 1
    long: str = "truncate"
    pack: bool = False
    separator: str = "auto"
    sampling: str = "random"
    keep_duplicates: bool = False
    bad_rows: str = "error"
    special_tokens: bool = True
    template: Path | None = None
    template_args: dict[str, Any] = field(default_factory=dict)
    date: str | None = None
    exclude: tuple[Path, ...] = ()
    recipe: str | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("nothing to read: give --source PATH:DOMAIN:COUNT or --recipe NAME")
        if len(self.sources) > MAX_DOMAINS:
            raise UsageError(f"{len(self.sources)} domains; a calibration file holds at most {MAX_DOMAINS}")
        names = [source.domain for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"domain '{name}' is given twice; files of one domain go into one source: a folder or a pattern"
                )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: has to be between 0 and 2^63 - 1")
        if self.max_tokens < 1:
            raise UsageError(f"--max-tokens {self.max_tokens}: has to be at least 1")
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise UsageError(f"--min-tokens {self.min_tokens}: has to be between 1 and --max-tokens {self.max_tokens}")
        for name, value, choices in (
            ("long", self.long, LONG),
            ("sampling", self.sampling, SAMPLING),
            ("bad-rows", self.bad_rows, BAD_ROWS),
            *(("format", source.format, FORMATS) for source in self.sources),
        ):
            if value not in choices:
                raise UsageError(f"--{name} {value}: there is {', '.join(choices)}")

    def targets(self) -> list[int | None]:
        """Samples of each source; None for all it has. Weights share what --samples leaves after the counts."""
        amounts = [source.amount for source in self.sources]
        weights = [amount.weight for amount in amounts]
        total = sum((weight for weight in weights if weight is not None), Fraction(0))
        if not total:
            if self.samples is not None:
                raise UsageError(
                    "--samples is for sources with weights, such as chats.jsonl:tools:0.3x; there are none"
                )
            return [amount.count for amount in amounts]
        if self.samples is None:
            raise UsageError("a source has a weight; --samples says how many samples there are in all")
        if any(amount.count is None and amount.weight is None for amount in amounts):
            raise UsageError("weights and 'all' do not go together: what 'all' leaves for the weights is not known")
        left = self.samples - sum(amount.count or 0 for amount in amounts)
        shares = [Fraction(0) if weight is None else left * weight / total for weight in weights]
        if left < 1 or any(weight is not None and share < 1 for weight, share in zip(weights, shares, strict=True)):
            raise UsageError(f"--samples {self.samples} leaves less than one sample for a source with a weight")
        # Largest remainder: the sum is exact, ties go to the source named first.
        whole = [int(share) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - shares[i], i))
        for i in by_remainder[: left - sum(whole)]:
            whole[i] += 1
        return [count if amount.count is None else amount.count for amount, count in zip(amounts, whole, strict=True)]
