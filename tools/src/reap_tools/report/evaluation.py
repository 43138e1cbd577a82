"""Evaluation files (docs/format/evaluation.md): what dropping experts costs on held-out text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from reap_tools.errors import BadInputError
from reap_tools.report.fields import Fields

FORMAT = ("reap-evaluation", 1)


@dataclass(frozen=True)
class Measure:
    """Quality over some tokens; the last three compare with the unpruned model and are 0, 1, 1 for itself. What there
    are no tokens for is nan, and so is a perplexity beyond all numbers."""

    predicted: int
    nll: float
    perplexity: float
    kl: float = 0.0
    top1: float = 1.0
    overlap: float = 1.0


def nan_to(instead: float, value: float) -> float:
    """The value, or another where there is none."""
    return instead if math.isnan(value) else value


@dataclass(frozen=True)
class Measured:
    """One model over all tokens, each domain's, and each half's."""

    all: Measure
    domains: tuple[Measure, ...]
    halves: tuple[Measure, Measure]


@dataclass(frozen=True)
class Variant:
    """A plan, applied as a mask; or a model that was made by one."""

    name: str
    criterion: str
    ratio: float
    kept: tuple[int, ...]  # by layer, or one number for all
    plan_digest: str | None  # None: a model
    quality: Measured

    @property
    def mean_kept(self) -> float:
        """Experts kept by a layer, on average."""
        return sum(self.kept) / len(self.kept)


@dataclass(frozen=True)
class Evaluation:
    """The file."""

    model_type: str
    model_digest: str
    heldout_digest: str
    samples: int
    tokens: int
    compute: str
    domains: tuple[str, ...]
    calibration_digest: str | None
    base: Measured
    variants: tuple[Variant, ...]
    chosen: frozenset[str]  # names of the variants that a sweep with `auto` chose

    def change(self, quality: Measured, domain: int | None = None) -> float:
        """Relative change of perplexity against the unpruned model, over all tokens or in a domain."""
        if domain is None:
            return quality.all.perplexity / self.base.all.perplexity - 1
        return quality.domains[domain].perplexity / self.base.domains[domain].perplexity - 1

    def worst_domain(self, quality: Measured) -> int:
        """The domain whose perplexity grows most."""
        return max(range(len(self.domains)), key=lambda d: nan_to(-math.inf, self.change(quality, d)))


def _measure(fields: Fields, compared: bool) -> Measure:
    perplexity = fields.measured("perplexity")
    if perplexity <= 0:
        raise fields.wrong("perplexity", "above 0")
    own = Measure(fields.whole("predicted"), fields.measured("nll"), perplexity)
    if not compared:
        return own
    compare = {name: fields.measured(name) for name in ("kl", "top1", "overlap")}
    return Measure(own.predicted, own.nll, own.perplexity, **compare)


def _measured(fields: Fields, domains: int, compared: bool) -> Measured:
    first, second = (_measure(each, compared) for each in fields.objects("halves", 2))
    return Measured(
        all=_measure(fields.object("all"), compared),
        domains=tuple(_measure(each, compared) for each in fields.objects("domains", domains)),
        halves=(first, second),
    )


def _kept(fields: Fields) -> tuple[int, ...]:
    if not isinstance(fields.any("kept"), list):
        return (fields.whole("kept"),)
    numbers = fields.wholes("kept")
    if not numbers:
        raise fields.wrong("kept", "a number, or one for each layer")
    return tuple(numbers)


def _variant(fields: Fields, domains: int) -> Variant:
    return Variant(
        name=fields.text("name"),
        criterion=fields.text("criterion"),
        ratio=fields.number("ratio"),
        kept=_kept(fields),
        plan_digest=fields.text("plan_digest") if not fields.has("model_digest") else None,
        quality=_measured(fields, domains, compared=True),
    )


def _chosen(file: Fields, variants: tuple[Variant, ...]) -> frozenset[str]:
    if not file.has("choice"):
        return frozenset()
    names = frozenset(choice.text("chosen") for choice in file.objects("choice"))
    if unknown := names - {variant.name for variant in variants}:
        raise BadInputError(f"{file.where}: its choice, {min(unknown)}, is none of its variants")
    return names


def read_evaluation(path: Path) -> Evaluation:
    """Reads sweep.json, or a file of `eval --evaluation`."""
    file = Fields.of_file(path)
    found = (file.text("format"), file.whole("version"))
    if found != FORMAT:
        raise BadInputError(f"{path}: its format is {found[0]} {found[1]}, not {FORMAT[0]} {FORMAT[1]}")
    domains = tuple(file.texts("domains"))
    if not domains:
        raise file.wrong("domains", "a list of at least one name")
    variants = tuple(_variant(each, len(domains)) for each in file.objects("variants"))
    model, heldout = file.object("model"), file.object("heldout")
    return Evaluation(
        model_type=model.text("type"),
        model_digest=model.text("digest"),
        heldout_digest=heldout.text("digest"),
        samples=heldout.whole("samples"),
        tokens=heldout.whole("tokens"),
        compute=file.text("compute"),
        domains=domains,
        calibration_digest=file.text("calibration") if file.has("calibration") else None,
        base=_measured(file.object("base"), len(domains), compared=False),
        variants=variants,
        chosen=_chosen(file, variants),
    )
