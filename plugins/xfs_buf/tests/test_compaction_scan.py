from __future__ import annotations

import numpy as np
import pytest

from mmfw import CompactionScan, MigrateMode, ScanPhase, gfp
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.types import MmOps
from mmfw_xfs_buf import BufType


def ask(
    b, order: int, *, opportunistic: bool = True, lo: int = 0, hi: int = 1 << 40, budget: int = 1 << 20
) -> int:
    scan = CompactionScan(
        zone=b.mm.pgdat.node_zones[1],
        nid=0,
        order=order,
        pfn_lo=lo,
        pfn_hi=hi,
        nr_to_free=budget,
        opportunistic=opportunistic,
        mode=MigrateMode.ASYNC,
        gfp_mask=gfp.GFP_KERNEL,
        migratetype=0,
        phase=ScanPhase.ENTRY,
    )
    freed = b.shrinker.compaction_scan(scan)
    assert scan.nr_scanned >= 0
    return freed


def gone(b, slots):
    return [not b.is_cached(slot) for slot in slots]


def test_opportunistic_takes_what_no_scan_would_spare(bench):
    b = bench()
    slots = [b.cached(65536, ref=ref) for ref in (0, 1, 2)]
    assert ask(b, 9) == 16
    assert gone(b, slots) == [True, False, False]
    assert ask(b, 9) == 0


def test_must_free_goes_on_to_weight_1_and_spares_hot_ones(bench):
    b = bench()
    slots = [b.cached(65536, ref=ref) for ref in (2, 1, 0, 4)]
    assert ask(b, 9, opportunistic=False) == 32
    assert gone(b, slots) == [False, True, True, False]
    assert b.buftarg.stats.compaction_freed_pages == 32


@pytest.mark.parametrize(("order", "taken"), [(1, [1, 2, 3, 4]), (3, [3, 4]), (4, [4]), (9, [4])])
def test_folios_as_large_as_wanted_or_as_large_as_there_are(bench, order, taken):
    b = bench()
    slots = {o: b.cached(4096 << o, ref=0) for o in range(5)}
    assert ask(b, order) == sum(1 << o for o in taken)
    assert [o for o, slot in slots.items() if not b.is_cached(slot)] == taken


def test_single_pages_and_buffers_in_use_stay(bench):
    b = bench()
    scattered, held = b.cached(12288, ref=0), b.cached(65536, ref=0)
    b.buftarg.hold(held)
    assert ask(b, 1, opportunistic=False) == 0
    assert gone(b, [scattered, held]) == [False, False]


def test_only_what_lies_in_the_range(bench):
    b = bench()
    slots = [b.cached(65536, ref=0) for _ in range(6)]
    pfns = b.buftarg.table.pages[slots, 0]
    lo, hi = np.sort(pfns)[[2, 4]]
    assert ask(b, 9, lo=int(lo), hi=int(hi)) == 32
    assert gone(b, slots) == [bool(lo <= pfn < hi) for pfn in pfns]


def test_budget_and_order_among_equals(bench):
    b = bench()
    small = [b.cached(16384, ref=1), b.cached(16384, ref=0)]
    large = [b.cached(65536, ref=0), b.cached(65536, ref=1)]
    # The light ones first, the smaller folio before the larger, and no more than is wanted.
    assert ask(b, 2, opportunistic=False, budget=5) == 4 + 16
    assert gone(b, small + large) == [False, True, True, False]
    assert ask(b, 2, opportunistic=False, budget=4) == 4
    assert gone(b, small + large) == [True, True, True, False]


def test_the_folio_comes_free_at_its_order(bench):
    b = bench()
    slot = b.cached(65536, ref=0)
    pfn = int(b.buftarg.table.pages[slot, 0])
    b.cached(65536)
    b.mm.drain_all_pages()
    before = b.mm.global_free_pages()
    assert ask(b, 4) == 16
    b.mm.drain_all_pages()
    assert b.mm.global_free_pages() == before + 16
    # It is one block, so that an allocation of its order gets it, after the few that were free before.
    got = [b.mm.alloc_pages(gfp.GFP_KERNEL | gfp.COMP, 4) for _ in range(8)]
    assert pfn in got
    for each in got:
        b.mm.free_pages(each, 4)


def test_a_policy_has_it_called_from_compact_zone(bench):
    asked = []

    def plan(cc, phase):
        asked.append(phase)
        return CompactionScan.of(cc, phase, opportunistic=True) if phase is ScanPhase.ENTRY else None

    ops = MmOps(
        plan_wakeup=mmfw_plan_wakeup,
        should_shrink_slab=mmfw_should_shrink_slab,
        plan_compaction_scan=plan,
    )
    b = bench(ops=ops)
    slots = [b.cached(65536, ref=ref) for ref in (0, 3)]
    b.call(b.mm.compact_memory)
    assert ScanPhase.ENTRY in asked
    assert gone(b, slots) == [True, False]


def test_mainline_never_asks(bench):
    b = bench()
    slot = b.cached(65536, BufType.ATTR_BTREE, ref=0)
    b.call(b.mm.compact_memory)
    assert b.is_cached(slot)
