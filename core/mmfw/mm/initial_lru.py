"""Pages that the initial state says are on the LRU, made real: the initramfs of a freshly booted machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.jit import page as pg
from mmfw.jit.alloc import claim_pages
from mmfw.state import PAGEBLOCK_NR_PAGES, NodeState

if TYPE_CHECKING:
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.pages import Memory
    from mmfw.mm.rmap import RmapSpace


#: Of the pages that an idle kernel has on its LRU right after boot, those that were used again after they had been
#: unpacked, and so are active: 702 of 925 on machines of 256M to 16G.
_ACTIVE: Final = (702, 925)


class Initramfs:
    """Owner of the shmem pages that a machine starts with."""


def adopt_lru_pages(memory: Memory, state: NodeState, lruvec: Lruvec, rmap: RmapSpace) -> int:
    """Put a state's LRU pages on the LRU, as shmem pages that nobody uses.

    A state tells how many there are in each pageblock. Which pages they are, it may tell (`ZoneState.lru_pfns`); else
    they are taken to be the first allocated ones of their block. Of what kind they are it does not tell. Three in four
    are active on the captured kernels; which, is unknown: the first ones are taken.

    Returns
    -------
    int
        Pages adopted.
    """
    found = []
    for zone in state.zones:
        first_block = zone.start_pfn // PAGEBLOCK_NR_PAGES
        for block, count in zone.pageblock_lru.tolist():
            start = max((first_block + block) * PAGEBLOCK_NR_PAGES, zone.start_pfn)
            pfns = np.arange(start, min(start + PAGEBLOCK_NR_PAGES, zone.end_pfn), dtype=np.int64)
            words = memory.page[4 * pfns + pg.WORD]
            free = np.zeros(len(pfns), dtype=np.bool_)
            for at in np.flatnonzero(
                ((words & pg.TYPE_MASK) == pg.T_BUDDY) | ((words & pg.TYPE_MASK) == pg.T_PCP)
            ):
                free[at : at + (1 << int(words[at] & pg.ORDER_MASK))] = True
            taken = ~free & ((words & pg.TYPE_MASK) == pg.T_NONE)
            if zone.lru_pfns is not None:
                taken &= np.isin(pfns, zone.lru_pfns)
            found.append(pfns[taken][:count])
            memory.pb[first_block + block] &= np.uint32((1 << pg.PB_LRU_SHIFT) - 1)
    pfns = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    if len(pfns) == 0:
        return 0
    claim_pages(memory.page, memory.S, pfns)
    base = rmap.register(Initramfs(), len(pfns))
    slots = base + np.arange(len(pfns), dtype=np.int64)
    active = len(pfns) * _ACTIVE[0] // _ACTIVE[1]
    flags = pg.PG_SWAPBACKED | pg.PG_DIRTY
    lruvec.insert(pfns[:active], slots[:active], flags=flags | pg.PG_ACTIVE)
    lruvec.insert(pfns[active:], slots[active:], flags=flags)
    return len(pfns)
