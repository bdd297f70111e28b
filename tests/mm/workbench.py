"""What the tests of this folder share: filling and fragmenting memory, running a body as a task, events by type."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmfw import gfp
from mmfw.jit import lru as jit_lru
from mmfw.jit import page as pg
from mmfw.mm.core import Mm
from mmfw.testing import make_mm, recorded
from mmfw.types import DEF_PRIORITY, ScanControl

MSEC = 1_000_000
SEC = 1_000_000_000
#: A kernel request that takes what is free and asks nobody for more.
QUIET = gfp.GFP_KERNEL & ~gfp.RECLAIM | gfp.NOWARN
MOVABLE = gfp.GFP_HIGHUSER_MOVABLE & ~gfp.RECLAIM | gfp.NOWARN
DMA32 = 1


def unboosted(machine: str = "128M", **options) -> Mm:
    """A machine whose watermarks are never boosted (``vm.watermark_boost_factor`` 0)."""
    mm = make_mm(machine, **options)
    mm.pgdat.memory.S[pg.S_BOOST_FACTOR] = 0
    return mm


def run(mm: Mm, body, ns: int = SEC, name: str = "client"):
    """Run ``body`` as a task for so long; what it returned."""
    task = mm.sched.spawn(body, name=name, daemon=True)
    mm.sched.run(mm.sched.now + ns)
    assert task.state.name == "DEAD", f"{name} has not ended after {ns} ns"
    return task.result


def fill(mm: Mm, leave: int = 0, mask: int = QUIET):
    """Take order-0 pages until so many are free, or the watermarks stop it; the CPUs' lists are empty then."""
    mm.drain_all_pages()
    taken = mm.alloc_pages_batch(mask, 0, max(0, mm.global_free_pages() - leave))
    mm.drain_all_pages()
    return taken


def take_large(mm: Mm, order: int, mask: int = QUIET) -> list[int]:
    """Take every block from an order on up."""
    taken = []
    for each in range(10, order - 1, -1):
        while (pfn := mm.alloc_pages(mask | gfp.MEMALLOC, each)) >= 0:
            taken.append(pfn)
    return taken


def fragment(mm: Mm, keep: int, leave: int = 400, mask: int = QUIET):
    """Fill memory, then free all but the pages whose pfn is a multiple of ``keep``; drains; the pages kept."""
    held = fill(mm, leave, mask)
    mm.free_pages_batch(held[held % keep != 0], 0)
    mm.drain_all_pages()
    return held[held % keep == 0]


def scan_control(**changes) -> ScanControl:
    """A pass of direct reclaim at priority 12 for order 0, with what is given changed."""
    sc = ScanControl(
        nr_to_reclaim=32,
        order=0,
        priority=DEF_PRIORITY,
        reclaim_idx=2,
        gfp_mask=gfp.GFP_KERNEL,
        may_writepage=True,
        may_unmap=True,
        may_swap=True,
    )
    return dataclasses.replace(sc, **changes)


def events_of(mm: Mm, *kinds: type):
    """A list that events of these kinds are appended to from now on."""
    if not kinds:
        return recorded(mm)
    events: list = []
    for kind in kinds:
        mm.trace.subscribe(kind, events.append)
    return events


def grown(mm: Mm, before: dict[str, int]) -> dict[str, int]:
    """Counters that changed since ``before = mm.vmstat.as_dict()``, and by how much."""
    return {name: n - before[name] for name, n in mm.vmstat.as_dict().items() if n != before[name]}


def word(mm: Mm, pfn: int) -> int:
    """A page's word."""
    return int(mm.pgdat.memory.page[4 * pfn + pg.WORD])


def set_word(mm: Mm, pfns, on: int = 0, off: int = 0) -> None:
    """Set and clear flags of pages."""
    for pfn in np.atleast_1d(pfns):
        at = 4 * int(pfn) + pg.WORD
        mm.pgdat.memory.page[at] = (int(mm.pgdat.memory.page[at]) | on) & ~off & 0xFFFFFFFF


def pin_all(mm: Mm) -> None:
    """Pin every page that is on the LRU, so that nothing can be moved or reclaimed."""
    for which in range(pg.NR_LRU_LISTS):
        set_word(mm, lru(mm, which), on=pg.PG_PINNED)


def old_mapping(mm: Mm, n: int):
    """A mapping of n pages that were not touched for long, oldest first at the inactive tail; it, and its pages."""
    vma = mm.mmap_anonymous(n)
    vma.touch(0, n)
    memory = mm.pgdat.memory
    pfns = [int(p) for p in vma.pfns()]
    set_word(mm, pfns, off=pg.PTE_YOUNG)
    to_tail(mm, reversed(pfns))
    assert memory.list_pfns(memory.owner_head(pg.LRU_INACTIVE_ANON))[::-1][: len(pfns)].tolist() == pfns
    return vma, pfns


def to_tail(mm: Mm, pfns) -> None:
    """Move folios to the tail of their lists, one after another."""
    memory = mm.pgdat.memory
    for pfn in pfns:
        jit_lru.lru_del(memory.page, memory.pb, memory.S, int(pfn))
        jit_lru.lru_add(memory.page, memory.pb, memory.S, int(pfn), jit_lru.TO_TAIL)


def scan(mm: Mm, n: int, which: int = pg.LRU_INACTIVE_ANON, **changes) -> int:
    """One batch of an inactive list, as kswapd scans it; pages reclaimed."""
    return mm._vmscan.lru_scan.shrink_inactive_list(which, n, scan_control(**changes), kswapd=True)


def lru(mm: Mm, which: int) -> list[int]:
    """Pages of an LRU list, head (newest) first."""
    memory = mm.pgdat.memory
    return [int(pfn) for pfn in memory.list_pfns(memory.owner_head(which))]


def file_pfns(mm: Mm, file) -> list[int]:
    """Where a file's pages are, by index; -1 for one that is absent."""
    words = mm.rmap.part(file.base_slot, file.nr_pages)
    return [int(each) if each < pg.SLOT_SHADOW else -1 for each in words]


def free_area(mm: Mm, order: int, migratetype: int, zone: int = DMA32) -> list[int]:
    """Free blocks of an order and type, list head first."""
    memory = mm.pgdat.memory
    return [int(pfn) for pfn in memory.list_pfns(memory.free_head(zone, order, migratetype))]


def zone_field(mm: Mm, at: int, zone: int = DMA32) -> int:
    """A field of a zone's row."""
    memory = mm.pgdat.memory
    return int(memory.S[memory.zone_offset(zone) + at])


def set_zone_field(mm: Mm, at: int, value: int, zone: int = DMA32) -> None:
    """Set a field of a zone's row."""
    memory = mm.pgdat.memory
    memory.S[memory.zone_offset(zone) + at] = value
