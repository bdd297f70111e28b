"""Figures as one reads them: few digits, long times in ms or s, a true minus sign."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mmfw.offers import FigureKind

Number = int | float | None

NOTHING: Final = "\u2013"


#: Units of shares that are shown in percent, and of differences between them.
SHARE: Final = "share"
POINTS: Final = "points"
_UNIT_WORDS: Final = {"1": "", "ns": "time", "1/1000": "‰", SHARE: "share"}
_PERCENT: Final = {SHARE: "%", POINTS: " pp"}


class Scale(NamedTuple):
    """What a value is divided by, and what is written behind it."""

    divisor: float
    suffix: str


_TIMES: Final = (Scale(1e9, " s"), Scale(1e6, " ms"), Scale(1e3, " µs"))
_COUNTS: Final = (Scale(1e9, "G"), Scale(1e6, "M"))


def scale_of(unit: str, *values: Number) -> Scale:
    """Scale that shows the largest of some values of a unit well, so that an interval has one scale."""
    if unit in _PERCENT:
        return Scale(0.01, _PERCENT[unit])
    largest = max((abs(value) for value in values if value is not None), default=0)
    for scale in _TIMES if unit == "ns" else _COUNTS:
        if largest >= scale.divisor:
            return scale
    return Scale(1, " ns" if unit == "ns" else "")


def _digits(value: float) -> str:
    size = abs(value)
    if value == int(value) and size < 1e15:
        text = f"{int(value):,}"
    elif size >= 100:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 1:
        text = f"{value:.2f}"
    elif size >= 0.001:
        text = f"{value:#.3g}"
    else:
        text = f"{value:#.2g}"
    return text


def _signed(text: str, *, plus: bool) -> str:
    if text.startswith("-"):
        return "\u2212" + text[1:]
    return f"+{text}" if plus and text.strip("0.,") else text


def show(value: Number, unit: str = "1", *, scale: Scale | None = None, plus: bool = False) -> str:
    """A value with its scale, without the unit that its column names.

    Examples
    --------
    >>> show(325930, "ns"), show(0.000662), show(None), show(1234567), show(3, plus=True)
    ('326 µs', '0.00066', '–', '1.23M', '+3')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    divisor, suffix = scale or scale_of(unit, value)
    if unit in _PERCENT:
        scaled = round(value / divisor, 10)  # 0.29 is 29%, not 28.999999999999996%
    else:
        scaled = value / divisor if divisor != 1 else value
    return _signed(_digits(scaled), plus=plus) + suffix


def show_interval(
    value: Number, interval: tuple[Number, Number] | None, unit: str = "1", *, plus: bool = False
) -> str:
    """A value and its interval on one scale, even one of no width; the value alone if there is none.

    Examples
    --------
    >>> show_interval(7_300_000, (6_900_000, 7_800_000), "ns", plus=True)
    '+7.30 [+6.90, +7.80] ms'
    >>> show_interval(5, (5, 5)), show_interval(5, None)
    ('5 [5, 5]', '5')
    """
    if value is None or interval is None or interval[0] is None or interval[1] is None:
        return show(value, unit, plus=plus)
    scale = scale_of(unit, value, *interval)
    bare = Scale(scale.divisor, "")
    low, high = (show(end, unit, scale=bare, plus=plus) for end in interval)
    return f"{show(value, unit, scale=bare, plus=plus)} [{low}, {high}]{scale.suffix}"


def show_ratio(value: float, interval: tuple[Number, Number] | None) -> str:
    """A ratio and its interval; near 1 with so many digits that what is not 1 does not read as 1.

    Examples
    --------
    >>> show_ratio(0.0312, (0.03, 0.0444)), show_ratio(0.998, (0.9934, 0.99991))
    ('×0.0312 [0.0300, 0.0444]', '×0.9980 [0.9934, 0.9999]')
    """
    ends = [value, *(end for end in interval or () if end is not None)]
    digits = next((d for d in range(2, 7) if all(end == 1 or round(end, d) != 1 for end in ends)), 6)
    if digits == 2:
        return f"\u00d7{show_interval(value, interval)}"
    texts = ["1" if end == 1 else f"{end:.{digits}f}" for end in ends]
    return f"\u00d7{texts[0]}" + (f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "")


def unit_of(unit: str, kind: FigureKind | None, *, difference: bool = False) -> str:
    """The unit that a figure is shown in: a share of 1 in percent, and a difference of two in percentage points.

    Examples
    --------
    >>> show(0.775, unit_of("1", "share")), show(-0.02, unit_of("1", "share", difference=True))
    ('77.5%', '−2 pp')
    >>> show(0.775, unit_of("1", "ratio"))
    '0.775'
    """
    if kind != "share" or unit != "1":
        return unit
    return POINTS if difference else SHARE


def unit_words(unit: str) -> str:
    """A unit as a table's head names it: none for plain numbers; times carry their own."""
    return _UNIT_WORDS.get(unit, unit)
