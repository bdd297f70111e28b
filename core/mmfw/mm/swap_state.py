"""Anonymous pages back from the swap device: readahead and the swap cache (mm/swap_state.c, mm/memory.c of 6.1).

Pages are read ahead by address (``swap_vma_readahead()``), as for a device that does not rotate. What is read ahead
goes to the swap cache and is not mapped; a touch of it is a minor fault. A page that is mapped for writing gives its slot
on the device back, unless it is being written. Every touch is taken for a write. Not modelled: giving slots back early
where swap is more than half full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.gfp import GFP_HIGHUSER_MOVABLE
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent
from mmfw.state import PAGEBLOCK_NR_PAGES

if TYPE_CHECKING:
    from mmfw.mm.memory import Vma

SWAP_RA_HITS_MAX: Final = 63
SWAP_RA_ORDER_CEILING: Final = 5


@dataclass(slots=True)
class SwapReadahead:
    """``vma->swap_readahead_info``.

    Attributes
    ----------
    index : int
        Page that faulted last, -2 for none.
    win : int
        Window of the last read.
    hits : int
        Pages of it that were touched since. A mapping begins with 4, so its first window is the largest.
    """

    index: int = -2
    win: int = 0
    hits: int = 4


def swapin_nr_pages(prev_index: int, index: int, hits: int, max_pages: int, prev_win: int) -> int:
    """How many pages to read (``__swapin_nr_pages()``).

    Examples
    --------
    The first fault; one elsewhere after it; one next to another without a hit; one after three hits:

    >>> [swapin_nr_pages(*a, 8, w) for *a, w in ((-2, 100, 4, 0), (100, 500, 0, 8), (500, 501, 0, 1), (9, 12, 3, 2))]
    [8, 4, 2, 8]
    """
    pages = hits + 2
    if pages == 2:
        if abs(index - prev_index) != 1:
            pages = 1
    else:
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, max_pages), prev_win // 2)


def swap_ra_info(ra: SwapReadahead, index: int, nr_pages: int, page_cluster: int) -> tuple[int, int]:
    """First page and end of the window of a fault (``swap_ra_info()``): ahead, behind or around it, within 2 MiB.

    The largest window is two to the power of ``vm.page-cluster``; with 0 nothing is read ahead.
    """
    max_pages = 1 << min(page_cluster, SWAP_RA_ORDER_CEILING)
    if max_pages == 1:
        return index, index + 1
    prev = ra.index
    win = swapin_nr_pages(prev, index, ra.hits, max_pages, ra.win)
    ra.index, ra.win, ra.hits = index, win, 0
    if win == 1:
        return index, index + 1
    if index == prev + 1:
        first = index
    elif prev == index + 1:
        first = index - win + 1
    else:
        first = index - (win - 1) // 2
    table = index // PAGEBLOCK_NR_PAGES * PAGEBLOCK_NR_PAGES
    return max(first, 0, table), min(first + win, nr_pages, table + PAGEBLOCK_NR_PAGES)


def do_swap_page(vma: Vma, index: int) -> bool:
    """Fault a page in that is on the device or in the swap cache only; False if it is not to be had (``do_swap_page()``).

    While the page is read or written by somebody who locked it, the fault is given up and begun anew, and counted anew.
    """
    mm = vma.mm
    _count_fault(vma)
    word = int(vma.words()[index])
    if word >= pg.SLOT_SHADOW:
        if word == pg.SLOT_EMPTY or not _read_in(vma, index):
            return False
        mm.vmstat.count(VmEvent.pgmajfault)
    if mm.wait_locked(vma, index):
        _count_fault(vma)
    word = int(vma.words()[index])
    if word >= pg.SLOT_SHADOW:
        # Reclaim took it again, or the mapping is gone.
        return word != pg.SLOT_EMPTY and not vma.dead and do_swap_page(vma, index)
    if mm.lruvec.map_swapcache(vma.base_slot + index):
        vma.swap_ra.hits = min(vma.swap_ra.hits + 1, SWAP_RA_HITS_MAX)
        mm.vmstat.count(VmEvent.swap_ra_hit)
    vma.swap_ra.index = index
    return True


def _count_fault(vma: Vma) -> None:
    vma.mm.vmstat.count(VmEvent.pgfault)
    vma.mm.context.charge(vma.mm.costs.page_fault, "page fault")


def _read_in(vma: Vma, index: int) -> bool:
    """Read a page and its window into the swap cache (``swap_vma_readahead()``); whether the page is there."""
    first, end = swap_ra_info(vma.swap_ra, index, vma.nr_pages, vma.mm.page_cluster)
    window = np.arange(first, end, dtype=np.int64)
    _read(vma, window, index)
    if vma.words()[index] >= pg.SLOT_SHADOW and not vma.dead:
        _read(vma, np.array([index], dtype=np.int64), index)
    return bool(vma.words()[index] < pg.SLOT_SHADOW)


def _read(vma: Vma, window: np.ndarray[tuple[int], np.dtype[np.int64]], index: int) -> None:
    mm = vma.mm
    words = vma.words()[window]
    wanted = window[(words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY)]
    pfns = mm.allocator.alloc_pages_batch(GFP_HIGHUSER_MOVABLE, 0, len(wanted))
    wanted = wanted[: len(pfns)]
    # Others may have read or dropped the same pages while this task waited for memory.
    words = vma.words()[wanted]
    still = (words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY) & (not vma.dead)
    mm.allocator.free_pages_batch(pfns[~still], 0)
    wanted, pfns = wanted[still], pfns[still]
    if len(wanted) == 0:
        return
    asks_device = not mm.context.time_stands_still
    flags = pg.PG_SWAPBACKED | pg.PG_SWAPCACHE | (pg.PG_LOCKED if asks_device else 0)
    ahead = wanted != index
    slots = vma.base_slot + wanted
    mm.lruvec.insert(pfns, slots, flags=flags)
    mm.lruvec.set_flags(pfns[ahead], on=pg.PG_RECLAIM)
    mm.vmstat.count(VmEvent.pswpin, len(wanted))
    mm.vmstat.count(VmEvent.swap_ra, int(ahead.sum()))
    if asks_device:
        mm.swap_device.submit(len(wanted), lambda: mm.end_read(pfns))
