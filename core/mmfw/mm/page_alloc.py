"""Allocation and freeing of pages: the slow path, and the door to the compiled fast path (mm/page_alloc.c of 6.1).

The slow path here has kswapd wake-ups, the watermark classes of 6.1.192, the highatomic reserve and a
round of direct reclaim. Compaction is not here yet: a request that would compact behaves as if every
zone were unsuitable for it (``COMPACT_SKIPPED``), so a costly ``__GFP_NORETRY`` request gives up
without direct reclaim and nothing is retried for compaction's sake. There is no OOM killer: a request
that may not fail raises `OutOfMemory`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import CallerError, MmfwError
from mmfw.gfp import GFP_BITS_MASK, GFP_MOVABLE_MASK, gfp_migratetype, gfp_zone, show_gfp_flags
from mmfw.jit import alloc as jit
from mmfw.jit import exchange as jit_exchange
from mmfw.jit import page as pg
from mmfw.jit.buddy import unreserve_highatomic_pageblock
from mmfw.mm.vmscan import MAX_RECLAIM_RETRIES, PAGE_ALLOC_COSTLY_ORDER
from mmfw.state import MAX_ORDER, ZoneType
from mmfw.types import WakeReason

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext
    from mmfw.mm.mmzone import PglistData
    from mmfw.mm.vmscan import Vmscan

PF_MEMALLOC: Final = 0x800
PF_MEMALLOC_NOFS: Final = 0x40000
PF_MEMALLOC_NOIO: Final = 0x80000

Pfns = NDArray[np.int64]


class BadPage(CallerError):
    """A page was freed that is not an allocated block of that order (``bad_page()``)."""


class OutOfMemory(MmfwError):
    """A request that may not fail found nothing to reclaim."""

    exit_status = 1


@dataclass(frozen=True, slots=True)
class _Request:
    """What ``prepare_alloc_pages()`` derives from a mask."""

    gfp_mask: int
    migratetype: int
    highest_zoneidx: int
    fast_flags: int
    slow_flags: int


class PageAllocator:
    """``alloc_pages()`` and ``__free_pages()`` of one node.

    Parameters
    ----------
    pgdat : PglistData
        The node and, behind it, the arrays.
    vmscan : Vmscan
        Whom the slow path wakes and reclaims with.
    context : ExecContext
        The running task and the clock.
    charge_alloc, charge_free : callable, optional
        Called with the number of blocks and their order after each request or batch; charge their cost.
    """

    def __init__(
        self,
        pgdat: PglistData,
        vmscan: Vmscan,
        context: ExecContext,
        charge_alloc: Callable[[int, int, bool], None] | None = None,
        charge_free: Callable[[int, int], None] | None = None,
    ) -> None:
        self.pgdat = pgdat
        self._vmscan = vmscan
        self._context = context
        self._memory = pgdat.memory
        self._node_row = 0
        self._charge_alloc = charge_alloc
        self._charge_free = charge_free
        self._requests: dict[tuple[int, int], _Request] = {}

    # --- allocation ---------------------------------------------------------------------------------

    def alloc_pages(self, gfp_mask: int, order: int) -> int:
        """Allocate 1 << order contiguous pages (``__alloc_pages()``).

        Parameters
        ----------
        gfp_mask : int
            ``__GFP_*`` bits.
        order : int
            0 to 10.

        Returns
        -------
        int
            First pfn, or -1 where the kernel returns NULL.

        Raises
        ------
        ValueError
            The mask has unknown bits or two zone selectors, or the order is negative.
        OutOfMemory
            ``__GFP_NOFAIL`` and nothing can be reclaimed.
        """
        if order >= MAX_ORDER:
            return -1
        request = self._request(gfp_mask, order)
        if gfp_mask & gfp.DIRECT_RECLAIM:
            self._context.might_sleep()  # might_alloc()
        pfn = self._get_page(request, order, request.fast_flags)
        slow = pfn < 0
        if slow:
            pfn = self._slowpath(request, order)
        self._trace_alloc(pfn, order, request)
        if self._charge_alloc is not None:
            self._charge_alloc(1, order, slow)
        return pfn

    def alloc_pages_batch(self, gfp_mask: int, order: int, count: int) -> Pfns:
        """Allocate many blocks of one order, exactly as a loop of `alloc_pages` would.

        Returns
        -------
        int64[n]
            First pfns in the order of allocation; fewer than ``count`` if one request failed.
        """
        out = np.empty(count, dtype=np.int64)
        got = 0
        request = self._request(gfp_mask, order)
        if order >= MAX_ORDER:
            return out[:0]
        if gfp_mask & gfp.DIRECT_RECLAIM:
            self._context.might_sleep()
        while got < count:
            status, upto = jit.alloc_batch(
                self._memory.page,
                self._memory.pb,
                self._memory.S,
                self._context.cpu,
                self._node_row,
                request.gfp_mask,
                order,
                request.migratetype,
                request.highest_zoneidx,
                request.fast_flags,
                out,
                got,
            )
            answered, got = upto - got, upto
            if self._charge_alloc is not None and answered:
                self._charge_alloc(answered, order, False)
            if status == jit.BATCH_BOOST_WAKE:
                self.wake_for_boost()
            elif status == jit.BATCH_TRACE_FULL:
                self._memory.flush_trace()
            elif status == jit.BATCH_SLOWPATH:
                pfn = self._slowpath(request, order)
                self._trace_alloc(pfn, order, request)
                if self._charge_alloc is not None:
                    self._charge_alloc(1, order, True)
                if pfn < 0:
                    break
                out[got] = pfn
                got += 1
        return out[:got]

    def _request(self, gfp_mask: int, order: int) -> _Request:
        scope = self._context.task_flags & (PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO)
        key = (gfp_mask, scope | (1 if order else 0))
        request = self._requests.get(key)
        if request is None:
            request = self._prepare_alloc_pages(gfp_mask, order, scope)
            self._requests[key] = request
        return request

    def _prepare_alloc_pages(self, gfp_mask: int, order: int, scope: int) -> _Request:
        if gfp_mask & ~GFP_BITS_MASK or gfp_mask < 0:
            raise ValueError(f"gfp mask {gfp_mask:#x} has bits that 6.1 does not have")
        if order < 0:
            raise ValueError(f"order {order}: 0 to {MAX_ORDER - 1} exist")
        if gfp_mask & GFP_MOVABLE_MASK == GFP_MOVABLE_MASK:
            raise ValueError(f"gfp mask {gfp_mask:#x} asks for Movable and Reclaimable at once")
        # current_gfp_context()
        if scope & PF_MEMALLOC_NOIO:
            gfp_mask &= ~(gfp.IO | gfp.FS)
        elif scope & PF_MEMALLOC_NOFS:
            gfp_mask &= ~gfp.FS
        hzi = gfp_zone(gfp_mask)
        migratetype = 0 if self._memory.S[pg.S_MOBILITY_OFF] else gfp_migratetype(gfp_mask)
        fast = pg.ALLOC_WMARK_LOW | gfp_mask & gfp.KSWAPD_RECLAIM
        # alloc_flags_nofragment(): only while the preferred zone is Normal, so that DMA32 stays whole
        if self._preferred_zone(hzi) == ZoneType.NORMAL:
            fast |= pg.ALLOC_NOFRAGMENT
        return _Request(gfp_mask, migratetype, hzi, fast, self._gfp_to_alloc_flags(gfp_mask, order))

    @staticmethod
    def _gfp_to_alloc_flags(gfp_mask: int, order: int) -> int:
        """``gfp_to_alloc_flags()`` of 6.1.192, less what real-time tasks get."""
        flags = pg.ALLOC_WMARK_MIN | pg.ALLOC_CPUSET | gfp_mask & (gfp.HIGH | gfp.KSWAPD_RECLAIM)
        if not gfp_mask & gfp.DIRECT_RECLAIM:
            if not gfp_mask & gfp.NOMEMALLOC:
                flags |= pg.ALLOC_NON_BLOCK
                if order > 0 and flags & pg.ALLOC_MIN_RESERVE:
                    flags |= pg.ALLOC_HIGHATOMIC
            if flags & pg.ALLOC_MIN_RESERVE:
                flags &= ~pg.ALLOC_CPUSET
        return flags

    def _preferred_zone(self, highest_zoneidx: int) -> int:
        zones = self.pgdat.node_zones
        return next((i for i in range(highest_zoneidx, -1, -1) if zones[i].managed_pages), -1)

    def _get_page(self, request: _Request, order: int, flags: int) -> int:
        memory = self._memory
        pfn = jit.get_page_from_freelist(
            memory.page,
            memory.pb,
            memory.S,
            self._context.cpu,
            self._node_row,
            request.gfp_mask,
            order,
            request.migratetype,
            request.highest_zoneidx,
            flags,
        )
        if memory.S[pg.S_BOOST_WAKE]:
            self.wake_for_boost()
        return int(pfn)

    def wake_for_boost(self) -> None:
        """The wake-up that ``rmqueue()`` does after a steal boosted a zone's watermark."""
        S = self._memory.S
        zone = self.pgdat.node_zones[int(S[pg.S_BOOST_WAKE]) - 1]
        S[pg.S_BOOST_WAKE] = 0
        self._vmscan.wakeup_kswapd(zone, 0, 0, zone.index, WakeReason.BOOST)

    def _wake_all_kswapds(self, request: _Request, order: int) -> None:
        """``wake_all_kswapds()``: once per node of the zonelist."""
        preferred = self._preferred_zone(request.highest_zoneidx)
        if preferred >= 0:
            zone = self.pgdat.node_zones[preferred]
            self._vmscan.wakeup_kswapd(
                zone, request.gfp_mask, order, request.highest_zoneidx, WakeReason.SLOWPATH
            )

    def fast_request(self, gfp_mask: int) -> tuple[int, int, int]:
        """Migratetype, highest zone index and fast-path ``ALLOC_*`` flags of a mask (``prepare_alloc_pages()``)."""
        request = self._request(gfp_mask, 0)
        return request.migratetype, request.highest_zoneidx, request.fast_flags

    def alloc_pages_slowpath(self, gfp_mask: int, order: int) -> int:
        """What follows a miss of the fast path (``__alloc_pages_slowpath()``), for those who ran it themselves.

        Returns
        -------
        int
            First pfn, or -1.
        """
        return self._slowpath(self._request(gfp_mask, order), order)

    def _slowpath(self, request: _Request, order: int) -> int:
        """``__alloc_pages_slowpath()``, with compaction always skipped; see the module's docstring."""
        gfp_mask = request.gfp_mask
        flags = request.slow_flags
        can_direct_reclaim = bool(gfp_mask & gfp.DIRECT_RECLAIM)
        costly = order > PAGE_ALLOC_COSTLY_ORDER
        if self._preferred_zone(request.highest_zoneidx) < 0:
            return -1
        if flags & pg.ALLOC_KSWAPD:
            self._wake_all_kswapds(request, order)
        pfn = self._get_page(request, order, flags)
        if pfn >= 0:
            return pfn
        if can_direct_reclaim and costly and gfp_mask & gfp.IO and gfp_mask & gfp.NORETRY:
            # The first asynchronous compaction was skipped, and that ends a costly NORETRY request.
            return -1
        no_progress_loops = 0
        while True:
            if flags & pg.ALLOC_KSWAPD:
                self._wake_all_kswapds(request, order)
            flags = self._pfmemalloc_flags(gfp_mask, flags)
            pfn = self._get_page(request, order, flags)
            if pfn >= 0:
                return pfn
            if not can_direct_reclaim or self._context.task_flags & PF_MEMALLOC:
                return -1
            self._context.might_sleep()
            progress = self._vmscan.try_to_free_pages(order, gfp_mask)
            self._context.might_sleep()
            if progress:
                pfn = self._get_page(request, order, flags)
                if pfn < 0:
                    self.unreserve_highatomic_pageblock(request, force=False)
                    self.drain_all_pages()
                    pfn = self._get_page(request, order, flags)
                if pfn >= 0:
                    return pfn
            if gfp_mask & gfp.NORETRY or (costly and not gfp_mask & gfp.RETRY_MAYFAIL):
                return self._nofail(request, order) if gfp_mask & gfp.NOFAIL else -1
            no_progress_loops = 0 if progress and not costly else no_progress_loops + 1
            if no_progress_loops <= MAX_RECLAIM_RETRIES and progress:
                continue
            if self.unreserve_highatomic_pageblock(request, force=True):
                continue
            pfn = self._get_page(request, order, flags)
            if pfn >= 0:
                return pfn
            return self._nofail(request, order) if gfp_mask & gfp.NOFAIL else -1

    def _pfmemalloc_flags(self, gfp_mask: int, flags: int) -> int:
        """``__gfp_pfmemalloc_flags()``: who may use the reserves whole."""
        if gfp_mask & gfp.NOMEMALLOC:
            return flags
        if gfp_mask & gfp.MEMALLOC or self._context.task_flags & PF_MEMALLOC:
            return pg.ALLOC_NO_WATERMARKS | flags & pg.ALLOC_KSWAPD
        return flags

    def _nofail(self, request: _Request, order: int) -> int:
        pfn = self._get_page(request, order, request.slow_flags | pg.ALLOC_MIN_RESERVE)
        if pfn < 0:
            raise OutOfMemory(
                f"an order-{order} request with {show_gfp_flags(request.gfp_mask)} may not fail, and nothing can "
                "be reclaimed; give the machine more memory, or a shrinker that frees some"
            )
        return pfn

    def unreserve_highatomic_pageblock(self, request: _Request, *, force: bool) -> bool:
        """Give one highatomic block back (``unreserve_highatomic_pageblock()``)."""
        memory = self._memory
        for index in range(request.highest_zoneidx, -1, -1):
            if not self.pgdat.node_zones[index].managed_pages:
                continue
            z = memory.zone_offset(index)
            if unreserve_highatomic_pageblock(
                memory.page, memory.pb, memory.S, index, z, request.migratetype, force
            ):
                return True
        return False

    def _trace_alloc(self, pfn: int, order: int, request: _Request) -> None:
        S = self._memory.S
        if S[pg.S_TRACE_MASK] & (1 << pg.TR_PAGE_ALLOC):
            pg.trace(S, pg.TR_PAGE_ALLOC, pfn, order, request.migratetype, request.gfp_mask, 0)

    def exchange_pages(self, gfp_mask: int, old: Pfns) -> Pfns:
        """For each order-0 page allocate another and free it, one by one, as a copy to shmem does.

        Parameters
        ----------
        gfp_mask : int
            Of the new pages.
        old : int64[n]
            Allocated order-0 pages.

        Returns
        -------
        int64[m]
            The new pages of ``old[:m]``, which are free now; m < n if an allocation failed.

        Raises
        ------
        BadPage
            A page to free is not an allocated order-0 page.
        """
        memory = self._memory
        request = self._request(gfp_mask, 0)
        new = np.empty(len(old), dtype=np.int64)
        done = 0
        while done < len(old):
            status, upto = jit_exchange.exchange_batch(
                memory.page,
                memory.pb,
                memory.S,
                self._context.cpu,
                self._node_row,
                request.gfp_mask,
                request.migratetype,
                request.highest_zoneidx,
                request.fast_flags,
                old,
                new,
                done,
            )
            exchanged, done = upto - done, upto
            if exchanged:
                if self._charge_alloc is not None:
                    self._charge_alloc(exchanged, 0, False)
                if self._charge_free is not None:
                    self._charge_free(exchanged, 0)
            if status == jit.BATCH_BAD_PAGE:
                raise BadPage(f"pfn {int(old[upto]):#x} is not an allocated block of order 0")
            if status == jit.BATCH_BOOST_WAKE:
                self.wake_for_boost()
            elif status == jit.BATCH_TRACE_FULL:
                memory.flush_trace()
            elif status == jit.BATCH_SLOWPATH:
                pfn = self._slowpath(request, 0)
                if pfn < 0:
                    break
                new[done] = pfn
                self.free_pages_batch(old[done : done + 1], 0)
                done += 1
        return new[:done]

    # --- freeing ------------------------------------------------------------------------------------

    def free_pages(self, pfn: int, order: int) -> None:
        """Free a block (``__free_pages()``).

        Raises
        ------
        BadPage
            The pfn does not head an allocated block of this order.
        """
        if type(pfn) is not int:
            raise BadPage(f"pfn {pfn!r} is no int")
        self.free_pages_batch(np.array([pfn], dtype=np.int64), order)

    def free_pages_batch(self, pfns: Pfns, order: int) -> None:
        """Free blocks of one order, as a loop of `free_pages` in the order given would.

        Raises
        ------
        BadPage
            A pfn does not head an allocated block of this order; those before it have been freed.
        """
        memory = self._memory
        done = 0
        while done < len(pfns):
            status, upto = jit.free_batch(
                memory.page, memory.pb, memory.S, self._context.cpu, pfns, order, done
            )
            freed, done = upto - done, upto
            if self._charge_free is not None and freed:
                self._charge_free(freed, order)
            if status == jit.BATCH_TRACE_FULL:
                memory.flush_trace()
            elif status == jit.BATCH_BAD_PAGE:
                raise BadPage(f"pfn {int(pfns[upto]):#x} is not an allocated block of order {order}")

    def split_page(self, pfn: int, order: int) -> None:
        """Turn an allocated block into 1 << order allocated pages (``split_page()``).

        Raises
        ------
        BadPage
            The pfn does not head an allocated block of this order.
        """
        inside = 0 <= pfn < self._memory.nr_pfns and 0 <= order < MAX_ORDER
        if not inside or not jit.split_page(self._memory.page, pfn, order):
            raise BadPage(f"pfn {pfn:#x} is not an allocated block of order {order}")

    def drain_local_pages(self) -> None:
        """Empty this CPU's page lists (``drain_local_pages()``)."""
        memory = self._memory
        jit.drain_pages(memory.page, memory.pb, memory.S, self._context.cpu)

    def drain_all_pages(self) -> None:
        """Empty all CPUs' page lists (``drain_all_pages()``)."""
        memory = self._memory
        for cpu in range(memory.nr_cpus):
            jit.drain_pages(memory.page, memory.pb, memory.S, cpu)
