"""Allocation and freeing of pages: entry, batches and the compiled fast path (mm/page_alloc.c of 6.1).

What follows a miss of the fast path is `mmfw.mm.slowpath`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.jit import alloc as jit
from mmfw.jit import exchange as jit_exchange
from mmfw.jit import page as pg
from mmfw.state import MAX_ORDER

if TYPE_CHECKING:
    from mmfw.mm.capture import TaskCapture
    from mmfw.mm.context import ExecContext
    from mmfw.mm.freelist import Freelist, Request
    from mmfw.mm.requests import RequestStats
    from mmfw.mm.slowpath import Slowpath

Pfns = NDArray[np.int64]

#: Single pages that a task takes below low in one go, see `PageAllocator.alloc_pages_batch`; some 10 us.
_SLOW_RUN: Final = 8


class BadPage(CallerError):
    """A page was freed that is not an allocated block of that order (``bad_page()``)."""


class PageAllocator:
    """``alloc_pages()`` and ``__free_pages()`` of one node.

    Parameters
    ----------
    freelist : Freelist
        The free lists.
    slowpath : Slowpath
        What to do when they have nothing.
    context : ExecContext
        The running task and the clock.
    charge_alloc, charge_free : callable, optional
        Called with the number of blocks and their order after each request or batch; charge their cost.
    capture : TaskCapture, optional
        Tasks that take blocks as they are freed.
    requests : RequestStats, optional
        Told how requests fared.
    """

    def __init__(
        self,
        freelist: Freelist,
        slowpath: Slowpath,
        context: ExecContext,
        charge_alloc: Callable[[int, int], None] | None = None,
        charge_free: Callable[[int, int], None] | None = None,
        capture: TaskCapture | None = None,
        requests: RequestStats | None = None,
    ) -> None:
        self._capture = capture
        self._requests = requests
        self._freelist = freelist
        self._slowpath = slowpath
        self._context = context
        self._memory = freelist.memory
        self._node_row = freelist.node_row
        self._charge_alloc = charge_alloc
        self._charge_free = charge_free

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
        request = self._freelist.request(gfp_mask, order)
        if gfp_mask & gfp.DIRECT_RECLAIM:
            self._context.might_sleep()  # might_alloc()
        began = self._context.now
        pfn = self._freelist.get_page(request, order, request.fast_flags)
        if pfn < 0:
            pfn = self._alloc_slow(request, order)
        self._trace_alloc(pfn, order, request)
        if self._charge_alloc is not None:
            self._charge_alloc(1, order)
        if order and self._requests is not None:
            self._requests.note(gfp_mask, order, 1, ok=pfn >= 0, ns=self._context.now - began)
        return pfn

    def _alloc_slow(self, request: Request, order: int, *, asked: bool = False) -> int:
        """The slow path, timed; kswapd was `asked` for it already, or not."""
        if self._requests is None:
            return self._slowpath.alloc_pages(request, order, asked=asked)
        began = self._context.now
        pfn = self._slowpath.alloc_pages(request, order, asked=asked)
        ns = self._context.now - began
        self._requests.slowpath_ns += ns
        if not order:
            self._requests.note(request.gfp_mask, 0, 1, ok=pfn >= 0, ns=ns)
        return pfn

    def alloc_pages_batch(self, gfp_mask: int, order: int, count: int) -> Pfns:
        """Allocate many blocks of one order, as a loop of `alloc_pages` would.

        Time passes for all blocks together that the fast path gives. Below low each enters the slow path by itself;
        but on a machine of several CPUs, single pages that do so one after the other while kswapd is at work ask for it,
        and let time pass, together, 8 at most. What that costs: other CPUs' tasks come between them up to 10 us later.

        Returns
        -------
        int64[n]
            First pfns in the order of allocation; fewer than ``count`` if one request failed.
        """
        out = np.empty(count, dtype=np.int64)
        got = 0
        request = self._freelist.request(gfp_mask, order)
        if order >= MAX_ORDER:
            return out[:0]
        answered = 0
        while got < count:
            if gfp_mask & gfp.DIRECT_RECLAIM and not answered:
                # Each request of a loop begins so; between two of them only a stop of the batch can matter.
                self._context.might_sleep()
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
            answered, got = answered + upto - got, upto
            if status == jit.BATCH_TRACE_FULL:
                # The reader's stop, not the allocator's: no time passes, so that tracing changes nothing.
                self._memory.flush_trace()
                continue
            began = self._context.now
            if self._charge_alloc is not None and answered:
                self._charge_alloc(answered, order)
            if order and answered and self._requests is not None:
                self._requests.note(gfp_mask, order, answered, ok=True, ns=self._context.now - began)
            answered = 0
            if status == jit.BATCH_BOOST_WAKE:
                self._freelist.wake_for_boost()
            elif status == jit.BATCH_SLOWPATH:
                asked = not order and self._ask_in_company(request)
                if asked and (run := self._run_below_low(request, out, got)):
                    got += run
                    continue
                began = self._context.now
                pfn = self._alloc_slow(request, order, asked=asked)
                self._trace_alloc(pfn, order, request)
                if self._charge_alloc is not None:
                    self._charge_alloc(1, order)
                if order and self._requests is not None:
                    self._requests.note(gfp_mask, order, 1, ok=pfn >= 0, ns=self._context.now - began)
                if pfn < 0:
                    break
                out[got] = pfn
                got += 1
        return out[:got]

    def _ask_in_company(self, request: Request) -> bool:
        """Ask kswapd for a run of single pages, if one may be taken; whether it may."""
        if not self._slowpath.ask_in_company(request):
            return False
        if self._memory.S[pg.S_TRACE_MASK]:
            # A full buffer would end the run early, and so make a traced run another one.
            self._memory.flush_trace()
        return True

    def _run_below_low(self, request: Request, out: Pfns, got: int) -> int:
        """Take single pages as the slow path's first attempt does, which asked for kswapd already; how many."""
        memory = self._memory
        _, upto = jit.alloc_batch(
            memory.page,
            memory.pb,
            memory.S,
            self._context.cpu,
            self._node_row,
            request.gfp_mask,
            0,
            request.migratetype,
            request.highest_zoneidx,
            request.slow_flags,
            out[: got + _SLOW_RUN],
            got,
        )
        self._charge_slow_run(request, upto - got)
        return upto - got

    def _charge_slow_run(self, request: Request, nr: int) -> None:
        if not nr:
            return
        began = self._context.now
        self._slowpath.charge_entries(nr)
        ns = self._context.now - began
        if self._requests is not None:
            self._requests.slowpath_ns += ns
            self._requests.note(request.gfp_mask, 0, nr, ok=True, ns=ns)
        if self._charge_alloc is not None:
            self._charge_alloc(nr, 0)
        self._freelist.wake_for_boost()

    def fast_request(self, gfp_mask: int) -> tuple[int, int, int]:
        """Migratetype, highest zone index and fast-path ``ALLOC_*`` flags of a mask (``prepare_alloc_pages()``)."""
        request = self._freelist.request(gfp_mask, 0)
        return request.migratetype, request.highest_zoneidx, request.fast_flags

    def alloc_pages_slowpath(self, gfp_mask: int, order: int) -> int:
        """What follows a miss of the fast path (``__alloc_pages_slowpath()``), for those who ran it themselves.

        Returns
        -------
        int
            First pfn, or -1.
        """
        return self._alloc_slow(self._freelist.request(gfp_mask, order), order)

    def _trace_alloc(self, pfn: int, order: int, request: Request) -> None:
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
        request = self._freelist.request(gfp_mask, 0)
        new = np.empty(len(old), dtype=np.int64)
        done = exchanged = 0
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
            exchanged, done = exchanged + upto - done, upto
            if status == jit.BATCH_TRACE_FULL:
                memory.flush_trace()
                continue
            if exchanged:
                if self._charge_alloc is not None:
                    self._charge_alloc(exchanged, 0)
                if self._charge_free is not None:
                    self._charge_free(exchanged, 0)
            exchanged = 0
            if status == jit.BATCH_BAD_PAGE:
                raise BadPage(f"pfn {int(old[upto]):#x} is not an allocated block of order 0")
            if status == jit.BATCH_BOOST_WAKE:
                self._freelist.wake_for_boost()
            elif status == jit.BATCH_SLOWPATH:
                asked = self._ask_in_company(request)
                if asked and (run := self._exchange_below_low(request, old, new, done)):
                    done += run
                    continue
                pfn = self._alloc_slow(request, 0, asked=asked)
                self._trace_alloc(pfn, 0, request)
                if pfn < 0:
                    break
                new[done] = pfn
                self.free_pages_batch(old[done : done + 1], 0)
                done += 1
        return new[:done]

    def _exchange_below_low(self, request: Request, old: Pfns, new: Pfns, done: int) -> int:
        """`_run_below_low` for `exchange_pages`."""
        memory = self._memory
        status, upto = jit_exchange.exchange_batch(
            memory.page,
            memory.pb,
            memory.S,
            self._context.cpu,
            self._node_row,
            request.gfp_mask,
            request.migratetype,
            request.highest_zoneidx,
            request.slow_flags,
            old[: done + _SLOW_RUN],
            new,
            done,
        )
        self._charge_slow_run(request, upto - done)
        if self._charge_free is not None and upto > done:
            self._charge_free(upto - done, 0)
        if status == jit.BATCH_BAD_PAGE:
            raise BadPage(f"pfn {int(old[upto]):#x} is not an allocated block of order 0")
        return upto - done

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
        done = freed = 0
        while done < len(pfns):
            capturer = None if self._capture is None else self._capture.of_current()
            if capturer is not None:
                capturer.arm_capture(True)
            status, upto = jit.free_batch(
                memory.page, memory.pb, memory.S, self._context.cpu, pfns, order, done
            )
            if capturer is not None:
                capturer.arm_capture(False)
            freed, done = freed + upto - done, upto
            if status == jit.BATCH_TRACE_FULL:
                memory.flush_trace()
                continue
            if self._charge_free is not None and freed:
                self._charge_free(freed, order)
            freed = 0
            if status == jit.BATCH_BAD_PAGE:
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
