"""Stability as figures, rows and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reap_tools.report.draw import COLOURS, WIDTH, Picture, picture, style
from reap_tools.report.plan import Plan
from reap_tools.report.stability import Cut, Known, Stability
from reap_tools.report.words import listed, share, whole

_CURVES_AT_MOST = 4


@dataclass(frozen=True)
class CutRow:
    """A cut in the table."""

    name: str
    kept: str
    halves: str
    changes: str
    margin: str


def shown_cuts(stability: Stability, plans: list[Plan]) -> list[Cut]:
    """The cuts of these plans; where there are none, the first ones."""
    asked = list(dict.fromkeys((plan.criterion, plan.ratio) for plan in plans))
    named = [cut for each in asked for cut in stability.cuts if (cut.criterion, cut.ratio) == each]
    return (named or list(stability.cuts))[:_CURVES_AT_MOST]


def _there(values: Known) -> list[float]:
    return [value for value in values if value is not None]


def _told(
    values: Known, middle: Callable[[list[float]], float], worst: Callable[[list[float]], float], form: str
) -> str:
    """The middle of the layers' values, and the worst one with its layer."""
    known = _there(values)
    if not known:
        return "not known"
    extreme = worst(known)
    return f"{middle(known):{form}}; {extreme:{form}} in layer {values.index(extreme)}"


def cut_rows(stability: Stability) -> list[CutRow]:
    """A row for each cut."""
    return [
        CutRow(
            name=cut.name,
            kept=whole(cut.kept),
            halves=_told(cut.halves, fmean, min, ".1%").replace("%", " %"),
            changes=_told(cut.changes, sum, max, ".1f"),
            margin=_told(cut.margin, median, min, ".2g"),
        )
        for cut in stability.cuts
    ]


def _by_layer(
    cuts: list[Cut], value: Callable[[Cut], Known], name: str, title: str, axis: str, caption: str, percent: bool
) -> Picture:
    """A curve over the layers for each cut."""
    with style():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for cut, colour, dashes in zip(cuts, COLOURS, ("-", "--", "-.", ":"), strict=False):
            heights = [float("nan") if y is None else y for y in value(cut)]
            layers = range(len(heights))
            marker = "o" if len(heights) <= 16 else ""
            axes.plot(layers, heights, dashes, color=colour, label=cut.name, marker=marker)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(axis)
        axes.grid(True, axis="y")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        means = [f"{cut.name} {fmean(_there(value(cut))):.3g} on average" for cut in cuts]
        return picture(figure, name, title, f"{title}: {listed(means)}.", caption)


def stability_figures(stability: Stability, plans: list[Plan]) -> list[Picture]:
    """Agreement of the halves, and the changes to be expected, by layer."""
    cuts = shown_cuts(stability, plans)
    noisy = [cut for cut in cuts if _there(cut.changes)]
    figures = []
    if cuts:
        caption = "Each half of the calibration samples ranked the experts by itself. 100 %: both keep the same ones."
        title = "Kept experts on which both halves agree, by layer"
        figures.append(_by_layer(cuts, lambda c: c.halves, "halves", title, "kept by both halves", caption, True))
    if noisy:
        caption = (
            "How many of a layer's kept experts would be expected to give way to dropped ones with unlimited samples."
        )
        title = "Expected changes, by layer"
        figures.append(_by_layer(noisy, lambda c: c.changes, "changes", title, "experts", caption, False))
    return figures


def stability_fact(stability: Stability, plans: list[Plan]) -> tuple[str, str] | None:
    """What other samples would have changed."""
    cuts = shown_cuts(stability, plans)
    if not cuts:
        return None
    agreed = [f"{share(fmean(cut.halves), 1)} of {cut.name}" for cut in cuts]
    text = f"Of the experts kept, both halves of the calibration samples agree on {listed(agreed)}."
    if all(_there(cut.changes) for cut in cuts):
        changes = [f"{sum(_there(cut.changes)):.1f}" for cut in cuts]
        text += f" Unlimited samples would be expected to change {listed(changes)} experts."
    return "Stability", text
