"""Intervals of medians: what they must cover, what they must not claim, and what a verdict takes."""

from __future__ import annotations

import math
import statistics
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw.compare.statistics import (
    Interval,
    interval,
    median,
    order_statistics,
    paired,
    verdict,
)

pytest.importorskip("scipy")


@pytest.mark.parametrize("n", range(2, 30))
def test_the_level_is_the_chance_that_the_ranks_cover_the_median(n: int) -> None:
    """Counted over all ways in which n values can fall above or below, each as likely."""
    rank, level = order_statistics(n)
    covered = sum(math.comb(n, below) for below in range(n + 1) if rank <= below <= n - rank)
    assert level == pytest.approx(covered / 2**n)
    if rank > 1:
        assert level >= 0.95
    inner = sum(math.comb(n, below) for below in range(n + 1) if rank + 1 <= below <= n - rank - 1)
    assert inner / 2**n < 0.95


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12))
def test_an_interval_holds_the_median_and_the_ranks_and_nothing_outside_the_values(values: list[int]) -> None:
    found = interval(values, "x")
    assert found is not None
    rank, level = order_statistics(len(values))
    ordered = sorted(values)
    assert min(values) <= found.low <= ordered[rank - 1]
    assert ordered[-rank] <= found.high <= max(values)
    assert found.low <= median(values) <= found.high
    assert found.level == level
    assert interval(values, "x") == found


def test_five_values_give_all_of_them_and_say_what_that_is_worth() -> None:
    assert interval([3, 1, 2, 50, 4], "x") == Interval(1, 50, 0.9375)
    assert interval([1], "x") is None
    assert interval([2, 2, 2, 2, 2, 2], "x") == Interval(2, 2, 0.96875)


def test_intervals_of_ten_skewed_values_cover_the_true_median_often_enough() -> None:
    random = np.random.default_rng(7)
    true = math.log(2)
    covered = 0
    for i in range(200):
        found = interval([float(x) for x in random.exponential(size=10)], f"coverage {i}")
        assert found is not None
        covered += found.low <= true <= found.high
    assert covered >= 190


@settings(deadline=None)
@given(st.lists(st.integers(-(10**12), 10**12), min_size=1))
def test_median_is_that_of_the_standard_library(values: list[int]) -> None:
    assert median(values) == statistics.median(values)


def test_pairs_without_a_value_are_dropped_and_ratios_need_positive_values() -> None:
    pairs = paired([4, None, 9, 2], [2, 1, 3, None])
    assert pairs.differences == (2, 6)
    assert pairs.ratios == (2.0, 3.0)
    assert paired([4, 0], [2, 3]).ratios is None
    assert paired([None], [1]).ratios is None


def test_verdicts() -> None:
    """By hand: the sign of the interval against the direction in which the metric improves."""
    five = [0.0] * 5
    expected = {
        ("lower", -1): "better",
        ("lower", 1): "worse",
        ("higher", 1): "better",
        ("higher", -1): "worse",
        ("neither", 1): "different",
        ("neither", -1): "different",
    }
    for better, sign in product(("lower", "higher", "neither"), (1, -1)):
        away = Interval(*sorted((sign * 1.0, sign * 2.0)), 0.95)
        assert verdict(five, away, better) == expected[better, sign]  # type: ignore[arg-type]
        assert verdict(five[:4], away, better) is None  # type: ignore[arg-type]
    for touching in (
        Interval(0, 1, 0.95),
        Interval(-1, 0, 0.95),
        Interval(-1, 1, 0.95),
    ):
        assert verdict(five, touching, "lower") == "undecided"
    assert verdict([0.0] * 5, Interval(0, 0, 0.95), "lower") == "no difference"


def test_verdicts_with_a_smallest_difference_that_matters() -> None:
    """By hand: the interval against the band around 0, and the median against its edge."""
    cases = {
        (1.0, 2.0, 1.5): "no difference that matters",  # excludes 0, all of it in the band
        (-1.0, 2.0, 0.5): "no difference that matters",  # holds 0, all of it in the band
        (0.0, 0.0, 0.0): "no difference",  # the same results: there is none
        (-1.0, 20.0, 5.0): "undecided",  # holds 0 and reaches beyond the band
        (1.0, 20.0, 5.0): "undecided",  # excludes 0, but most of it may or may not matter
        (1.0, 20.0, 10.0): "worse",
        (10.0, 20.0, 15.0): "worse",
        (-20.0, -10.0, -15.0): "better",
        (-20.0, -1.0, -9.0): "undecided",
    }
    for (low, high, middle), expected in cases.items():
        assert verdict([middle] * 5, Interval(low, high, 0.95), "lower", least=10) == expected, (low, high)
    assert verdict([1.5] * 4, Interval(1, 2, 0.95), "lower", least=10) is None
