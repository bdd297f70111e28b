from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.mm.trace import MmVmscanWakeupKswapd
from mmfw.testing import recorded
from mmfw_probe.fill import FILL_GFP, Fill


def test_mask_neither_reclaims_nor_wakes_nor_warns():
    assert not FILL_GFP & gfp.RECLAIM
    assert FILL_GFP & gfp.NOWARN
    assert FILL_GFP & (gfp.IO | gfp.FS) == gfp.IO | gfp.FS


@pytest.mark.parametrize("leave", [30_000, 15_000, 6_000])
def test_leaves_as_many_by_the_system_wide_count(machine, leave):
    mm = machine()
    fill = Fill(mm)
    fill.fill(leave)
    # The last refill of the per-CPU list may take a batch where one page was wanted.
    assert leave - 63 < mm.global_zone_free_pages() <= leave


def test_what_is_held_is_what_is_missing(machine, free_pages):
    mm = machine()
    before = free_pages(mm)
    fill = Fill(mm)
    fill.fill(20_000)
    assert free_pages(mm) == before - len(fill.pfns)
    assert len(np.unique(fill.pfns)) == len(fill.pfns)


def test_ends_at_the_watermarks_and_wakes_nobody(machine):
    mm = machine(start=True)
    events = recorded(mm)
    fill = Fill(mm)
    fill.fill(0)
    for zone in mm.pgdat.node_zones[:2]:
        lowest = zone.watermark[0] + zone.watermark_boost + zone.lowmem_reserve[1]
        assert lowest - 63 < zone.nr_free_pages <= lowest
    assert not [event for event in events if isinstance(event, MmVmscanWakeupKswapd)]


def test_limit_and_a_second_fill_goes_on(machine):
    mm = machine()
    fill = Fill(mm)
    fill.fill(0, limit=1500)
    first = fill.pfns
    assert len(first) == 1500
    fill.fill(0, limit=700)
    assert len(fill.pfns) == 2200
    assert (fill.pfns[:1500] == first).all()
    fill.fill(mm.global_zone_free_pages())
    assert len(fill.pfns) == 2200


def test_punch_gives_back_every_nth_in_the_order_of_allocation(machine, free_pages):
    mm = machine()
    fill = Fill(mm)
    fill.fill(0, limit=3001)
    held = fill.pfns.tolist()
    before = free_pages(mm)
    fill.punch(3)
    assert fill.pfns.tolist() == [pfn for place, pfn in enumerate(held, 1) if place % 3]
    assert free_pages(mm) == before + 1000


def test_punch_pfn_keeps_multiples_only(machine, free_pages):
    mm = machine()
    fill = Fill(mm)
    fill.fill(10_000)
    held = fill.pfns.tolist()
    before = free_pages(mm)
    fill.punch_pfn(16)
    kept = [pfn for pfn in held if not pfn % 16]
    assert fill.pfns.tolist() == kept
    assert len(kept) > 1000
    assert free_pages(mm) == before + len(held) - len(kept)


def test_a_page_kept_in_every_sixteenth_leaves_blocks_of_8_at_most(machine, free_pages):
    mm = machine()
    fill = Fill(mm)
    fill.fill(0)
    free_pages(mm)
    before = mm.buddyinfo()["DMA32"]
    fill.punch_pfn(16)
    free_pages(mm)
    after = mm.buddyinfo()["DMA32"]
    assert after[3] - before[3] > 2000
    # A block of 16 comes up only where the page that would be kept was never the fill's.
    assert sum(after[4:]) - sum(before[4:]) < 10


@pytest.mark.parametrize("punch", ["punch", "punch_pfn", None])
def test_fill_free_gives_everything_back(machine, free_pages, punch):
    mm = machine()
    before, blocks, owned = free_pages(mm), mm.buddyinfo(), mm.nr_allocated_pages()
    fill = Fill(mm)
    fill.fill(8000)
    if punch:
        getattr(fill, punch)(8)
    fill.fill_free()
    assert (free_pages(mm), mm.buddyinfo(), mm.nr_allocated_pages()) == (before, blocks, owned)
    assert len(fill.pfns) == 0
    fill.fill_free()
    assert free_pages(mm) == before
