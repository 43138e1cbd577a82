"""Curves of a sweep: what each criterion costs, over the share of dropped experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from reap_tools.report.draw import COLOURS, INK, WIDTH, Picture, picture, style
from reap_tools.report.evaluation import Evaluation, Variant
from reap_tools.report.words import listed, perplexity, share

_MARKERS = "os^Dv<>Ph*X"
_DASHES = ("-", "--", ":")
_LOGARITHMIC_FROM = 8.0  # largest value over smallest
_ROOM = 0.06  # of the axis, above and below


@dataclass(frozen=True)
class Look:
    """Colour, marker and dashes of a criterion, the same in all figures."""

    colour: str
    marker: str
    dashes: str


def looks(criteria: list[str]) -> dict[str, Look]:
    """A look for each criterion; colours come again with other dashes."""
    n = len(COLOURS)
    return {
        name: Look(COLOURS[i % n], _MARKERS[i % len(_MARKERS)], _DASHES[i // n % len(_DASHES)])
        for i, name in enumerate(criteria)
    }


def criteria(evaluation: Evaluation) -> list[str]:
    """Names of the criteria: reap, which all are compared with, then the others in the order of the file."""
    names = dict.fromkeys(variant.criterion for variant in evaluation.variants)
    return sorted(names, key=lambda name: name != "reap")


def swatch(name: str, look: Look | None) -> str:
    """The legend's piece of line; None is the base."""
    with style():
        figure = Figure(figsize=(0.45, 0.17))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        if look is None:
            axes.plot([0, 2], [0, 0], color=INK, linestyle="--", linewidth=1.2)
        else:
            axes.plot([0, 1, 2], [0, 0, 0], look.dashes, color=look.colour, marker=look.marker, markevery=[1])
        return picture(figure, f"legend-{name}", name, "", "").svg


def _scale(axes: Axes, low: float, high: float) -> None:
    """A linear axis, or one in powers where values are far apart; nothing lies on its edge."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if low > 0 and high / low >= _LOGARITHMIC_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        room = (high / low) ** _ROOM
        axes.set_ylim(low / room, high * room)
    else:
        room = _ROOM * (high - low) or 0.5
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(plain)


def _figure(
    evaluation: Evaluation, value: Callable[[Variant], float], base: float, axis: str, dropped: dict[str, float]
) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for name, look in looks(criteria(evaluation)).items():
        own = sorted((dropped[v.name], value(v)) for v in evaluation.variants if v.criterion == name)
        x, y = [100 * a for a, _ in own], [b for _, b in own]
        axes.plot(x, y, look.dashes, color=look.colour, marker=look.marker, markeredgewidth=0)
    if not isnan(base):
        axes.axhline(base, color=INK, linestyle="--", linewidth=1.2)
    values = [each for each in (base, *(value(v) for v in evaluation.variants)) if not isnan(each)]
    _scale(axes, min(values, default=0.0), max(values, default=0.0))
    ticks = sorted({round(100 * d, 1) for d in dropped.values()})
    if len(ticks) <= 8:
        axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} %"))
    axes.set_xlabel("experts dropped")
    axes.set_ylabel(axis)
    axes.grid(True, axis="y")
    return figure


def _told(evaluation: Evaluation, value: Callable[[Variant], float], dropped: dict[str, float]) -> str:
    """The ends of every curve in words, for those who do not see it."""
    said = []
    for name in criteria(evaluation):
        own = sorted((dropped[v.name], value(v)) for v in evaluation.variants if v.criterion == name)
        (first, low), (last, high) = own[0], own[-1]
        text = f"{name} {perplexity(low)} at {share(first)}"
        said.append(text + (f", {perplexity(high)} at {share(last)}" if last > first else ""))
    return "; ".join(said)


def perplexity_curves(evaluation: Evaluation, dropped: dict[str, float], domain: int | None = None) -> Picture:
    """Perplexity over the share of dropped experts (`dropped`, by variant), of all tokens or of a domain."""
    where = "all domains" if domain is None else evaluation.domains[domain]
    base = (evaluation.base.all if domain is None else evaluation.base.domains[domain]).perplexity

    def value(v: Variant) -> float:
        return (v.quality.all if domain is None else v.quality.domains[domain]).perplexity

    with style():
        return picture(
            _figure(evaluation, value, base, "perplexity", dropped),
            "perplexity" if domain is None else f"perplexity-{domain}",
            f"Perplexity, {where}",
            f"Perplexity of {where} against the share of dropped experts. Unpruned model {perplexity(base)}. "
            + _told(evaluation, value, dropped)
            + ".",
            "",
        )


def kl_curves(evaluation: Evaluation, dropped: dict[str, float]) -> Picture:
    """Mean KL divergence from the unpruned model."""
    with style():
        return picture(
            _figure(evaluation, lambda v: v.quality.all.kl, nan, "KL(unpruned ‖ pruned), nats", dropped),
            "kl",
            "KL divergence from the unpruned model, all domains",
            f"Mean KL divergence by {listed(criteria(evaluation))} against the share of dropped experts. "
            + _told(evaluation, lambda v: v.quality.all.kl, dropped)
            + ".",
            "",
        )
