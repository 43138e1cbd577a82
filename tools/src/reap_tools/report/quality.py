"""The sweep in rows and sentences: what each variant costs, and what speaks for which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isnan, nan

from reap_tools.report.evaluation import Evaluation, Variant, nan_to
from reap_tools.report.plan import Plan
from reap_tools.report.read import Material
from reap_tools.report.saliency import Saliency
from reap_tools.report.words import change, dropped, listed, perplexity, share, small, whole

_ALL_AT_MOST = 8  # variants that the first table shows without choosing among them
_FULL_SHADE = 0.5  # growth of perplexity that has the full shade
_SAME = 1e-9


@dataclass(frozen=True)
class Cell:
    """A figure, how dark its cell is (0 to 1), and whether it is the best of its ratio."""

    text: str
    shade: float = 0.0
    best: bool = False
    small: str = ""  # beside it


@dataclass(frozen=True)
class Row:
    """A variant in a table."""

    name: str
    dropped: str
    chosen: bool
    least: bool  # least KL of its ratio
    cells: list[Cell]


def dropped_shares(evaluation: Evaluation, experts: int | None) -> dict[str, float]:
    """Share of the experts that each variant drops: of its kept counts where the number of experts is known."""
    return {v.name: v.ratio if experts is None else 1 - min(v.mean_kept / experts, 1.0) for v in evaluation.variants}


class Quality:
    """An evaluation as rows and sentences."""

    def __init__(self, evaluation: Evaluation, experts: int | None) -> None:
        self.evaluation = evaluation
        self.experts = experts
        self.dropped = dropped_shares(evaluation, experts)
        self._ordered = sorted(
            evaluation.variants, key=lambda v: (self.dropped[v.name], nan_to(inf, v.quality.all.kl), v.name)
        )

    @classmethod
    def of(cls, evaluation: Evaluation, material: Material) -> Quality:
        """With the number of experts, where a file of the folder tells it."""
        return cls(evaluation, material.shape[1] if material.shape else None)

    def steps(self) -> list[list[Variant]]:
        """The variants of each share of dropped experts, the one with the least KL first."""
        steps: dict[float, list[Variant]] = {}
        for variant in self._ordered:
            steps.setdefault(round(self.dropped[variant.name], 4), []).append(variant)
        return list(steps.values())

    def least(self) -> list[Variant]:
        """The variant with the least KL of each step."""
        return [step[0] for step in self.steps()]

    def _kept(self, variant: Variant) -> str:
        counts = set(variant.kept)
        of = "" if self.experts is None else f" of {self.experts}"
        return f"{variant.kept[0]}{of}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}{of}"

    def _row(self, variant: Variant, cells: list[Cell]) -> Row:
        least = variant in self.least() and len(self.evaluation.variants) > len(self.steps())
        share_dropped = dropped(self.dropped[variant.name])
        chosen = variant.name in self.evaluation.chosen
        return Row(variant.name, share_dropped, chosen, least, cells)

    def selected(self) -> list[Variant]:
        """For the first screen: all when they are few; else the least KL of each step, REAP, and the choice."""
        if len(self._ordered) <= _ALL_AT_MOST:
            return self._ordered
        least = {v.name for v in self.least()}
        shown = least | self.evaluation.chosen
        return [v for v in self._ordered if v.name in shown or v.criterion == "reap"]

    def overview(self) -> list[Row]:
        """Rows of the first table."""
        rows = []
        for v in self.selected():
            worst = self.evaluation.worst_domain(v.quality)
            growth = self.evaluation.change(v.quality)
            worst_growth = self.evaluation.change(v.quality, worst)
            cells = [
                Cell(change(growth), _shade(growth)),
                Cell(f"{self.evaluation.domains[worst]} {change(worst_growth)}", _shade(worst_growth)),
                Cell(small(v.quality.all.kl)),
                Cell(share(v.quality.all.top1, 1)),
                Cell(perplexity(v.quality.all.perplexity)),
                Cell(self._kept(v)),
            ]
            rows.append(self._row(v, cells))
        return rows

    def table(self, value: Callable[[Variant, int | None], tuple[float, Cell]], lower: bool = True) -> list[Row]:
        """All variants; `value` gives the number and the cell of all domains (None) and of each."""
        columns: list[int | None] = [None, *range(len(self.evaluation.domains))]
        rows = []
        for step in self.steps():
            numbers = [[n for v in step if not isnan(n := value(v, c)[0])] for c in columns]
            best = [(min if lower else max)(each, default=nan) for each in numbers]
            for v in step:
                cells = []
                for column, target in zip(columns, best, strict=True):
                    number, cell = value(v, column)
                    cells.append(replace(cell, best=len(step) > 1 and abs(number - target) <= _SAME))
                rows.append(self._row(v, cells))
        return rows

    def perplexity_table(self) -> list[Row]:
        """Perplexity of every variant, shaded by its growth."""

        def value(v: Variant, domain: int | None) -> tuple[float, Cell]:
            measure = v.quality.all if domain is None else v.quality.domains[domain]
            growth = self.evaluation.change(v.quality, domain)
            return measure.perplexity, Cell(perplexity(measure.perplexity), _shade(growth), small=change(growth))

        return self.table(value)

    def kl_table(self) -> list[Row]:
        """KL of every variant."""

        def value(v: Variant, domain: int | None) -> tuple[float, Cell]:
            measure = v.quality.all if domain is None else v.quality.domains[domain]
            return measure.kl, Cell(small(measure.kl))

        return self.table(value)

    def agreement_table(self) -> list[Row]:
        """Share of tokens whose most likely next token stays the same."""

        def value(v: Variant, domain: int | None) -> tuple[float, Cell]:
            measure = v.quality.all if domain is None else v.quality.domains[domain]
            return measure.top1, Cell(share(measure.top1, 1))

        return self.table(value, lower=False)

    def facts(self) -> list[tuple[str, str]]:
        """What a reader needs for a choice: a lead and a sentence for each step."""
        found = []
        e = self.evaluation
        for step in self.steps():
            best = step[0]
            worst = e.worst_domain(best.quality)
            lead = f"{dropped(self.dropped[best.name])} dropped"
            text = (
                f"{best.criterion} " + ("stays closest to the unpruned model" if len(step) > 1 else "was measured")
                + f": perplexity {change(e.change(best.quality))}, {e.domains[worst]} most "
                f"({change(e.change(best.quality, worst))}), {share(best.quality.all.top1, 1)} of the most likely "
                "tokens unchanged."
            )  # fmt: skip
            reap = next((v for v in step if v.criterion == "reap"), None)
            if reap is not None and reap is not best:
                text += f" reap itself: {change(e.change(reap.quality))}."
            both_known = not any(isnan(half.kl) for v in step for half in v.quality.halves)
            if len(step) > 1 and both_known:
                halves = [min(step, key=lambda v: v.quality.halves[h].kl).criterion for h in (0, 1)]
                if set(halves) != {best.criterion}:
                    text += f" The halves of the held-out text disagree ({listed(halves)}): too close to call."
            found.append((lead, text))
        return found


def _shade(growth: float) -> float:
    return min(max(growth, 0.0) / _FULL_SHADE, 1.0)


def starved_fact(saliency: Saliency | None, starved: int, plans: list[Plan]) -> tuple[str, str] | None:
    """How many experts were judged by few tokens, and what plans made of them."""
    if saliency is None:
        return None
    few = saliency.counts() < starved
    if not few.any():
        return "Calibration", f"Every expert was judged by at least {whole(int(saliency.counts().min()))} tokens."
    text = f"{whole(int(few.sum()))} of {whole(few.size)} experts were judged by fewer than {starved} tokens"
    kept = [f"{plan.name} keeps {whole(int((plan.kept & few).sum()))}" for plan in plans]
    return "Calibration", text + (f"; of these {listed(kept)}." if kept else ".")
