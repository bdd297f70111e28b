"""Medians over seeds, their intervals, and what an interval says. Pure functions.

The interval of a median is that of a bootstrap (BCa, 95%), widened to the interval between two order statistics, whose
level holds for any distribution: a bootstrap of few values is too narrow. With n values that is the k-th from either
end, k the largest for which at least 95% are covered; with fewer than six it is all of them, and the level says what
that is worth (93.75% with five).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mmfw.results.extras import study_module

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 9999
#: With fewer pairs there is no verdict: even all of them on one side would not be rare.
FEWEST_PAIRS: Final = 5
#: What stands in its place.
TOO_FEW: Final = "too few pairs"

Better = Literal["lower", "higher", "neither"]
Verdict = Literal["better", "worse", "no difference that matters", "no difference", "different", "undecided"]

METHOD: Final = (
    "Medians over seeds; each policy is compared with mainline of the same seed. The interval of a median is a BCa "
    "bootstrap's (95%, 9999 resamples), widened to the distribution-free interval between order statistics, whose "
    "exact level is given with it (93.75% with 5 seeds, 97.9% with 10). Better or worse (different, where a figure "
    "has no better side) means that the interval of the paired differences excludes 0 and that their median matters; "
    "no difference, that all of the interval is 0; no difference that matters, that all of it lies below what "
    "matters; undecided is the rest: these seeds cannot tell. With fewer than 5 pairs there is no verdict. Where all "
    "seeds gave one and the same result, that is said in place of an interval. Levels hold for each cell alone: among "
    "many cells some will differ by chance."
)


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of a median, and the confidence that it has at least."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Differences and ratios of paired values.

    Attributes
    ----------
    differences : tuple of float
        Value less baseline; pairs with a None are left out.
    ratios : tuple of float or None
        Value to baseline; None unless all values are positive.
    """

    differences: tuple[float, ...]
    ratios: tuple[float, ...] | None


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle; an integer stays one.

    Examples
    --------
    >>> median([3, 1, 2]), median([1, 2])
    (2, 1.5)
    """
    ordered = sorted(values)
    half, odd = divmod(len(ordered), 2)
    return ordered[half] if odd else (ordered[half - 1] + ordered[half]) / 2


def order_statistics(n: int) -> tuple[int, float]:
    """Ranks between which the median lies with at least 95% confidence, and the exact level.

    Parameters
    ----------
    n : int
        Values, at least 2.

    Returns
    -------
    rank : int
        The interval goes from the rank-th smallest to the rank-th largest, counted from 1.
    level : float
        Probability that it covers the median of a continuous distribution.

    Examples
    --------
    >>> order_statistics(5), order_statistics(10)
    ((1, 0.9375), (2, 0.978515625))
    """
    tail, rank, level = 0, 1, 0.0
    for k in range(1, n // 2 + 1):
        tail += math.comb(n, k - 1)
        covered = 1 - 2 * tail / 2**n
        if k > 1 and covered < CONFIDENCE:
            break
        rank, level = k, covered
    return rank, level


def interval(values: Sequence[float], name: str) -> Interval | None:
    """Interval of the median; None with fewer than 2 values.

    Parameters
    ----------
    values : sequence of float
        One for each seed.
    name : str
        Of the cell: what the bootstrap's random numbers are drawn from.
    """
    if len(values) < 2:
        return None
    ordered = sorted(values)
    rank, level = order_statistics(len(ordered))
    low, high = ordered[rank - 1], ordered[-rank]
    if ordered[0] != ordered[-1]:
        drawn = _bootstrap(values, name)
        low, high = min(low, drawn[0]), max(high, drawn[1])
    return Interval(low, high, level)


def _bootstrap(values: Sequence[float], name: str) -> tuple[float, float]:
    """95% interval of the median by resampling; by percentiles where BCa has no answer."""
    numpy = study_module("numpy", "mmfw compare")
    stats = study_module("scipy.stats", "mmfw compare")
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    data = (numpy.asarray(values, dtype=float),)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), numpy.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of degenerate data, which is what the second method is for
            found = stats.bootstrap(
                data,
                numpy.median,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=numpy.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return float(found.low), float(found.high)
    return min(values), max(values)


def results_words(nr_seeds: int, nr_results: int | None) -> str:
    """What is said where seeds gave fewer results than there are of them; empty if each gave its own.

    Examples
    --------
    >>> results_words(10, 1), results_words(10, 3), results_words(10, 10), results_words(1, 1)
    ('10 seeds, one distinct result', '10 seeds, 3 distinct results', '', '')
    """
    if nr_results is None or not 0 < nr_results < nr_seeds:
        return ""
    return f"{nr_seeds} seeds, " + (
        "one distinct result" if nr_results == 1 else f"{nr_results} distinct results"
    )


def alike_words(values: Sequence[float | None], nr_results: int | None) -> str:
    """What is said where different results have one value of a figure; empty if they do not.

    Parameters
    ----------
    values : sequence of float or None
        One for each seed; those without a value are left out.
    nr_results : int or None
        Different results among them, None if nobody counted.

    Examples
    --------
    >>> alike_words([5, 5, 5, 5, 5], 5), alike_words([5, None, 5], 2), alike_words([5, 6], 2), alike_words([5, 5], 1)
    ('all 5 seeds alike', 'all 2 seeds alike', '', '')
    """
    known = [value for value in values if value is not None]
    if len(known) < 2 or nr_results == 1 or any(value != known[0] for value in known):
        return ""
    return f"all {len(known)} seeds alike"


def paired(values: Sequence[float | None], baseline: Sequence[float | None]) -> Pairs:
    """Differences and ratios of values of the same seeds.

    Examples
    --------
    >>> paired([2, 3, None], [1, 2, 5])
    Pairs(differences=(1, 1), ratios=(2.0, 1.5))
    >>> paired([0, 3], [1, 2]).ratios is None
    True
    """
    both = [(a, b) for a, b in zip(values, baseline, strict=True) if a is not None and b is not None]
    positive = bool(both) and all(a > 0 and b > 0 for a, b in both)
    return Pairs(
        tuple(a - b for a, b in both),
        tuple(a / b for a, b in both) if positive else None,
    )


def verdict(
    differences: Sequence[float], found: Interval | None, better: Better, least: float = 0.0
) -> Verdict | None:
    """What an interval of paired differences says; None with fewer than `FEWEST_PAIRS`, or if it is none.

    Parameters
    ----------
    differences : sequence of float
        One for each seed.
    found : Interval or None
        That of their median.
    better : {"lower", "higher", "neither"}
        Which direction an improvement has.
    least : float
        Smallest difference that matters (`mmfw.compare.threshold`).

    Examples
    --------
    >>> verdict([-2] * 5, Interval(-3, -1, 0.94), "lower")
    'better'
    >>> verdict([-2] * 5, Interval(-3, -1, 0.94), "lower", least=10)
    'no difference that matters'
    >>> verdict([-2] * 5, Interval(-3, 20, 0.94), "lower", least=10)
    'undecided'
    """
    if len(differences) < FEWEST_PAIRS or found is None or not found.low <= found.high:
        return None
    if found.low == found.high == 0:
        return "no difference"
    if -least < found.low and found.high < least:
        return "no difference that matters"
    if found.low <= 0 <= found.high or abs(median(differences)) < least:
        return "undecided"
    if better == "neither":
        return "different"
    return "better" if (found.high < 0) == (better == "lower") else "worse"
