"""How near a rebuilt experiment must come to the real one, and why no nearer: every bound of `mmfw validate` that is
not equality.

A rebuilt run starts from a machine that is like the captured one and not the same: where boot's own pages lie differs by
a few blocks, the emulator's timing is known as medians only (but for when requests were made), and the
captured runs themselves differ from boot to boot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Final

from mmfw.validate.common import Comparison, Summary

#: Successes of high-order requests, of all requests: 6 of 120 requests are what one order-10 block more or less makes.
SUCCESS_SHARE: Final = 0.05
#: A counter, relative to the real one: two boots of one experiment differ by up to a fifth (cache2, cache3).
COUNTER_RATIO: Final = 0.25
#: Real counts from which a ratio says anything, and up to which only the order of magnitude does.
COUNTER_FLOOR: Final = 40
SMALL: Final = 10
#: What a small real count must stay below in the simulation.
SMALL_LIMIT: Final = 20
#: Share of all counters, and of each ``compact_*`` counter alone, that must be within: single runs end in another state
#: by luck, a wrong rule shows in most of them.
COUNTER_SHARE: Final = 0.80
COMPACT_SHARE: Final = 0.70
#: The object loop: relative, and absolute for small counts.
LOOP_RATIO: Final = 0.10
LOOP_EVENTS: Final = 10
#: The band of repeated boots is widened by this share of its width on each side: five boots are a small sample.
BAND_WIDENING: Final = 0.5
#: Fewer boots than these have no range worth the name: then each is a counter like any other.
BAND_BOOTS: Final = 3
#: Streaming reads: relative; the number of wake-ups depends on where boundaries of batches fall.
LRU_RATIO: Final = 0.25

# Figures, as label ``figure`` names them.
SUCCESS: Final = "success"
COUNTER: Final = "counter"
SMALL_COUNTER: Final = "small"
LOOP: Final = "loop"
STREAM: Final = "stream"
REPORTED: Final = "reported"
_RULED: Final = frozenset({SUCCESS, COUNTER, SMALL_COUNTER})


def counter_figure(real: float) -> str:
    """Which rule judges a counter with this real value."""
    if real >= COUNTER_FLOOR:
        return COUNTER
    return SMALL_COUNTER if real <= SMALL else REPORTED


def counter_within(real: float, simulated: float) -> bool:
    """Whether a counter is as near as its rule asks."""
    if real >= COUNTER_FLOOR:
        return abs(simulated - real) <= COUNTER_RATIO * real
    return simulated <= SMALL_LIMIT


def loop_within(real: float, simulated: float) -> bool:
    """Whether a figure of the object loop is near enough."""
    return abs(simulated - real) <= max(LOOP_RATIO * real, LOOP_EVENTS)


def band(values: Iterable[float]) -> tuple[float, float]:
    """Range of repeated boots, widened."""
    known = list(values)
    low, high = min(known), max(known)
    if len(known) < BAND_BOOTS:
        return low - max(COUNTER_RATIO * low, LOOP_EVENTS), high + max(COUNTER_RATIO * high, LOOP_EVENTS)
    more = (high - low) * BAND_WIDENING
    return low - more, high + more


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over many figures.

    Attributes
    ----------
    name : str
        What it is over.
    counted, within, required : int
        Figures, those that are within, and how many must be.
    """

    name: str
    counted: int
    within: int
    required: int

    @property
    def passed(self) -> bool:
        """Whether as many are within as must be."""
        return self.within >= self.required


def _rule(name: str, comparisons: list[Comparison], share: float) -> Rule:
    within = sum(one.within for one in comparisons)
    return Rule(name, len(comparisons), within, ceil(round(share * len(comparisons), 9)))


def rules(comparisons: Iterable[Comparison]) -> list[Rule]:
    """Every rule that the counted figures fall under."""
    counted = [one for one in comparisons if one.counted]
    by_figure: dict[str, list[Comparison]] = {}
    for one in counted:
        by_figure.setdefault(one.labels.get("figure", ""), []).append(one)
    found = []
    others = [one for one in counted if one.labels.get("figure", "") not in _RULED]
    if others:
        found.append(_rule("figures", others, 1.0))
    if SUCCESS in by_figure:
        found.append(_rule("successes", by_figure[SUCCESS], 1.0))
    if SMALL_COUNTER in by_figure:
        found.append(_rule("small counters", by_figure[SMALL_COUNTER], 1.0))
    counters = by_figure.get(COUNTER, [])
    if counters:
        found.append(_rule("counters", counters, COUNTER_SHARE))
        for name in sorted({one.counter for one in counters if one.counter.startswith("compact_")}):
            own = [one for one in counters if one.counter == name]
            found.append(_rule(name, own, COMPACT_SHARE))
    return found


def judge(comparisons: Iterable[Comparison]) -> tuple[Summary, list[Rule]]:
    """Judge all figures by all rules."""
    known = list(comparisons)
    judged = rules(known)
    # The per-counter rules look at figures that "counters" has counted already.
    total = [rule for rule in judged if not rule.name.startswith("compact_")]
    return (
        Summary(
            sum(rule.counted for rule in total),
            sum(rule.within for rule in total),
            sum(rule.required for rule in total),
            bool(total) and all(rule.passed for rule in judged),
        ),
        judged,
    )
