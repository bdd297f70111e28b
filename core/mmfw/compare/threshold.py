"""What difference matters: an interval that excludes 0 says that there is one, not that anybody should care."""

from __future__ import annotations

from typing import Final

from mmfw.offers import FigureKind

#: Smallest effect on a median that matters, as a share of mainline's. The differences that the debate is about are of
#: tens of percent and more; 1% is less than a benchmark on hardware tells apart, and less than the error of the cost
#: table's estimates, to which all virtual times are in proportion.
LEAST_EFFECT: Final = 0.01
#: Fewer events than these are no news in a count, whatever they are a percentage of; of failures each one is.
LEAST_EVENTS: Final = 10
#: A share matters by whole percentage points, as the debate's own claims have it.
LEAST_SHARE: Final = 0.01

_PER_UNIT: Final = {"%": 100, "1/1000": 1000}


def least_difference(kind: FigureKind, unit: str, baseline: float, least_effect: float) -> float:
    """Smallest difference from mainline that matters.

    Parameters
    ----------
    kind : str
        What sort of figure it is (`mmfw.figures.KINDS`).
    unit : str
        Its unit.
    baseline : float
        Mainline's median.
    least_effect : float
        Smallest effect that matters, as a share of mainline's; 0 asks for no threshold of any sort.

    Examples
    --------
    >>> least_difference("count", "pages", 5000, 0.01), least_difference("count", "1", 3, 0.01)
    (50.0, 10)
    >>> least_difference("share", "1/1000", 400, 0.01), least_difference("failure", "1", 0, 0.01)
    (10.0, 0.0)
    """
    if not least_effect:
        return 0.0
    effect = least_effect * abs(baseline)
    if kind == "count":
        return max(effect, LEAST_EVENTS)
    if kind == "share":
        return max(effect, LEAST_SHARE * _PER_UNIT.get(unit, 1))
    return effect


def threshold_words(least_effect: float) -> str:
    """What is said of the threshold wherever verdicts stand."""
    if not least_effect:
        return "There is no threshold: the smallest difference matters."
    return (
        f"What matters is {least_effect * 100:g}% of mainline's median or more, {LEAST_EVENTS} events or more in counts "
        f"(but each failure counts), {LEAST_SHARE * 100:g} percentage point or more in shares."
    )
