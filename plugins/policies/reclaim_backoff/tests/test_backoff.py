"""Tokens: which orders are left alone, for how long, and what ends it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmfw_policy_reclaim_backoff.backoff import Backoff

MS = 1_000_000


def backoff() -> Backoff:
    return Backoff(10 * MS, 1000 * MS)


def off(b: Backoff, now: int) -> list[int]:
    return [order for order in range(11) if b.is_off(order, now)]


def test_a_failure_bars_its_order_and_all_above():
    b = backoff()
    b.failed(4, 0)
    assert off(b, 10 * MS - 1) == [4, 5, 6, 7, 8, 9, 10]
    assert off(b, 10 * MS) == []


def test_the_interval_doubles_up_to_the_longest():
    b, now, intervals = backoff(), 0, []
    for _ in range(9):
        b.failed(9, now)
        began = now
        while b.is_off(9, now):
            now += MS
        intervals.append((now - began) // MS)
    assert intervals == [10, 20, 40, 80, 160, 320, 640, 1000, 1000]


def test_failures_within_one_interval_are_one():
    b = backoff()
    b.failed(9, 0)
    b.failed(9, 5 * MS)
    assert off(b, 10 * MS) == []
    b.failed(9, 10 * MS)
    assert b.is_off(9, 30 * MS - 1)


def test_a_success_ends_it_once_it_has_cost_nothing():
    b = backoff()
    b.failed(8, 0)
    b.failed(10, 0)
    b.succeeded(9, 1 * MS, 7)
    b.judge(11 * MS - 1, 7)
    b.failed(8, 10 * MS)
    assert b.is_off(8, 11 * MS)
    b.judge(11 * MS, 7)
    assert off(b, 11 * MS) == []
    # Above 9 nothing is known: the next interval of order 10 is its second, that of order 8 its first.
    for order, interval in ((8, 10), (10, 20)):
        b.failed(order, 50 * MS)
        assert b.is_off(order, (50 + interval) * MS - 1)
        b.forget(8)


def test_a_success_that_cost_objects_is_a_failure():
    b = backoff()
    b.succeeded(9, 0, 7)
    b.succeeded(9, 9 * MS, 8)  # the first stands
    b.judge(10 * MS, 8)
    assert off(b, 20 * MS - 1) == [9, 10]
    b.judge(30 * MS, 9)
    assert off(b, 30 * MS) == []


@given(st.lists(st.tuples(st.sampled_from("fsj"), st.integers(0, 10), st.integers(0, 500 * MS)), max_size=80))
def test_nothing_is_left_alone_for_longer_than_the_longest(steps):
    b, now, failed = backoff(), 0, -1
    for what, order, later in steps:
        now += later
        if what == "f":
            b.failed(order, now)
            assert b.is_off(order, now)
            failed = now
        elif what == "s":
            b.succeeded(order, now, 0)
        else:
            b.judge(now, 0)
        assert failed >= 0 or off(b, now) == []
        assert off(b, now) == list(range(11 - len(off(b, now)), 11))
    assert off(b, now + 1000 * MS) == []
