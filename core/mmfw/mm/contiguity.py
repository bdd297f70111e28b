"""Which aligned blocks lack how much to be free: for those who could complete one (mm/page_alloc.c, mm/internal.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmfw.jit import page as pg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.mm.pages import Memory


def nr_buddy_pages(memory: Memory, pfns: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Pages of aligned blocks that lie in free blocks below their order (``PageBuddy()``, ``buddy_order()``).

    Pages on a CPU's own lists do not count: they have not merged with anything.

    Parameters
    ----------
    memory : Memory
        The machine's pages: ``mm.pgdat.memory``.
    pfns : int64[n]
        First pfns of blocks, aligned to their size; the machine must have all their pages.
    order : int
        Order of each block.

    Returns
    -------
    int64[n]
        Free pages of each, from 0 to ``1 << order``.
    """
    within = np.asarray(pfns, dtype=np.int64)[:, np.newaxis] + np.arange(1 << order, dtype=np.int64)
    words = memory.page[4 * within + pg.WORD]
    orders = (words & np.uint32(pg.ORDER_MASK)).astype(np.int64)
    free = ((words & np.uint32(pg.TYPE_MASK)) == np.uint32(pg.T_BUDDY)) & (orders < order)
    total: NDArray[np.int64] = np.where(free, np.left_shift(np.int64(1), orders), 0).sum(
        axis=1, dtype=np.int64
    )
    return total


def has_unmovable(memory: Memory, pfn: int) -> bool:
    """Whether a pageblock holds allocated pages that compaction cannot move: on no LRU list, nor its driver's to move.

    What begins before the pageblock is not seen.

    Parameters
    ----------
    memory : Memory
        The machine's pages.
    pfn : int
        First pfn of the pageblock.
    """
    words = memory.page[4 * pfn + pg.WORD : 4 * (pfn + pg.PB_PAGES) : 4]
    kinds = words & np.uint32(pg.TYPE_MASK | pg.PG_LRU | pg.PG_MOVABLE_OPS)
    return bool((kinds == np.uint32(pg.T_ALLOC)).any())
