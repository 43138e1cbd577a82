"""Maps of layers and experts: the cut of a plan, saliency without a plan, usage."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from reap_tools.report.draw import DROPPED, KEPT, UNUSED, WIDTH, Picture, picture, slug, style
from reap_tools.report.plan import Plan
from reap_tools.report.saliency import Saliency
from reap_tools.report.words import share, whole

_OCTAVES = 2.0  # scores a quarter or four times the score at the cut have the full colour

Table = NDArray[np.float64]


def _cut_colours() -> Colormap:
    """Orange below the cut, blue above, pale near it, and never the same on both sides."""
    halves = (
        LinearSegmentedColormap.from_list("dropped", [DROPPED, "#fbe0cd"]),
        LinearSegmentedColormap.from_list("kept", ["#d3e4f4", KEPT]),
    )
    ramp = np.linspace(0, 1, 128)
    return ListedColormap(np.concatenate([half(ramp) for half in halves])).with_extremes(bad=UNUSED)


def _sequential(name: str) -> Colormap:
    """A colour map of matplotlib, with orange for what is missing."""
    return colormaps[name].with_extremes(bad=DROPPED)


def _axes(layers: int) -> tuple[Figure, Axes]:
    height = min(max(0.075 * layers, 1.3), 5.5) + 1.25
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _show(figure: Figure, axes: Axes, table: Table, colours: Colormap, norm: Normalize, x: str, label: str) -> Any:
    layers, experts = table.shape
    image = axes.imshow(
        np.ma.masked_invalid(table),
        cmap=colours,
        norm=norm,
        aspect="auto",
        interpolation="none",  # the SVG holds one pixel per expert
        extent=(-0.5, experts - 0.5, layers - 0.5, -0.5),
    )
    axes.set_xlabel(x)
    axes.set_ylabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=45, pad=0.03, fraction=0.05)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


def _distance(plan: Plan) -> tuple[Table, list[str]]:
    """Where each score stands to its layer's cut, from -1 to 1; kept ones are never negative.

    In octaves where scores are ratios of each other; by place in the layer's order where some are not positive.
    """
    low, high = np.full_like(plan.score, -1.0), np.full_like(plan.score, 1.0)
    if (plan.score < 0).any() or (plan.score.max(axis=1) <= 0).any():
        order = np.argsort(np.argsort(plan.score, axis=1, kind="stable"), axis=1)
        place = (order - (~plan.kept).sum(axis=1, keepdims=True) + 0.5) / plan.experts
        labels = ["last", "", "cut", "", "first"]
    else:
        judged = plan.kept & ~plan.exempt & (plan.score > 0)
        kept = np.where(judged, plan.score, np.inf).min(axis=1)
        kept = np.where(np.isfinite(kept), kept, plan.score.max(axis=1))
        gone = np.where(plan.kept, 0.0, plan.score).max(axis=1)
        cut = np.where(gone > 0, np.sqrt(kept) * np.sqrt(np.minimum(gone, kept)), kept)
        with np.errstate(divide="ignore"):
            place = np.log2(plan.score / cut[:, None]) / _OCTAVES
        labels = ["≤ ¼", "½", "cut", "2", "≥ 4"]
    np.copyto(low, 1e-9, where=plan.kept)
    np.copyto(high, -1e-9, where=~plan.kept)
    place = np.clip(place, low, high)
    return np.where(plan.count > 0, place, np.nan), labels


def _steps(axes: Axes, counts: list[int]) -> None:
    """The cut as a line between the last kept and the first dropped of each layer."""
    edges = np.repeat(np.array(counts) - 0.5, 2)
    rows = np.repeat(np.arange(len(counts) + 1) - 0.5, 2)[1:-1]
    axes.plot(edges, rows, color=UNUSED, linewidth=1.4)


def plan_maps(plan: Plan) -> list[Picture]:
    """The cut of a plan twice: experts by their ids, and in the order of their scores."""
    distance, labels = _distance(plan)
    counts = plan.kept_counts
    stay = f"{counts[0]} of {plan.experts}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    tightest = int(np.argmin(plan.margin))
    facts = (
        f"{stay} experts of each layer stay. The tightest cut is in layer {tightest}, where the last kept and the "
        f"first dropped score are {plan.margin[tightest]:.2g} apart."
    )
    if plan.exempt.any():
        facts += f" Kept whatever their score, as super experts or for a domain: {whole(int(plan.exempt.sum()))}."
    order = np.lexsort((np.arange(plan.experts) + 0 * plan.score, -plan.score, ~plan.kept), axis=1)
    views = (
        ("id", "expert", distance, "by id", "Blue experts stay, orange ones are dropped; pale ones are near the cut."),
        ("order", "place in the layer's order", np.take_along_axis(distance, order, axis=1), "by score",
         "The dark line is the cut. A wide pale zone around it means that many experts could have gone either way."),
    )  # fmt: skip
    pictures = []
    with style():
        for kind, x, table, how, reading in views:
            figure, axes = _axes(plan.layers)
            label = "score, as a multiple of the score at the layer's cut" if labels[1] else "place in the order"
            bar = _show(figure, axes, table, _cut_colours(), Normalize(-1, 1), x, label)
            bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=labels)
            if kind == "order":
                _steps(axes, counts)
            unused = " Black: no token chose the expert." if (plan.count == 0).any() else ""
            pictures.append(
                picture(
                    figure,
                    f"plan-{slug(plan.name)}-{kind}",
                    f"{plan.name}, experts {how}",
                    f"Map of {plan.layers} layers and {plan.experts} experts, {how}: what {plan.name} keeps. {facts}",
                    f"{reading}{unused} {facts if kind == 'id' else ''}".strip(),
                )
            )
    return pictures


def saliency_map(saliency: Saliency) -> Picture:
    """Mean saliency of every expert beside its layer's median, in falling order; for folders without plans."""
    score = np.sort(np.where(saliency.counts() > 0, saliency.reap, np.nan), axis=1)[:, ::-1]
    score = np.take_along_axis(score, np.argsort(np.isnan(score), axis=1, kind="stable"), axis=1)
    with style(), np.errstate(invalid="ignore", divide="ignore"):
        figure, axes = _axes(saliency.layers)
        relative = np.log2(score / np.nanmedian(score, axis=1, keepdims=True))
        colours = _sequential("cividis")
        label = "mean saliency, as a multiple of the layer's median"
        bar = _show(figure, axes, relative, colours, Normalize(-3, 3), "place in the layer's order", label)
        bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["⅛", "¼", "½", "1", "2", "4", "8"])
        return picture(
            figure,
            "saliency",
            "Saliency (criterion reap), experts by score",
            f"Map of {saliency.layers} layers and {saliency.experts} experts: mean saliency in falling order.",
            "No plan is in the folder, so there is no cut to show.",
        )


def usage_map(saliency: Saliency, starved: int) -> Picture:
    """Tokens of every expert beside an even share, in falling order; experts with few tokens stand out."""
    counts = saliency.counts()
    even = saliency.top_k * saliency.tokens / saliency.experts
    falling = -np.sort(-counts, axis=1)
    relative = np.where(falling >= max(starved, 1), falling / even, np.nan)
    few = int((counts < starved).sum())
    none = int((counts == 0).sum())
    with style():
        figure, axes = _axes(saliency.layers)
        bar = _show(
            figure, axes, relative, _sequential("cividis"), LogNorm(1 / 8, 8), "place in the layer's order",
            f"tokens, as a multiple of an even share ({whole(round(even))} tokens)",
        )  # fmt: skip
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v >= 1 else f"1/{1 / v:g}"))
        bar.set_ticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8])
        bar.ax.minorticks_off()
        top = share(float(falling[:, : max(saliency.experts // 10, 1)].sum() / counts.sum()))
        told = f"The most used tenth of the experts takes {top} of all routed tokens."
        orange = f"Orange: fewer than {starved} tokens." if few else ""
        return picture(
            figure,
            "usage",
            "Tokens per expert, in falling order",
            f"Map of {saliency.layers} layers and {saliency.experts} experts: tokens routed to each. {told} "
            f"{whole(few)} experts have fewer than {starved} tokens, {whole(none)} have none.",
            f"{told} {orange}".strip(),
        )
