"""Numbers as people read them."""

from __future__ import annotations

import math

NOTHING = "n/a"
PERCENT = "\N{NO-BREAK SPACE}%"


def share(value: float, digits: int = 0) -> str:
    """0.25 is "25 %"."""
    return NOTHING if math.isnan(value) else f"{100 * value:.{digits}f}{PERCENT}"


def change(value: float) -> str:
    """0.093 is "+9.3 %"."""
    if math.isnan(value):
        return NOTHING
    text = f"{100 * value:+.1f}{PERCENT}" if abs(value) < 0.9995 else f"{100 * value:+,.0f}{PERCENT}"
    return f"0.0{PERCENT}" if text[1:] == f"0.0{PERCENT}" else text.replace("-", "\N{MINUS SIGN}")


def perplexity(value: float) -> str:
    """Four significant digits."""
    if math.isnan(value):
        return NOTHING
    return f"{value:.3f}" if value < 9.9995 else f"{value:.2f}" if value < 99.995 else f"{value:,.0f}"


def small(value: float) -> str:
    """A divergence, a mean: two or three digits that say something."""
    if math.isnan(value):
        return NOTHING
    return "0" if value == 0 else f"{value:.3f}" if value >= 0.0095 else f"{value:.2g}"


def dropped(ratio: float) -> str:
    """A ratio of dropped experts, with as many digits as it needs."""
    return f"{100 * ratio:.3g}{PERCENT}"


def whole(value: int) -> str:
    """1234567 is "1,234,567"."""
    return f"{value:,}"


def amount(value: float, unit: str) -> str:
    """Bytes in decimal units, anything else as it is counted."""
    if unit != "bytes":
        return f"{value:,.0f} {unit}"
    for name in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5:
            return f"{value:.3g} {name}"
        value /= 1000
    return f"{value:,.0f} PB"


def seconds(value: float) -> str:
    """As reap_dist says it: "4.2 s", "1 min 07 s", "2 h 05 min"."""
    if value < 0.995:
        return f"{value:.3f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    rounded = round(value)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded // 60 % 60:02d} min"


def listed(names: list[str]) -> str:
    """Names in a row: a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"
