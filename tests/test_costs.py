"""The cost table."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw import costs
from mmfw.errors import InputError
from mmfw.results.manifest import sha256_costs


def test_the_figures_that_have_a_published_source():
    default = costs.profile("default")
    assert default.alloc_pcp == 94
    assert default.writeback_page == 3_815


@pytest.mark.parametrize(
    ("cost", "ns"), [("copy_page", 1_000), ("bind_bo", 20_000), ("swap_in_page", 50_000)]
)
def test_what_nobody_measured_is_called_an_estimate_and_says_of_what(cost, ns):
    figure = dict(costs.describe("default"))[cost]
    assert figure.ns == ns
    assert figure.source.startswith("estimate: ")


def test_tcg_splits_the_captured_switch_to_kswapd():
    tcg = costs.profile("tcg")
    assert tcg.kswapd_wake + tcg.context_switch == 13_000
    assert tcg.bind_bo == costs.profile("default").bind_bo


@pytest.mark.parametrize("name", costs.profile_names())
def test_every_cost_is_described_with_a_source(name):
    rows = dict(costs.describe(name))
    profile = costs.profile(name)
    assert tuple(rows) == tuple(cost for cost in costs.COST_NAMES if cost in rows)
    # What a profile does not tell apart from its surroundings costs nothing by itself.
    apart = {
        "wakeup_kswapd",
        "alloc_failed",
        "balance_pgdat",
        "kswapd_try_to_sleep",
        "direct_shrink_node",
        "vmpressure_work",
    }
    left_out = set(costs.COST_NAMES) - set(rows)
    assert left_out == (set() if name == "tcg" else apart)
    assert all(getattr(profile, cost) == 0 for cost in left_out)
    assert {cost: row.ns for cost, row in rows.items()} == {c: getattr(profile, c) for c in rows}
    assert all(row.source for row in rows.values())


def test_unknown_profile_suggests_the_nearest():
    with pytest.raises(InputError, match=r"unknown cost profile 'defualt'; did you mean 'default'\?"):
        costs.profile("defualt")


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_a_cost_that_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match=r"cost zero_page=.* of profile 'default' must be an integer >= 0"):
        replace(costs.profile("default"), zero_page=value)


def test_a_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        costs.profile("default").copy_page = 1  # type: ignore[misc]


def test_a_rate_must_move_something():
    with pytest.raises(InputError, match="rate of 0 bytes/s"):
        costs.transfer_ns(1, 0)


@given(nbytes=st.integers(0, 1 << 50), rate=st.integers(1, 1 << 40))
def test_transfer_time_is_the_least_that_suffices(nbytes, rate):
    ns = costs.transfer_ns(nbytes, rate)
    assert ns * rate >= nbytes * costs.NSEC_PER_SEC
    assert (ns - 1) * rate < nbytes * costs.NSEC_PER_SEC


@given(st.integers(0, 10**9))
def test_jiffies_round_trip(jiffies):
    ns = costs.jiffies_to_nsecs(jiffies)
    assert costs.nsecs_to_jiffies(ns) == jiffies
    assert costs.nsecs_to_jiffies(ns + costs.TICK_NSEC - 1) == jiffies


def test_single_costs_can_be_replaced():
    known = costs.profile("default")
    changed = costs.profile("default", {"gpu_job": 7, "copy_page": 0})
    assert costs.profile("default", {"wakeup_kswapd": 3}).wakeup_kswapd == 3
    assert changed == replace(known, gpu_job=7, copy_page=0)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [({"gpu_jobs": 1}, "unknown cost 'gpu_jobs'; did you mean 'gpu_job'"), ({"gpu_job": -1}, "at least 0")],
)
def test_what_is_no_cost_is_refused(replaced, message):
    with pytest.raises(InputError, match=message):
        costs.profile("default", replaced)


def test_a_table_has_the_digest_of_the_costs_that_it_tells_apart():
    known = costs.profile("default")
    assert sha256_costs(known) == sha256_costs(replace(known, wakeup_kswapd=0))
    changed = [costs.profile("default", {cost: getattr(known, cost) + 1}) for cost in costs.COST_NAMES]
    assert len({sha256_costs(each) for each in (known, *changed)}) == 1 + len(costs.COST_NAMES)
