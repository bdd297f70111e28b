"""How many pages may be moved by when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmfw_policy_reclaim_backoff.budget import Budget

MS = 1_000_000


def test_pages_come_in_at_the_rate():
    budget = Budget(1000, 1000 * MS, 0)
    assert not budget
    budget.refill(1 * MS - 1)
    assert not budget
    budget.refill(1 * MS)
    assert budget
    budget.spend(1)
    assert not budget


def test_an_object_may_overdraw_and_is_paid_off():
    budget = Budget(1000, 1000 * MS, 0)
    budget.refill(10 * MS)
    budget.spend(512)
    budget.refill(512 * MS)
    assert not budget
    budget.refill(513 * MS)
    assert budget


def test_what_is_not_spent_in_time_is_lost():
    budget = Budget(1000, 20 * MS, 0)
    budget.refill(60_000 * MS)
    budget.spend(19)
    assert budget
    budget.spend(1)
    assert not budget


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.integers(0, 2000 * MS), st.integers(1, 2048)), max_size=60),
)
def test_never_more_than_the_rate_and_one_object(rate, steps):
    budget, now, spent = Budget(rate, 500 * MS, 0), 0, 0
    for later, size in steps:
        now += later
        budget.refill(now)
        if budget:
            budget.spend(size)
            spent += size
        assert spent * 1000 * MS <= rate * now + 2048 * 1000 * MS
