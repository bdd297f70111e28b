"""Checks a machine's memory against what must always hold: the simulator's CONFIG_DEBUG_VM.

Slow (it walks every list), so it runs where it is asked for: ``mmfw run --sanitize``, and tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import MmfwError
from mmfw.jit import page as pg
from mmfw.mm.pages import Memory
from mmfw.state import (
    MAX_ORDER,
    MIGRATE_TYPES,
    MIGRATETYPE_NAMES,
    NR_PCP_LISTS,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    MigrateType,
    NodeState,
    ZoneState,
)


class CorruptMemory(MmfwError):
    """An invariant of the allocator does not hold; a fault of mmfw, not of a plugin."""

    exit_status = 3


def owned_pages(memory: Memory) -> int:
    """Pages in allocated blocks."""
    words = memory.page[pg.WORD : 4 * memory.nr_pfns : 4]
    heads = words[(words & pg.TYPE_MASK) == pg.T_ALLOC]
    return int((1 << (heads & pg.ORDER_MASK).astype(np.int64)).sum())


def check_memory(memory: Memory, total: int | None = None) -> int:
    """Check every invariant.

    Parameters
    ----------
    memory : Memory
        What to check.
    total : int, optional
        What an earlier call returned: free, on per-CPU lists and owned pages together; must not change.

    Returns
    -------
    int
        That total now.

    Raises
    ------
    CorruptMemory
        An invariant is broken; says which, and where.
    """
    state = memory.node_state()
    seen = np.zeros(memory.nr_pfns, dtype=np.bool_)
    now = owned_pages(memory)
    for zone in state.zones:
        now += _check_zone(memory, state, zone, seen)
    _check_words(memory, seen)
    if total is not None and now != total:
        raise CorruptMemory(f"{total} pages were free, cached or owned, {now} are")
    return now


def _cover(seen: NDArray[np.bool_], pfns: NDArray[np.int64], order: int, where: str, zone: ZoneState) -> None:
    if len(pfns) == 0:
        return
    if (pfns & ((1 << order) - 1)).any():
        raise CorruptMemory(f"{where}: a block is not aligned to its order")
    if pfns.min() < zone.start_pfn or pfns.max() + (1 << order) > zone.end_pfn:
        raise CorruptMemory(f"{where}: a block lies outside zone {zone.name}")
    pages = (pfns[:, None] + np.arange(1 << order)[None, :]).ravel()
    if seen[pages].any() or len(np.unique(pages)) != len(pages):
        raise CorruptMemory(f"{where}: a page is on two lists")
    seen[pages] = True


def _check_zone(memory: Memory, state: NodeState, zone: ZoneState, seen: NDArray[np.bool_]) -> int:
    free = isolated = 0
    for order in range(MAX_ORDER):
        lists = zone.free_lists[order]
        if int(zone.nr_free[order]) != sum(len(pfns) for pfns in lists):
            raise CorruptMemory(
                f"zone {zone.name} order {order}: nr_free is {int(zone.nr_free[order])}, "
                f"the lists hold {sum(len(pfns) for pfns in lists)} blocks"
            )
        for mt in range(MIGRATE_TYPES):
            where = f"zone {zone.name} free_area[{order}].{MIGRATETYPE_NAMES[mt]}"
            _cover(seen, lists[mt], order, where, zone)
            words = memory.page[4 * lists[mt] + pg.WORD]
            if ((words & (pg.TYPE_MASK | pg.ORDER_MASK)) != (pg.T_BUDDY | order)).any():
                raise CorruptMemory(f"{where}: an entry is not marked as a free block of this order")
            free += len(lists[mt]) << order
            isolated += (len(lists[mt]) << order) if mt == MigrateType.ISOLATE else 0
        _check_merged(zone, order, np.concatenate(lists))
    counted = zone.vm_free + sum(zone.vm_free_cpu_diff)
    if counted != free - isolated:
        raise CorruptMemory(f"zone {zone.name}: NR_FREE_PAGES is {counted}, the lists hold {free - isolated}")
    cached = 0
    for cpu, pcp in enumerate(zone.pcp):
        pages = 0
        for pindex in range(NR_PCP_LISTS):
            order = pindex // 3 if pindex < 12 else PAGEBLOCK_ORDER
            pfns = pcp.lists[pindex][0]
            _cover(seen, pfns, order, f"zone {zone.name} cpu {cpu} pcp list {pindex}", zone)
            pages += len(pfns) << order
        if pages != pcp.count:
            raise CorruptMemory(
                f"zone {zone.name} cpu {cpu}: pcp count is {pcp.count}, the lists hold {pages} pages"
            )
        cached += pages
    reserved = int((zone.pageblock_mt == MigrateType.HIGHATOMIC).sum()) * PAGEBLOCK_NR_PAGES
    if zone.nr_reserved_highatomic != reserved:
        raise CorruptMemory(
            f"zone {zone.name}: nr_reserved_highatomic is {zone.nr_reserved_highatomic}, "
            f"HighAtomic pageblocks hold {reserved} pages"
        )
    return free + cached


def _check_merged(zone: ZoneState, order: int, pfns: NDArray[np.int64]) -> None:
    """No two buddies of one order are both free, unless their types forbid the merge."""
    if order == MAX_ORDER - 1 or len(pfns) < 2:
        return
    ordered = np.sort(pfns)
    pairs = ordered[:-1][np.diff(ordered) == 1 << order]
    pairs = pairs[(pairs >> order & 1) == 0]
    if order >= PAGEBLOCK_ORDER:
        first = zone.start_pfn >> PAGEBLOCK_ORDER
        a = zone.pageblock_mt[(pairs >> PAGEBLOCK_ORDER) - first]
        b = zone.pageblock_mt[((pairs + (1 << order)) >> PAGEBLOCK_ORDER) - first]
        mergeable = (a == b) | ((a < MigrateType.HIGHATOMIC) & (b < MigrateType.HIGHATOMIC))
        pairs = pairs[mergeable]
    if len(pairs):
        raise CorruptMemory(
            f"zone {zone.name}: pfns {int(pairs[0]):#x} and {int(pairs[0]) + (1 << order):#x} are free buddies "
            f"of order {order} and not merged"
        )


def _check_words(memory: Memory, seen: NDArray[np.bool_]) -> None:
    """Pages marked as list entries are on a list, and allocated blocks on none."""
    kinds = memory.page[pg.WORD : 4 * memory.nr_pfns : 4] & pg.TYPE_MASK
    stray = np.nonzero(((kinds == pg.T_BUDDY) | (kinds == pg.T_PCP)) & ~seen)[0]
    if len(stray):
        raise CorruptMemory(f"pfn {int(stray[0]):#x} is marked as a list's entry and is on no list")
    both = np.nonzero((kinds == pg.T_ALLOC) & seen)[0]
    if len(both):
        raise CorruptMemory(f"pfn {int(both[0]):#x} is allocated and lies in a free block")
