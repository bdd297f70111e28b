"""Direct reclaim waits for kswapd when the reserves run out (``throttle_direct_reclaim()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import MSEC, QUIET, SEC, fill, grown, run, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.sched import PF_KTHREAD


@pytest.fixture
def mm():
    return unboosted(start=True)


def short_of_reserves(mm):
    """8000 clean pages of a file, and nothing free."""
    mm.page_cache.open(8000)._add(np.arange(8000))
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    assert not mm._vmscan.allow_direct_reclaim()


def test_a_waiter_is_woken_as_soon_as_kswapd_has_freed_enough(mm):
    def body():
        short_of_reserves(mm)
        before, start = mm.vmstat.as_dict(), mm.sched.now
        mm._vmscan.try_to_free_pages(0, gfp.GFP_KERNEL)
        return grown(mm, before), mm.sched.now - start

    change, took = run(mm, body)
    assert change["pgscan_direct_throttle"] == 1
    assert change["pgsteal_kswapd"] > 0
    # It slept while kswapd ran, which takes well under the 10 ms of a poll.
    assert took < 5 * MSEC


def test_half_of_the_reserves_is_counted_zone_wide(mm):
    """Pages that only a CPU's delta knows of do not count: zone_page_state(), not its snapshot."""
    short_of_reserves(mm)
    memory = mm.pgdat.memory
    memory.S[memory.pcp_offset(0, 1) + pg.C_FREE_DIFF] += 100_000
    assert mm.pgdat.node_zones[1].free_pages_snapshot() > 50_000
    assert not mm._vmscan.allow_direct_reclaim()


def test_kernel_threads_and_dying_tasks_do_not_wait(mm):
    short_of_reserves(mm)
    seen = []

    def body():
        before = mm.vmstat.as_dict()
        mm._vmscan.try_to_free_pages(0, gfp.GFP_KERNEL)
        seen.append("pgscan_direct_throttle" in grown(mm, before))

    mm.sched.spawn(body, name="kthread", flags=PF_KTHREAD)
    mm.sched.run(mm.sched.now + MSEC)
    assert seen == [False]


def test_without_fs_the_wait_ends_after_a_second(mm):
    mm._vmscan.allow_direct_reclaim = lambda: False

    def body():
        start = mm.sched.now
        throttled = mm._vmscan._throttle_direct_reclaim(gfp.GFP_NOFS)
        return throttled, mm.sched.now - start

    throttled, took = run(mm, body, 5 * SEC)
    assert throttled is False
    assert SEC <= took < SEC + 10 * MSEC


def test_kswapd_wakes_everybody_before_it_sleeps(mm):
    """The last look: whoever is woken too early sleeps again."""
    allowed = []
    mm._vmscan.allow_direct_reclaim = lambda: bool(allowed)

    def waiter():
        mm._vmscan._throttle_direct_reclaim(gfp.GFP_KERNEL)
        return mm.sched.now

    task = mm.sched.spawn(waiter, name="waiter", daemon=True)
    mm.sched.run(mm.sched.now + 10 * MSEC)
    assert mm._vmscan._pfmemalloc_wait.waitqueue_active()
    allowed.append(True)
    mm.kswapd._balancer.prepare_kswapd_sleep(0, 2)
    mm.sched.run(mm.sched.now + 10 * MSEC)
    assert task.state.name == "DEAD"
