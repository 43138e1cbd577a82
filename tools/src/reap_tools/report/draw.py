"""Figures as bytes: how they look, and matplotlib held to the same bytes every time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#16191d"  # text and axes; the page's own colour of text in the SVG, so that it follows a dark page
FAINT = "#8a9099"
KEPT, DROPPED = "#0b5394", "#c8510a"  # blue and orange stay apart for all common kinds of colour blindness
UNUSED = "#2b2b2b"
# Okabe and Ito's colours without black, which is the base, and yellow, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")

WIDTH = 5.0  # inches; at 72 points each, about the width of a phone: text is as large there as it was drawn

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class Picture:
    """A figure with what it takes to be understood without being seen."""

    name: str  # of its PNG, and of its place on the page
    title: str
    alt: str
    caption: str
    svg: str
    figure: Figure

    def png(self) -> bytes:
        """The figure on white."""
        buffer = io.BytesIO()
        with style():
            self.figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def slug(name: str) -> str:
    """A name as a part of ids and file names."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of the page: ids of its own, the page's ink and type."""
    buffer = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "system-ui, sans-serif", text)
    text = text.replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour.lower(), f"var(--curve-{number}, {colour})")
    # The size comes from the page; the shape from the view box.
    head, _, rest = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} aria-hidden="true" focusable="false">{rest}'.strip()


def picture(figure: Figure, name: str, title: str, alt: str, caption: str) -> Picture:
    """Draws the figure. Call it inside `style()`."""
    return Picture(name, title, alt, caption, _svg(figure, name), figure)
