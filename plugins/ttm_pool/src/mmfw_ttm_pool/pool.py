"""The pool itself: free blocks by caching and order (drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw_ttm_pool.kernels import TTM_KERNELS
from mmfw_ttm_pool.tt import BlockRun, Caching, Pfns

if TYPE_CHECKING:
    from mmfw import Mm

NR_PAGE_ORDERS: Final = 11
#: Under which name the pools' losses are booked in ``mm.ledger``.
LEDGER_NAME: Final = "ttm"
#: Caching classes that have global pools on x86; cached pages go straight back to the page allocator.
POOLED: Final = (Caching.WRITE_COMBINED, Caching.UNCACHED)


class Losses:
    """Blocks that a pool lost to reclaim and compaction, and that no object has wanted since.

    An object that finds the pool empty would have got the block lost last, had it not been lost; older losses
    are then still open. Losses beyond `limit` blocks are forgotten, oldest first: the pool could not have kept so many.
    """

    __slots__ = ("_open", "_total")

    def __init__(self) -> None:
        self._open: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, now: int, nr_blocks: int, limit: int) -> None:
        """Note blocks lost at a time, ns."""
        self._open.append((now, nr_blocks))
        self._total += nr_blocks
        while self._total > limit:
            lost_at, n = self._open.popleft()
            gone = min(n, self._total - limit)
            self._total -= gone
            if gone < n:
                self._open.appendleft((lost_at, n - gone))

    def claim(self, nr_blocks: int) -> Iterator[tuple[int, int]]:
        """Up to that many losses that an object has now missed, latest first: (time of the loss, blocks)."""
        while nr_blocks and self._open:
            lost_at, n = self._open.pop()
            found = min(n, nr_blocks)
            nr_blocks -= found
            self._total -= found
            if found < n:
                self._open.append((lost_at, n - found))
            yield lost_at, found


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
    lost : Losses
        What reclaim and compaction took out of it.
    """

    __slots__ = ("_chunks", "_lifo", "caching", "dma32", "lost", "nr_blocks", "order")

    def __init__(self, caching: Caching, dma32: bool, order: int, *, lifo: bool) -> None:
        self.caching = caching
        self.dma32 = dma32
        self.order = order
        self.nr_blocks = 0
        self.lost = Losses()
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

    def blocks(self) -> Pfns:
        """First pfns of all blocks, as they lie on the list."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._chunks])

    def remove_blocks(self, pfns: Pfns) -> None:
        """Take certain blocks out, wherever on the list they are; all of them must be on it."""
        kept = [chunk[~np.isin(chunk, pfns)] for chunk in self._chunks]
        self._chunks = deque(chunk for chunk in kept if len(chunk))
        self.nr_blocks -= len(pfns)


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
    asked_hook : callable
        Caller of ``ttm_pool_asked``.
    backup_native_order : bool
        Whether a backup frees blocks whole, as proposed, not page by page.

    Attributes
    ----------
    allocated_pages : int
        Pages in all pools.
    types : tuple of PoolType
        All pools, by rising order.
    """

    def __init__(
        self,
        mm: Mm,
        page_pool_size: int,
        beneficial_order: int,
        gfp_hook: Callable[[TtmPool, int, int], int | None],
        asked_hook: Callable[[TtmPool, int, int, int], object],
        *,
        backup_native_order: bool = False,
    ) -> None:
        self.mm = mm
        self.page_pool_size = page_pool_size
        self.beneficial_order = beneficial_order
        self.backup_native_order = backup_native_order
        self.allocated_pages = 0
        self.rules = TTM_KERNELS[mm.kernel]
        self._gfp_hook = gfp_hook
        self._asked_hook = asked_hook
        self._types: dict[tuple[Caching, bool, int], PoolType] = {}
        # ttm_pool_mgr_init(): order by order, both caching classes, then both of DMA32.
        for order in range(NR_PAGE_ORDERS):
            for dma32 in (False, True):
                for caching in POOLED:
                    self._types[caching, dma32, order] = PoolType(caching, dma32, order, lifo=self.rules.lifo)
        self._shrinker_list = deque(self._types.values())
        self._ladders: dict[tuple[Caching, bool], tuple[PoolType | None, ...]] = {}

    @property
    def types(self) -> tuple[PoolType, ...]:
        """All pools, by rising order."""
        return tuple(self._types.values())

    def ask_gfp_mask(self, order: int, flags: int) -> int:
        """Mask of a system allocation: a policy's answer to ``ttm_pool_gfp_mask``, else `flags`."""
        answer = self._gfp_hook(self, order, flags)
        return flags if answer is None else answer

    def asked(self, order: int, nr_wanted: int, nr_got: int) -> None:
        """Tell policies what became of system allocations (``ttm_pool_asked``)."""
        self._asked_hook(self, order, nr_wanted, nr_got)

    def select_type(self, caching: Caching, dma32: bool, order: int) -> PoolType | None:
        """Pool of a class and order; None for cached pages, which have none (``ttm_pool_select_type()``)."""
        return self._types.get((caching, dma32, order))

    def ladder(self, caching: Caching, dma32: bool) -> tuple[PoolType | None, ...]:
        """Pools of a class by order, as `select_type` says."""
        found = self._ladders.get((caching, dma32))
        if found is None:
            found = tuple(self.select_type(caching, dma32, order) for order in range(NR_PAGE_ORDERS))
            self._ladders[caching, dma32] = found
        return found

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

    def missed(self, pt: PoolType, nr_blocks: int) -> None:
        """Tell the ledger that an object got blocks from the system which reclaim had taken out of its pool."""
        now = self.mm.sched.now
        for lost_at, n in pt.lost.claim(nr_blocks):
            self.mm.ledger.recreated(LEDGER_NAME, nr_objects=n, nr_pages=n << pt.order, age_ns=now - lost_at)

    def give_up(self, pt: PoolType, pfns: Pfns) -> int:
        """Free certain pooled blocks for reclaim or compaction; pages freed."""
        if not len(pfns):
            return 0
        pt.remove_blocks(pfns)
        self.allocated_pages -= len(pfns) << pt.order
        return self._lose(pt, pfns)

    def _lose(self, pt: PoolType, pfns: Pfns) -> int:
        """Free blocks that are off the list, and have the ledger know; pages freed."""
        if not len(pfns):
            return 0
        run = BlockRun(pt.order, pfns)
        pt.lost.add(self.mm.sched.now, len(pfns), self.page_pool_size >> pt.order)
        self.mm.ledger.evicted(
            LEDGER_NAME, nr_objects=len(pfns), nr_pages=run.nr_pages, blocks=[(pt.order, pfns)]
        )
        self.mm.free_pages_batch(pfns, pt.order)
        return run.nr_pages

    def shrink(self, num_to_free: int, *, reclaim: bool = True) -> int:
        """Visit the next pool type and free blocks of it (``ttm_pool_shrink()``).

        The type goes to the end of the round. 6.1 frees one block. In 7.x `num_to_free` counts list
        items, not pages, so a visit may free that many blocks of the type's order.

        Parameters
        ----------
        num_to_free : int
            See above.
        reclaim : bool
            Whether reclaim asks, so that what goes is a loss; the pools' own limit is none.

        Returns
        -------
        int
            Pages freed; 0 if the type was empty.
        """
        pt = self._shrinker_list[0]
        self._shrinker_list.rotate(-1)
        # Off the lists and the count before the first charge: another task may come meanwhile.
        pfns = self.take(pt, 1 if self.rules.shrinks_one_block else num_to_free)
        if reclaim:
            return self._lose(pt, pfns)
        self.mm.free_pages_batch(pfns, pt.order)
        return len(pfns) << pt.order

    def enforce_limit(self) -> None:
        """Shrink while the pools hold more than `page_pool_size` (end of ``ttm_pool_free()``)."""
        while self.allocated_pages > self.page_pool_size:
            self.shrink(self.allocated_pages - self.page_pool_size, reclaim=False)

    def free_all(self) -> None:
        """Free every block (``ttm_pool_mgr_fini()``)."""
        for pt in self._types.values():
            self.mm.free_pages_batch(self.take(pt, pt.nr_blocks), pt.order)
