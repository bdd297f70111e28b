"""What TTM's ladder asks for with the policy, and runs against mainline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from mmfw import gfp
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.run import RunRequest, run
from mmfw.testing import make_mm
from mmfw_policy_reclaim_backoff import plugin as policy

ttm = pytest.importorskip("mmfw_ttm_pool", reason="needs mmfw-ttm-pool")

MS = 1_000_000


#: Nothing above order 3 where the request may go, and a large one in the DMA zone, which keeps it.
SMALL_BLOCKS = {
    "DMA32": [2000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 0, 0],
    "DMA": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
}
#: As many pages, and one block of 2 MiB.
ONE_LARGE = {**SMALL_BLOCKS, "DMA32": [2000, 1000, 1000, 936, 0, 0, 0, 0, 0, 1, 0]}


class Bench:
    """A small machine, the policy, and a pool that does nothing but answer."""

    def __init__(self, blocks: dict[str, list[int]] = SMALL_BLOCKS, **params: Any) -> None:
        state = with_buddyinfo(machine_from_ram("1G").node_state(0), blocks, 0.3, 1, "test")
        self.mm = make_mm(state, start=True)
        policy.mmfw_module_init(self.mm, policy.BackoffParams(**params))
        self.pool = ttm.TtmPool(self.mm, 1000, 0, lambda pool, order, flags: None, lambda *args: None)

    def ask(self, order: int, flags: int = gfp.GFP_HIGHUSER) -> int | None:
        return policy.ttm_pool_gfp_mask(self.pool, order, flags)

    def asked(self, order: int, wanted: int, got: int) -> None:
        policy.ttm_pool_asked(self.pool, order, wanted, got)

    def wait(self, ms: int) -> None:
        self.mm.sched.run(self.mm.sched.now + ms * MS)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(blocks: dict[str, list[int]] = SMALL_BLOCKS, **params: Any) -> Bench:
        made.append(Bench(blocks, **params))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()


def test_after_a_failure_an_order_and_those_above_are_skipped_for_a_while(bench):
    b = bench()
    b.asked(4, 3, 2)
    assert [b.ask(order) for order in (0, 3, 4, 9, 10)] == [None, None, *[ttm.SKIP_ORDER] * 3]
    b.wait(10)
    assert b.ask(4) is None


def test_or_asked_for_without_reclaim(bench):
    b = bench(mode="no-reclaim")
    b.asked(4, 1, 0)
    mask = b.ask(9)
    assert mask == gfp.GFP_HIGHUSER & ~gfp.RECLAIM


def test_a_free_block_ends_it_for_its_order_and_those_below(bench):
    b = bench(ONE_LARGE)
    b.asked(4, 1, 0)  # failed, whatever the reason
    assert b.ask(10) == ttm.SKIP_ORDER
    assert b.ask(9) is None
    # Forgotten, not only overruled.
    assert b.ask(10) is None


def test_blocks_that_a_zone_keeps_from_the_request_do_not(bench):
    b = bench()
    (dma,) = (each for each in b.mm.pgdat.node_zones if each.name == "DMA")
    assert dma.nr_free(10) == 1
    b.asked(4, 1, 0)
    assert b.ask(10) == ttm.SKIP_ORDER


@pytest.mark.parametrize(("counted", "answer"), [(True, ttm.SKIP_ORDER), (False, None)])
def test_success_that_cost_the_device_objects_counts_as_failure(bench, counted, answer):
    b = bench(count_evictions=counted)
    b.asked(9, 1, 1)
    b.mm.ledger.evicted("xe", nr_objects=1, nr_pages=512)
    b.wait(10)
    assert (b.ask(8), b.ask(9)) == (None, answer)


def test_what_others_lose_does_not_count(bench):
    b = bench()
    b.asked(9, 1, 1)
    b.mm.ledger.evicted("dentry", nr_objects=1, nr_pages=0)
    b.wait(10)
    assert b.ask(9) is None


def test_the_policys_skip_is_the_pools():
    assert policy.SKIP_ORDER == ttm.SKIP_ORDER


def test_intervals_must_grow():
    with pytest.raises(ValidationError, match="at least first_ms, 100"):
        policy.BackoffParams(first_ms=100, longest_ms=50)


WITHOUT_TTM = """
name = "no-ttm"
description = "anonymous memory beyond RAM"
plugins = ["demand"]
machine = "256M"
nr_swap_pages = 100000
duration = "1s"

[[workloads]]
name = "anon-pressure"
[workloads.params]
percent_of_ram = 110
pages_per_second = 100000
"""


def test_a_run_without_ttm_is_mainlines(tmp_path):
    pytest.importorskip("mmfw_demand", reason="needs mmfw-demand")
    scenario = tmp_path / "no-ttm.toml"
    scenario.write_text(WITHOUT_TTM)
    plain, with_policy = (
        run(RunRequest(scenario=str(scenario), plugins=names)) for names in ((), ("reclaim-backoff",))
    )
    assert plain.vmstat["pswpout"] > 0
    assert with_policy.digest == plain.digest


@pytest.mark.slow
def test_in_the_loop_requests_and_evictions_become_fewer():
    pytest.importorskip("mmfw_xe_shrinker", reason="needs mmfw-xe-shrinker")
    plain, never, backed_off = (
        run(
            RunRequest(
                scenario="webgl-aquarium", short=True, duration="1s", plugins=names, overrides=overrides
            )
        )
        for names, overrides in (
            ((), {}),
            (
                ("reclaim-backoff",),
                {"reclaim-backoff.min_order": 11, "reclaim-backoff.defrag_pages_per_second": 0},
            ),
            (("reclaim-backoff",), {}),
        )
    )
    assert never.digest == plain.digest
    assert never.metrics["reclaim_backoff_share"] == 0
    assert backed_off.metrics["reclaim_backoff_share"] > 0.1
    assert backed_off.metrics["kswapd_wakes"] < plain.metrics["kswapd_wakes"]
    assert backed_off.metrics["xe_bo_evictions"] < plain.metrics["xe_bo_evictions"]
