"""The hooks that the pool publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import hookspec

if TYPE_CHECKING:
    from mmfw_ttm_pool.pool import TtmPool

#: Answer to ``ttm_pool_gfp_mask``: do not ask the system at this order. Order 0 cannot be skipped.
SKIP_ORDER: Final = -1


class TtmSpec:
    """Decisions of the pool that policies may take."""

    @hookspec(firstresult=True)
    def ttm_pool_gfp_mask(self, pool: TtmPool, order: int, flags: int) -> int | None:
        """Choose the mask of a system allocation.

        Stands for: drivers/gpu/drm/ttm/ttm_pool.c ttm_pool_alloc_page(), the flags it adds and clears.
        Answers: a whole gfp mask; `SKIP_ORDER` = go down an order unasked; None = not mine, ask the next. If nobody
        answers, `flags` is used.
        Context: the task that populates an object, its reservation held; may not sleep or allocate.
        Called: once for each order of each ladder that gets as far as a system allocation.

        Parameters
        ----------
        pool : TtmPool
            The pool; ``pool.beneficial_order`` says what the device gains from.
        order : int
            Order about to be tried.
        flags : int
            The driver's own mask for this order, ``__GFP_*`` bits.

        Examples
        --------
        ::

            @hookimpl(optionalhook=True)
            def ttm_pool_gfp_mask(order, flags):
                return flags & ~gfp.KSWAPD_RECLAIM if order > 9 else None

        .. versionadded:: hook API 1
        """

    @hookspec
    def ttm_pool_asked(self, pool: TtmPool, order: int, nr_wanted: int, nr_got: int) -> None:
        """Hear what became of system allocations.

        Stands for: drivers/gpu/drm/ttm/ttm_pool.c __ttm_pool_alloc(), where ttm_pool_alloc_page() returns.
        Answers: none.
        Context: the task that populates an object, its reservation held; may not sleep or allocate.
        Called: after each run of requests of one order; the last of a run failed if it got fewer than it wanted.

        Parameters
        ----------
        pool : TtmPool
            The pool.
        order : int
            Order of the requests.
        nr_wanted, nr_got : int
            Blocks.

        Examples
        --------
        ::

            @hookimpl(optionalhook=True)
            def ttm_pool_asked(order, nr_wanted, nr_got):
                if nr_got < nr_wanted:
                    backoff.begin(order)

        .. versionadded:: hook API 1
        """
