"""Moving the small blocks of an object into large ones: what a defragmenter asks of TTM.

Mentioned as under way in the discussion of 2026; no code was posted. It is modelled as a move of the object: new blocks,
a copy, and the old blocks freed as any other's. Mainline never calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from mmfw import gfp
from mmfw_ttm_pool.alloc import OperationCtx, base_gfp_mask, free_run, order_gfp_mask
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import BlockRun, Pfns, TtmTt, joined, nr_pages_of


@dataclass(frozen=True, slots=True)
class _Part:
    """Runs of an object that follow one another, and whether large blocks can take their place."""

    runs: list[BlockRun]
    moves: bool


def _cut(stretch: list[BlockRun], order: int) -> tuple[list[BlockRun], list[BlockRun]]:
    """Cut runs of small blocks behind as many as fill large blocks exactly, so that no block need be split."""
    at, cut, nr_blocks = 0, -1, 0
    for index, run in enumerate(stretch):
        end = (at + run.nr_pages) >> order << order
        if end > at and not at & ((1 << run.order) - 1):
            cut, nr_blocks = index, (end - at) >> run.order
        at += run.nr_pages
    if cut < 0:
        return [], stretch
    run = stretch[cut]
    head = [*stretch[:cut], BlockRun(run.order, run.pfns[:nr_blocks])]
    tail = [BlockRun(run.order, run.pfns[nr_blocks:])] if nr_blocks < len(run.pfns) else []
    return head, [*tail, *stretch[cut + 1 :]]


def _parts(runs: Sequence[BlockRun], order: int) -> list[_Part]:
    parts: list[_Part] = []
    for is_small, group in groupby(runs, key=lambda run: run.order < order):
        stretch = list(group)
        head, tail = _cut(stretch, order) if is_small else ([], stretch)
        parts += [_Part(part, moves) for part, moves in ((head, True), (tail, False)) if part]
    return parts


def nr_fragmented_pages(tt: TtmTt, order: int) -> int:
    """How fragmented an object is: its pages that lie in blocks below an order and could lie in blocks of it.

    A rest that fills no block of the order does not count; an object that is not populated has 0.

    Parameters
    ----------
    tt : TtmTt
        The object.
    order : int
        What the device gains from (``beneficial_order``).
    """
    if not tt.is_populated:
        return 0
    return sum(nr_pages_of(part.runs) for part in _parts(tt.runs, order) if part.moves)


def defragment_gfp_mask(pool: TtmPool, tt: TtmTt, order: int) -> int:
    """Mask of the new blocks: the ladder's at this order, without any reclaim flag; nor cleared, for a copy follows."""
    base = base_gfp_mask(tt, OperationCtx())
    mask = order_gfp_mask(base, order, rules=pool.rules, beneficial_order=pool.beneficial_order)
    return mask & ~(gfp.RECLAIM | gfp.ZERO) | gfp.NOWARN


def _take(pool: TtmPool, tt: TtmTt, order: int, nr_blocks: int) -> Pfns | None:
    """Blocks from the pool and then from the system: as many as are wanted, or none."""
    pt = pool.select_type(tt.caching, tt.dma32, order)
    pooled = np.empty(0, dtype=np.int64) if pt is None else pool.take(pt, nr_blocks)
    left = nr_blocks - len(pooled)
    if not left:
        return pooled
    fresh = pool.mm.alloc_pages_batch(defragment_gfp_mask(pool, tt, order), order, left)
    if len(fresh) == left:
        return np.concatenate([pooled, fresh])
    if len(fresh):
        pool.mm.free_pages_batch(fresh, order)
    if len(pooled):
        free_run(pool, tt, BlockRun(order, pooled))
    return None


def ttm_pool_defragment(
    pool: TtmPool, tt: TtmTt, order: int, unmap: Callable[[], None] = lambda: None
) -> int:
    """Move what `nr_fragmented_pages` counts into blocks of an order: all of it, or nothing.

    The blocks come from the pool, then from the system with a mask that neither reclaims nor wakes anybody. Larger blocks
    that the object has, and the rest that fills no block, stay where they are. The old blocks go where
    ``ttm_pool_free()`` would put them. The caller holds the object's reservation, and nothing uses the object.

    Parameters
    ----------
    pool, tt
        The pool, and a populated object.
    order : int
        Order of the new blocks, at least 1.
    unmap : callable
        Called when the blocks are there, before anything is copied: to unbind the object.

    Returns
    -------
    int
        Pages copied; 0 if nothing is fragmented or so many blocks were not to be had.

    Raises
    ------
    ValueError
        It is not populated.
    """
    if not tt.is_populated:
        raise ValueError("moving an object that is not populated")
    parts = _parts(tt.runs, order)
    old = [run for part in parts if part.moves for run in part.runs]
    nr_pages = nr_pages_of(old)
    blocks = _take(pool, tt, order, nr_pages >> order) if nr_pages else None
    if blocks is None:
        return 0
    at = 0
    runs: list[BlockRun] = []
    for part in parts:
        if part.moves:
            end = at + (nr_pages_of(part.runs) >> order)
            runs.append(BlockRun(order, blocks[at:end]))
            at = end
        else:
            runs += part.runs
    # From here on the object owns the new blocks and this function the old ones, which go whatever happens in the copy.
    tt.runs = joined(runs)
    try:
        unmap()
        pool.mm.charge(nr_pages * pool.mm.sched.costs.copy_page, "defragment copy")
    finally:
        for run in old:
            free_run(pool, tt, run)
        pool.enforce_limit()
    return nr_pages
