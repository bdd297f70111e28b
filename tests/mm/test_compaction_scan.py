"""The shrinkers' third method: who calls it, when, and what becomes of what it frees."""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest

from mm.workbench import events_of, fragment, run, take_large, zone_field
from mmfw import SHRINK_EMPTY, SHRINK_STOP, CompactionScan, ScanPhase, attach, attachment, gfp, hookimpl
from mmfw.binding import bind_shrinker
from mmfw.errors import PluginError
from mmfw.jit import page as pg
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.shrinker import ShrinkerList
from mmfw.mm.trace import MmCompactionEnd, Tracepoints
from mmfw.mm.vmstat import VmStat
from mmfw.testing import make_mm
from mmfw.types import CompactPriority, CompactResult, MigrateMode, MmOps

ORDER9 = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN


class Pool:
    """Two order-8 blocks that are each other's buddies, as in a TTM pool."""

    def __init__(self, mm, pfn: int) -> None:
        self.mm = mm
        self.blocks = [pfn, pfn + 256]
        self.scans: list[tuple[ScanPhase, bool, int]] = []
        self.ranges: list[tuple[int, int]] = []
        self.answer: int | None = None
        self.holds = 512

    @hookimpl
    def count_objects(self, sc):
        return SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc):
        return SHRINK_STOP

    @hookimpl
    def compaction_holds(self, cs: CompactionScan) -> int:
        return self.holds

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        self.scans.append((cs.phase, cs.opportunistic, cs.order))
        if self.mm.sched.current.comm != "kcompactd0":
            self.ranges.append((cs.pfn_lo, cs.pfn_hi))
        if self.answer is not None:
            return self.answer
        freed = 0
        while self.blocks:
            self.mm.free_pages(self.blocks.pop(), 8)
            freed += 256
        return freed


def machine(phase: ScanPhase | None):
    """A full machine with a pool of two buddies, and a policy that asks at one phase."""

    def plan(cc, at):
        return CompactionScan.of(cc, at, opportunistic=True) if at is phase else None

    ops = MmOps(
        plan_wakeup=mmfw_plan_wakeup,
        should_shrink_slab=mmfw_should_shrink_slab,
        plan_compaction_scan=None if phase is None else plan,
    )
    mm = make_mm("128M", ops=ops)
    pfn = mm.alloc_pages(gfp.GFP_KERNEL | gfp.NOWARN, 9)
    assert pfn % 512 == 0
    mm.split_page(pfn, 9)
    # Put together again as two blocks: freed singly, the buddies merge up to the order that is taken.
    for page in range(pfn, pfn + 512):
        mm.free_pages(page, 0)
    mm.drain_all_pages()
    halves = [mm.alloc_pages(gfp.GFP_KERNEL | gfp.NOWARN, 8) for _ in range(2)]
    first, second = sorted(halves)
    assert second == first + 256
    assert first % 512 == 0
    fragment(mm, keep=16)
    take_large(mm, 9)
    pool = Pool(mm, first)
    mm.register_shrinker(pool, "pool")
    mm.start_time()
    return mm, pool


def test_mainline_asks_nobody():
    mm, pool = machine(None)
    assert run(mm, lambda: mm.alloc_pages(ORDER9, 9)) == -1
    assert pool.scans == []


@pytest.mark.parametrize("phase", [ScanPhase.ENTRY, ScanPhase.PAGEBLOCK, ScanPhase.FINISH])
def test_two_buddies_freed_for_compaction_are_captured_as_one_block(phase):
    mm, pool = machine(phase)
    want = pool.blocks[0]
    assert run(mm, lambda: mm.alloc_pages(ORDER9, 9)) == want
    assert pool.scans[0] == (phase, True, 9)
    assert mm.check_memory() > 0


def test_kcompactd_asks_too_and_captures_nothing():
    mm, pool = machine(ScanPhase.ENTRY)
    want = pool.blocks[0]
    run(mm, lambda: mm.compaction.wakeup_kcompactd(9, 1))
    assert pool.scans[0][0] is ScanPhase.ENTRY
    memory = mm.pgdat.memory
    free = [int(p) for mt in range(3) for p in memory.list_pfns(memory.free_head(1, 9, mt))]
    assert want in free


def test_a_scan_before_the_suitability_test_spares_the_scanners():
    mm, _ = machine(ScanPhase.ENTRY)
    ends = events_of(mm, MmCompactionEnd)

    def body():
        mm.alloc_pages(ORDER9, 9)
        return list(ends)

    assert run(mm, body) == []


def test_a_scan_at_the_finish_turns_a_failed_run_into_success():
    mm, _ = machine(ScanPhase.FINISH)
    ends = events_of(mm, MmCompactionEnd)

    def body():
        mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT)
        return [CompactResult(end.status) for end in ends], zone_field(mm, pg.Z_DEFER_SHIFT)

    assert run(mm, body) == ([CompactResult.SUCCESS], 0)


def test_what_another_task_frees_meanwhile_is_not_captured():
    mm, pool = machine(ScanPhase.ENTRY)
    other_blocks, pool.blocks = pool.blocks, []

    class Sleeper(Pool):
        @hookimpl
        def compaction_scan(self, cs: CompactionScan) -> int:
            mm.sched.sleep(2_000_000)
            return 0

    mm.register_shrinker(Sleeper(mm, other_blocks[0]), "sleeper")

    def other():
        mm.sched.sleep(1_000_000)
        for pfn in other_blocks:
            mm.free_pages(pfn, 8)

    mm.sched.spawn(other, name="other", daemon=True)
    seen = run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.ASYNC))
    assert seen[1] == -1
    memory = mm.pgdat.memory
    free = [int(p) for mt in range(3) for p in memory.list_pfns(memory.free_head(1, 9, mt))]
    assert other_blocks[0] in free


def test_after_each_pageblock_the_shrinkers_are_asked_for_that_one():
    mm, pool = machine(ScanPhase.PAGEBLOCK)
    pool.answer = 0
    run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
    assert len(pool.ranges) > 10
    assert all(hi - lo == 512 and hi % 512 == 0 for lo, hi in pool.ranges)
    # The migration scanner goes up through each zone; the lower zone comes last.
    rises = [after[0] > before[0] for before, after in pairwise(pool.ranges)]
    assert rises.count(False) <= 1


def test_who_holds_nothing_in_a_pageblock_is_not_asked_for_it():
    mm, pool = machine(ScanPhase.PAGEBLOCK)
    pool.holds = 0
    run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
    assert pool.scans == []
    mm, pool = machine(ScanPhase.FINISH)
    pool.holds = 0
    run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
    assert pool.scans


def test_one_that_says_stop_is_left_alone_for_the_rest_of_the_run():
    mm, pool = machine(ScanPhase.PAGEBLOCK)
    pool.answer = SHRINK_STOP
    ends = events_of(mm, MmCompactionEnd)
    run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
    assert 0 < len(pool.scans) <= len(ends)


def test_a_policy_that_does_not_care_for_pageblocks_is_asked_once():
    asked = []

    def plan(cc, at):
        asked.append(at)

    ops = MmOps(mmfw_plan_wakeup, mmfw_should_shrink_slab, plan_compaction_scan=plan)
    mm = make_mm("128M", ops=ops)
    fragment(mm, keep=16)
    take_large(mm, 9)
    mm.register_shrinker(Pool(mm, 0), "pool")
    mm.start_time()
    run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
    per_run = [len(list(group)) for at, group in groupby(asked) if at is ScanPhase.PAGEBLOCK]
    assert per_run
    assert set(per_run) == {1}


def test_only_blocks_that_keep_something_are_asked_about_and_only_while_somebody_would_answer():
    asked = []

    def plan(cc, at):
        if at is ScanPhase.PAGEBLOCK:
            asked.append(cc.migrate_pfn)
            return CompactionScan.of(cc, at, opportunistic=True)
        return None

    def asked_about(*, pool: bool, unmovable_every: int) -> list[int]:
        asked.clear()
        ops = MmOps(mmfw_plan_wakeup, mmfw_should_shrink_slab, plan_compaction_scan=plan)
        mm = make_mm("128M", ops=ops)
        fragment(mm, keep=16)
        take_large(mm, 9)
        memory = mm.pgdat.memory
        for pfn in range(memory.nr_pfns):
            word = int(memory.page[4 * pfn + pg.WORD])
            if word & pg.TYPE_MASK == pg.T_ALLOC and (pfn >> 9) % unmovable_every:
                memory.page[4 * pfn + pg.WORD] = word | pg.PG_MOVABLE_OPS
        if pool:
            shrinker = Pool(mm, 0)
            shrinker.answer = 0
            mm.register_shrinker(shrinker, "pool")
        mm.start_time()
        run(mm, lambda: mm.compaction.try_to_compact_pages(ORDER9, 9, 0, 1, CompactPriority.SYNC_LIGHT))
        return list(asked)

    everywhere = asked_about(pool=True, unmovable_every=1)
    in_some = asked_about(pool=True, unmovable_every=4)
    assert len(everywhere) > 10
    assert in_some
    assert {(pfn - 1 >> 9) % 4 for pfn in in_some} == {0}
    assert asked_about(pool=False, unmovable_every=1) == []


def list_of(mm, *shrinkers) -> ShrinkerList:
    """Shrinkers bound as mm binds them, each of a plugin of its own."""
    found = ShrinkerList(Tracepoints(), VmStat(mm.pgdat.memory))
    for plugin, shrinker in shrinkers:
        found.register_shrinker(bind_shrinker(shrinker, f"{plugin}-pool", plugin))
    return found


def a_scan(phase: ScanPhase) -> CompactionScan:
    pgdat = make_mm("128M").pgdat
    return CompactionScan(pgdat.node_zones[1], 0, 9, 512, 1024, 512, True, MigrateMode.ASYNC, 0, 0, phase)


@pytest.mark.parametrize("method", ["compaction_scan", "compaction_holds"])
@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("nr_to_free", None, "set nr_to_free to None, which says what is asked (it was 512)"),
        ("pfn_hi", 2048, "set pfn_hi to 2048, which says what is asked (it was 1024)"),
        ("opportunistic", 1, "set opportunistic to 1, which says what is asked (it was True)"),
        ("order", np.arange(2), "set order to array([0, 1]), which says what is asked (it was 9)"),
        ("attached", 5, "set attached to 5, which says what is asked (it was None)"),
    ],
)
def test_who_changes_what_is_asked_is_blamed(method, field, value, shown):
    class Changes(Pool):
        def change(self, cs):
            setattr(cs, field, value)
            return 1

        @hookimpl
        def compaction_scan(self, cs):
            return self.change(cs) if method == "compaction_scan" else 0

        @hookimpl
        def compaction_holds(self, cs):
            return self.change(cs) if method == "compaction_holds" else 1

    mm = make_mm("128M")
    first, last = Pool(mm, 0), Pool(mm, 0)
    first.answer = last.answer = 0
    shrinkers = list_of(mm, ("first", first), ("changer", Changes(mm, 0)), ("last", last))
    with pytest.raises(PluginError) as blamed:
        shrinkers.compaction_scan(a_scan(ScanPhase.PAGEBLOCK), set())
    assert str(blamed.value).startswith(f"plugin changer, changer-pool.{method}: {shown}")
    assert (len(first.scans), len(last.scans)) == (1, 0)


def test_a_callee_may_attach_and_count_what_it_looked_at():
    class Note:
        pass

    class Attaches(Pool):
        @hookimpl
        def compaction_scan(self, cs):
            attach(cs, Note())
            cs.nr_scanned = 7
            cs.pfn_lo = int(str(cs.pfn_lo))
            return 0

    mm = make_mm("128M")
    scan = a_scan(ScanPhase.FINISH)
    assert list_of(mm, ("one", Attaches(mm, 0)), ("two", Attaches(mm, 0))).compaction_scan(scan, set()) == 0
    assert attachment(scan, Note) is not None
    assert scan.nr_scanned == 7
