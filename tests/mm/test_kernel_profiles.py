"""What later kernels do otherwise: each switch turns one rule, and 6.1 is what was validated."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

from mm.workbench import MOVABLE, events_of, file_pfns, fill, fragment, grown, pin_all, unboosted
from mmfw import InputError, gfp
from mmfw.jit import compact_control as cct
from mmfw.jit import page as pg
from mmfw.jit.compact_migrate import fast_find_migrateblock
from mmfw.kernels import KERNEL_6_1, KERNELS, kernel_profile
from mmfw.mm.compact_fields import load_control
from mmfw.mm.trace import MmVmscanDirectReclaimBegin
from mmfw.scenario import Scenario
from mmfw.types import CompactControl, MigrateMode

COSTLY = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'6\.6' is unknown; known: 6\.1, 7\.1, 7\.2"):
        kernel_profile("6.6")


def test_scenarios_may_name_the_same_profiles() -> None:
    assert get_args(Scenario.model_fields["kernel"].annotation) == tuple(KERNELS)


def test_later_profiles_differ_in_the_listed_switches_only() -> None:
    switches = [field.name for field in dataclasses.fields(KERNEL_6_1) if field.name != "name"]
    assert all(getattr(KERNEL_6_1, name) for name in switches)
    assert not any(getattr(KERNELS[name], switch) for name in ("7.1", "7.2") for switch in switches)


@pytest.mark.parametrize(
    ("kernel", "mask", "rounds"),
    [("6.1", COSTLY, 0), ("7.1", COSTLY, 1), ("7.2", COSTLY, 1), ("7.1", COSTLY | gfp.THISNODE, 0)],
)
def test_a_costly_noretry_request_whose_compaction_is_skipped(kernel: str, mask: int, rounds: int) -> None:
    """6.1 gives up at once; from 7.0 on there is one round of reclaim, but not for ``__GFP_THISNODE``."""
    mm = unboosted(kernel=kernel)
    fill(mm, leave=200)
    begun = events_of(mm, MmVmscanDirectReclaimBegin)
    assert mm.alloc_pages(mask, 9) == -1
    assert len(begun) == rounds


@pytest.mark.parametrize(("kernel", "failures"), [("6.1", 0), ("7.1", 16)])
def test_progress_on_a_node_that_stays_unbalanced(kernel: str, failures: int) -> None:
    """6.1 revives a hopeless kswapd as soon as a page is reclaimed; 7.x only once the node is balanced."""
    mm = unboosted(kernel=kernel)
    mm.page_cache.open(400).read(0, 400)
    fill(mm)
    mm.pgdat.kswapd_failures = 16
    begun = events_of(mm, MmVmscanDirectReclaimBegin)
    mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 2)
    assert len(begun) == 1
    assert mm.vmstat.as_dict()["pgsteal_direct"] > 0
    assert mm.pgdat.kswapd_failures == failures


@pytest.mark.parametrize(("kernel", "taken_of_a_block"), [("6.1", 32), ("7.1", 512)])
def test_a_block_in_which_a_page_did_not_move(kernel: str, taken_of_a_block: int) -> None:
    """6.1 leaves the rest of the chunk, here the whole block, alone; since 6.3 the block is scanned to its end first."""
    mm = unboosted(kernel=kernel)
    file = mm.page_cache.open(8000)
    file.read(0, 8000)
    pin_all(mm)
    fragment(mm, 4, mask=MOVABLE)
    before = mm.vmstat.as_dict()
    assert mm.alloc_pages(gfp.GFP_HIGHUSER_MOVABLE | gfp.NORETRY | gfp.NOWARN, 9) == -1
    nr_blocks = int((np.bincount(np.array(file_pfns(mm, file)) >> 9) == 512).sum())
    # Blocks that are the file's in part add to it; none is taken twice.
    assert nr_blocks <= grown(mm, before)["compact_isolated"] // taken_of_a_block < 2 * nr_blocks


@pytest.mark.parametrize(("kernel", "marked"), [("6.1", True), ("7.1", False)])
def test_the_block_that_fast_find_chooses(kernel: str, marked: bool) -> None:
    """6.1 marks it as skipped before it is scanned, and so never scans it."""
    mm = unboosted(kernel=kernel)
    memory, zone = mm.pgdat.memory, mm.pgdat.node_zones[1]
    held = fill(mm, mask=gfp.GFP_HIGHUSER_MOVABLE & ~gfp.RECLAIM | gfp.NOWARN)
    block = int(np.flatnonzero(np.bincount(held >> 9) == 512)[7])
    first = block << 9
    mm.free_pages_batch(np.intersect1d(held, np.arange(first, first + 256)), 0)
    mm.drain_all_pages()
    assert memory.S[memory.zone_offset(1) + pg.Z_NR_FREE + 8] == 1
    run = CompactControl(zone, 9, gfp.GFP_KERNEL, pg.MOVABLE, 0, 2, MigrateMode.SYNC_LIGHT, search_order=9)
    run.migrate_pfn, run.free_pfn = zone.zone_start_pfn, (zone.zone_end_pfn - 1) & -512
    cc = np.zeros(cct.CC_SIZE, dtype=np.int64)
    load_control(cc, run, 1, kernel_profile(kernel))
    assert fast_find_migrateblock(memory.page, memory.pb, memory.S, cc) == first
    assert bool(memory.pb[block] & pg.PB_SKIP) is marked
    # While a block is to be finished, later kernels choose no other.
    cc[cct.CC_RESCAN] = 1
    memory.pb[block] &= ~np.uint32(pg.PB_SKIP)
    cc[cct.CC_MIGRATE_PFN] = zone.zone_start_pfn
    chosen = fast_find_migrateblock(memory.page, memory.pb, memory.S, cc)
    assert chosen == (first if marked else zone.zone_start_pfn)
