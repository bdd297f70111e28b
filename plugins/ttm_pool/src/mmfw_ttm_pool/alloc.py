"""The ladder: how an object gets its pages, from the largest order down (``__ttm_pool_alloc()``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmfw import gfp
from mmfw_ttm_pool.kernels import TtmKernel
from mmfw_ttm_pool.pool import NR_PAGE_ORDERS, TtmPool
from mmfw_ttm_pool.tt import BlockRun, Caching, TtmTt, nr_pages_of

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


@dataclass(frozen=True, slots=True)
class PooledRun:
    """Blocks of one ladder step, and whether they came out of a pool (then they are mapped as the object)."""

    run: BlockRun
    from_pool: bool


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


def climb_down(pool: TtmPool, tt: TtmTt, ctx: OperationCtx) -> list[BlockRun] | None:
    """Allocate a block list for the whole object; None, and nothing held, if order 0 fails (-ENOMEM).

    A system page bars the pools until an order has failed; in 6.1 until the order falls for any reason.
    """
    mm = pool.mm
    base = base_gfp_mask(tt, ctx)
    got: list[PooledRun] = []
    remaining = tt.num_pages
    allow_pools = True
    order = find_order(MAX_PAGE_ORDER, remaining)
    while remaining:
        pt = pool.select_type(tt.caching, tt.dma32, order) if allow_pools else None
        if pt is not None and pt.nr_blocks:
            pfns = pool.take(pt, remaining >> order)
            got.append(PooledRun(BlockRun(order, pfns), from_pool=True))
            remaining -= len(pfns) << order
        wanted = remaining >> order
        if wanted:
            allow_pools = False
            flags = order_gfp_mask(base, order, rules=pool.rules, beneficial_order=pool.beneficial_order)
            pfns = mm.alloc_pages_batch(pool.ask_gfp_mask(order, flags), order, wanted)
            if len(pfns):
                run = BlockRun(order, pfns)
                got.append(PooledRun(run, from_pool=False))
                remaining -= run.nr_pages
            if len(pfns) < wanted:
                if order == 0:
                    _undo(pool, tt, got)
                    return None
                order -= 1
                allow_pools = True
        lower = find_order(order, remaining)
        if lower < order and pool.rules.lower_order_opens_pools:
            allow_pools = True
        order = lower
    if tt.zero_alloc:
        # What comes out of a pool was cleared on its way in.
        pages = nr_pages_of([each.run for each in got if not each.from_pool])
        mm.charge(pages * mm.sched.costs.zero_page, "ttm zero")
    return [each.run for each in got]


def _undo(pool: TtmPool, tt: TtmTt, got: list[PooledRun]) -> None:
    """Give back what a failed ladder took: to the pools what came from there (``ttm_pool_free_range()``)."""
    for each in got:
        pt = pool.select_type(tt.caching, tt.dma32, each.run.order) if each.from_pool else None
        if pt is None:
            pool.mm.free_pages_batch(each.run.pfns, each.run.order)
        else:
            pool.give(pt, each.run.pfns)


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
    if tt.runs or tt.backups:
        raise ValueError("populating an object that has pages or a backup")
    runs = climb_down(pool, tt, ctx)
    if runs is None:
        return False
    assert nr_pages_of(runs) == tt.num_pages
    tt.runs = runs
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
