"""Blocks that the pools hold when a run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmfw import InputError, gfp
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import Caching

if TYPE_CHECKING:
    from mmfw import Mm

#: Takes what is free and disturbs nobody: time has not begun.
_TAKE: Final = gfp.GFP_HIGHUSER & ~gfp.RECLAIM | gfp.NOWARN


class InitialBlocks(BaseModel):
    """Blocks of one pool at the start, taken from the free blocks of the machine's initial state.

    Either way ``count`` aligned pairs of blocks are taken, so that the machine looks the same but for which of
    them are pooled: with `buddies` both halves of the first half of the pairs, else one half of each pair. The others
    stay in use until the end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: int = Field(ge=0, le=9, description="order of each block")
    count: int = Field(ge=1, description="pooled blocks; as many aligned pairs of such blocks are taken")
    caching: Caching = Field(Caching.WRITE_COMBINED, description="which pool")
    buddies: bool = Field(True, description="pool both halves of a pair, else one half of each")


class HeldBlocks:
    """Blocks in use from the start to the end, by order: the driver's, behind no object."""

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._blocks: list[tuple[int, int]] = []

    def add(self, pfn: int, order: int) -> None:
        """Hold an allocated block."""
        self._blocks.append((pfn, order))

    def free_all(self) -> None:
        """Give all of them back."""
        blocks, self._blocks = self._blocks, []
        for pfn, order in blocks:
            self._mm.free_pages(pfn, order)


def _take_pairs(mm: Mm, order: int, count: int) -> list[int]:
    """Allocate `count` aligned pairs of blocks; first pfns of the pairs, in the order in which they came.

    Raises
    ------
    InputError
        The initial state has too few free blocks of the next order.
    """
    halves: dict[int, None] = {}
    pairs: list[int] = []
    while len(pairs) < count:
        pfn = mm.alloc_pages(_TAKE, order)
        if pfn < 0:
            break
        buddy = pfn ^ (1 << order)
        if buddy in halves:
            del halves[buddy]
            pairs.append(min(pfn, buddy))
        else:
            halves[pfn] = None
    for pfn in halves:
        mm.free_pages(pfn, order)
    if len(pairs) < count:
        for pfn in pairs:
            for half in (pfn, pfn + (1 << order)):
                mm.free_pages(half, order)
        raise InputError(
            f"params.ttm.initial_blocks: {count} free blocks of order {order + 1} are wanted at the start, the "
            f"machine has {len(pairs)}; give state.buddyinfo more of them"
        )
    return pairs


def fill_pools(pool: TtmPool, wanted: InitialBlocks, held: HeldBlocks) -> None:
    """Put blocks of the initial state into a pool.

    Raises
    ------
    InputError
        `buddies` with an odd count, more than the pools' limit or the machine's free blocks allow, or a class
        without a pool.
    """
    order, count = wanted.order, wanted.count
    pt = pool.select_type(wanted.caching, False, order)
    if pt is None:
        raise InputError(f"params.ttm.initial_blocks: {wanted.caching.value} pages have no pool")
    if wanted.buddies and count % 2:
        raise InputError(f"params.ttm.initial_blocks: buddies come in pairs, count is {count}; make it even")
    if pool.allocated_pages + (count << order) > pool.page_pool_size:
        raise InputError(
            f"params.ttm.initial_blocks: {count} blocks of order {order} are more than ttm.page_pool_size "
            f"allows ({pool.page_pool_size} pages)"
        )
    pooled: list[int] = []
    for number, pfn in enumerate(_take_pairs(pool.mm, order, count)):
        first, second = pfn, pfn + (1 << order)
        if not wanted.buddies:
            pooled.append(first)
            held.add(second, order)
        elif number < count // 2:
            pooled += [first, second]
        else:
            held.add(first, order)
            held.add(second, order)
    pool.give(pt, np.array(pooled, dtype=np.int64))
