"""The pool itself: free blocks by caching and order (drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw_ttm_pool.kernels import TTM_KERNELS
from mmfw_ttm_pool.tt import Caching, Pfns

if TYPE_CHECKING:
    from mmfw import Mm

NR_PAGE_ORDERS: Final = 11
#: Caching classes that have global pools on x86; cached pages go straight back to the page allocator.
POOLED: Final = (Caching.WRITE_COMBINED, Caching.UNCACHED)


class PoolType:
    """Free blocks of one caching class and order (``struct ttm_pool_type``).

    Attributes
    ----------
    caching : Caching
        How the pages are mapped.
    dma32 : bool
        Whether they lie below 4 GiB.
    order : int
        Order of each block.
    nr_blocks : int
        Blocks held.
    """

    __slots__ = ("_chunks", "_lifo", "caching", "dma32", "nr_blocks", "order")

    def __init__(self, caching: Caching, dma32: bool, order: int, *, lifo: bool) -> None:
        self.caching = caching
        self.dma32 = dma32
        self.order = order
        self.nr_blocks = 0
        self._lifo = lifo
        self._chunks: deque[Pfns] = deque()

    def add(self, pfns: Pfns) -> None:
        """Put blocks on the list, one after the other."""
        if len(pfns):
            self._chunks.append(pfns)
            self.nr_blocks += len(pfns)

    def remove(self, n: int) -> Pfns:
        """Take up to n blocks: the oldest in 7.x (a ``list_lru``), the youngest in 6.1 (a plain list)."""
        taken: list[Pfns] = []
        wanted = min(n, self.nr_blocks)
        self.nr_blocks -= wanted
        while wanted:
            chunk = self._chunks.pop() if self._lifo else self._chunks.popleft()
            if self._lifo:
                part, rest = chunk[::-1][:wanted], chunk[: max(0, len(chunk) - wanted)]
            else:
                part, rest = chunk[:wanted], chunk[wanted:]
            taken.append(part)
            wanted -= len(part)
            if len(rest):
                (self._chunks.append if self._lifo else self._chunks.appendleft)(rest)
        return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)


class TtmPool:
    """The global pools of one machine, for devices without the DMA-coherent API (``struct ttm_pool``).

    Parameters
    ----------
    mm : Mm
        Whose pages.
    page_pool_size : int
        Most pages that the pools keep (module parameter of ttm); half of RAM by default.
    beneficial_order : int
        Above it a request does without direct reclaim; 0 for none.
    gfp_hook : callable
        Caller of ``ttm_pool_gfp_mask``; answers None or a mask.

    Attributes
    ----------
    allocated_pages : int
        Pages in all pools.
    """

    def __init__(
        self,
        mm: Mm,
        page_pool_size: int,
        beneficial_order: int,
        gfp_hook: Callable[[TtmPool, int, int], int | None],
    ) -> None:
        self.mm = mm
        self.page_pool_size = page_pool_size
        self.beneficial_order = beneficial_order
        self.allocated_pages = 0
        self.rules = TTM_KERNELS[mm.kernel]
        self._gfp_hook = gfp_hook
        self._types: dict[tuple[Caching, bool, int], PoolType] = {}
        # ttm_pool_mgr_init(): order by order, both caching classes, then both of DMA32.
        for order in range(NR_PAGE_ORDERS):
            for dma32 in (False, True):
                for caching in POOLED:
                    self._types[caching, dma32, order] = PoolType(caching, dma32, order, lifo=self.rules.lifo)
        self._shrinker_list = deque(self._types.values())

    def ask_gfp_mask(self, order: int, flags: int) -> int:
        """Mask of a system allocation: a policy's answer to ``ttm_pool_gfp_mask``, else `flags`."""
        answer = self._gfp_hook(self, order, flags)
        return flags if answer is None else answer

    def select_type(self, caching: Caching, dma32: bool, order: int) -> PoolType | None:
        """Pool of a class and order; None for cached pages, which have none (``ttm_pool_select_type()``)."""
        return self._types.get((caching, dma32, order))

    def give(self, pt: PoolType, pfns: Pfns) -> None:
        """Zero blocks and keep them (``ttm_pool_type_give()``)."""
        pages = len(pfns) << pt.order
        self.mm.charge(pages * self.mm.sched.costs.zero_page, "ttm pool zero")
        pt.add(pfns)
        self.allocated_pages += pages

    def take(self, pt: PoolType, n: int) -> Pfns:
        """Take up to n blocks out (``ttm_pool_type_take()``)."""
        pfns = pt.remove(n)
        self.allocated_pages -= len(pfns) << pt.order
        return pfns

    def shrink(self, num_to_free: int) -> int:
        """Visit the next pool type and free blocks of it (``ttm_pool_shrink()``).

        The type goes to the end of the round. 6.1 frees one block. In 7.x `num_to_free` counts list
        items, not pages, so a visit may free that many blocks of the type's order.

        Returns
        -------
        int
            Pages freed; 0 if the type was empty.
        """
        pt = self._shrinker_list[0]
        self._shrinker_list.rotate(-1)
        # Off the lists and the count before the first charge: another task may come meanwhile.
        pfns = self.take(pt, 1 if self.rules.shrinks_one_block else num_to_free)
        self.mm.free_pages_batch(pfns, pt.order)
        return len(pfns) << pt.order

    def enforce_limit(self) -> None:
        """Shrink while the pools hold more than `page_pool_size` (end of ``ttm_pool_free()``)."""
        while self.allocated_pages > self.page_pool_size:
            self.shrink(self.allocated_pages - self.page_pool_size)

    def free_all(self) -> None:
        """Free every block (``ttm_pool_mgr_fini()``)."""
        for pt in self._types.values():
            self.mm.free_pages_batch(self.take(pt, pt.nr_blocks), pt.order)
