"""The ladder: how an object gets its pages, from the largest order down (``__ttm_pool_alloc()``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mmfw import gfp
from mmfw_ttm_pool.hookspecs import SKIP_ORDER
from mmfw_ttm_pool.kernels import TtmKernel
from mmfw_ttm_pool.pool import NR_PAGE_ORDERS, TtmPool
from mmfw_ttm_pool.tt import BlockRun, Caching, TtmTt

MAX_PAGE_ORDER: Final = NR_PAGE_ORDERS - 1


@dataclass(frozen=True, slots=True)
class OperationCtx:
    """``struct ttm_operation_ctx``, as far as allocation reads it (include/drm/ttm/ttm_bo.h).

    Attributes
    ----------
    gfp_retry_mayfail : bool
        Fail rather than call the OOM killer.
    """

    gfp_retry_mayfail: bool = False


def base_gfp_mask(tt: TtmTt, ctx: OperationCtx) -> int:
    """Mask of an object's requests before the order is known (``__ttm_pool_alloc()``)."""
    flags = gfp.GFP_USER | (gfp.GFP_DMA32 if tt.dma32 else gfp.GFP_HIGHUSER)
    if tt.zero_alloc:
        flags |= gfp.ZERO
    if ctx.gfp_retry_mayfail:
        flags |= gfp.RETRY_MAYFAIL | gfp.NOWARN
    return flags


def order_gfp_mask(flags: int, order: int, *, rules: TtmKernel, beneficial_order: int) -> int:
    """Mask of one request, from the base mask (``ttm_pool_alloc_page()``).

    Examples
    --------
    >>> from mmfw_ttm_pool.kernels import TTM_KERNELS
    >>> hex(order_gfp_mask(gfp.GFP_HIGHUSER, 9, rules=TTM_KERNELS["6.1"], beneficial_order=0))
    '0x192cc2'
    >>> hex(order_gfp_mask(gfp.GFP_HIGHUSER, 10, rules=TTM_KERNELS["7.2"], beneficial_order=9))
    '0x3928c2'
    """
    if order:
        flags |= gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN
        flags |= rules.high_order_gfp
    if beneficial_order and order > beneficial_order:
        flags &= ~gfp.DIRECT_RECLAIM
    return flags


def find_order(highest: int, remaining: int) -> int:
    """Largest order not above `highest` that fits (``ttm_pool_alloc_find_order()``)."""
    return min(highest, remaining.bit_length() - 1)


def climb_down(
    pool: TtmPool,
    tt: TtmTt,
    ctx: OperationCtx,
    nr_pages: int,
    commit: Callable[[BlockRun, bool], None],
    at_once: int | None = None,
) -> bool:
    """Get blocks that add up to `nr_pages`, from the largest order that fits down (``__ttm_pool_alloc()``).

    A system page bars the pools until an order has failed; in 6.1 until the order falls for any reason.

    Parameters
    ----------
    pool, tt, ctx
        Whence, for whom, how.
    nr_pages : int
        Pages wanted.
    commit : callable
        Called with each run as it is got, and with whether it came out of a pool.
    at_once : int, optional
        Pages after which a run of blocks is handed over, though always whole blocks; all that come by default.

    Returns
    -------
    bool
        False if order 0 failed (-ENOMEM); what was handed over before stays with the caller.
    """
    mm = pool.mm
    base = base_gfp_mask(tt, ctx)
    remaining = nr_pages
    allow_pools = True
    pools = pool.ladder(tt.caching, tt.dma32)
    order = find_order(MAX_PAGE_ORDER, remaining)
    mask, mask_order = 0, -1
    while remaining:
        wanted = remaining >> order
        if at_once is not None:
            wanted = min(wanted, max(1, at_once >> order))
        pt = pools[order]
        if pt is not None and allow_pools and pt.nr_blocks:
            run, from_pool = BlockRun(order, pool.take(pt, wanted)), True
        else:
            allow_pools = False
            if mask_order != order:
                mask = pool.ask_gfp_mask(
                    order,
                    order_gfp_mask(base, order, rules=pool.rules, beneficial_order=pool.beneficial_order),
                )
                mask_order = order
            if mask == SKIP_ORDER and order:
                order -= 1
                allow_pools = True
                continue
            run, from_pool = BlockRun(order, mm.alloc_pages_batch(mask, order, wanted)), False
            pool.asked(order, wanted, len(run.pfns))
            if tt.zero_alloc:
                # What comes out of a pool was cleared on its way in.
                mm.charge(run.nr_pages * mm.sched.costs.zero_page, "ttm zero")
            if pt is not None and not pt.nr_blocks:
                pool.missed(pt, len(run.pfns))
        remaining -= run.nr_pages
        if len(run.pfns):
            commit(run, from_pool)
        if not from_pool and len(run.pfns) < wanted:
            if order == 0:
                return False
            order -= 1
            allow_pools = True
        lower = find_order(order, remaining)
        if lower < order and pool.rules.lower_order_opens_pools:
            allow_pools = True
        order = lower
    return True


def ttm_pool_alloc(pool: TtmPool, tt: TtmTt, ctx: OperationCtx) -> bool:
    """Populate an object (``ttm_pool_alloc()``).

    Returns
    -------
    bool
        False where the kernel returns -ENOMEM; then the object holds nothing.

    Raises
    ------
    ValueError
        It is populated or backed up.
    """
    if tt.runs or tt.is_backed_up:
        raise ValueError("populating an object that has pages or a backup")
    got: list[tuple[BlockRun, bool]] = []
    if not climb_down(pool, tt, ctx, tt.num_pages, lambda run, from_pool: got.append((run, from_pool))):
        # ttm_pool_free_range(): to the pools what came from there.
        for run, from_pool in got:
            free_run(pool, tt, run) if from_pool else pool.mm.free_pages_batch(run.pfns, run.order)
        return False
    tt.runs = [run for run, _ in got]
    assert tt.nr_held == tt.num_pages
    return True


def ttm_pool_free(pool: TtmPool, tt: TtmTt) -> None:
    """Give an object's blocks to the pools, or back to the system if cached (``ttm_pool_free()``)."""
    runs, tt.runs = tt.runs, []
    for run in runs:
        free_run(pool, tt, run)
    pool.enforce_limit()


def free_run(pool: TtmPool, tt: TtmTt, run: BlockRun) -> None:
    """Give blocks of an object to their pool, or back to the system (``ttm_pool_unmap_and_free()``)."""
    pt = None if tt.caching is Caching.CACHED else pool.select_type(tt.caching, tt.dma32, run.order)
    if pt is None:
        pool.mm.free_pages_batch(run.pfns, run.order)
    else:
        pool.give(pt, run.pfns)
