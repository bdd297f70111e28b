"""Workload ``pin-pages``: single pages that cannot move, scattered over what was free."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, Field, field_validator

from mmfw import gfp
from mmfw_demand.loads import demand_loads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw import Mm

#: Wakes nobody and reclaims nothing: only what is free is polluted.
_NO_RECLAIM: Final = gfp.NOWARN | gfp.NOMEMALLOC
_BATCH: Final = 512


class Pageblocks(Enum):
    """Which pageblocks the pages lie in."""

    UNMOVABLE = "unmovable"
    MOVABLE = "movable"


_MASKS: Final = {
    Pageblocks.UNMOVABLE: (gfp.GFP_KERNEL & ~gfp.RECLAIM) | _NO_RECLAIM,
    Pageblocks.MOVABLE: (gfp.GFP_HIGHUSER_MOVABLE & ~gfp.RECLAIM) | _NO_RECLAIM,
}


class PinPagesParams(BaseModel):
    """Pollution."""

    one_in_pages: int = Field(
        512, description="one page of so many neighbours stays, a power of two, 2 to 1024"
    )
    percent_of_free: int = Field(100, ge=1, le=100, description="of the free pages at its start")
    pageblocks: Pageblocks = Field(
        Pageblocks.UNMOVABLE,
        description='"unmovable": kernel memory; "movable": in Movable pageblocks, as pinned user pages',
    )

    @field_validator("one_in_pages")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if not 2 <= value <= 1024 or value & (value - 1):
            raise ValueError("a power of two from 2 to 1024 is wanted")
        return value


def pin_pages(mm: Mm, params: PinPagesParams) -> None:
    """Take aligned blocks of so many pages, keep one page of each, chosen at random, and give the rest back; return.

    The pages stay until the run's end. Free memory below that size is left as it is. Blocks kept as ``unmovable`` turn
    pageblocks Unmovable as kernel memory that falls back does (``steal_suitable_fallback()``, mm/page_alloc.c).
    """
    loads = demand_loads(mm)
    rng = mm.rng(loads.start("pin-pages"))
    order = params.one_in_pages.bit_length() - 1
    wanted = mm.global_free_pages() * params.percent_of_free // 100 >> order
    taken: list[NDArray[np.int64]] = []
    nr_taken = 0
    try:
        while nr_taken < wanted:
            batch = min(_BATCH, wanted - nr_taken)
            got = mm.alloc_pages_batch(_MASKS[params.pageblocks], order, batch)
            nr_taken += len(got)
            taken.append(got)
            if len(got) < batch:
                break
            mm.sched.charge_user(1_000, "demand")
    finally:
        # All blocks are held before any page is given back, or the next block would be made of the first ones' pages.
        for heads in taken:
            _scatter(mm, heads, order, rng.below(1 << order, len(heads)))


def _scatter(mm: Mm, heads: NDArray[np.int64], order: int, kept: NDArray[np.int64]) -> None:
    """Keep one page of each block, and free its other pages."""
    for pfn in heads.tolist():
        mm.split_page(pfn, order)
    demand_loads(mm).pinned.append(heads + kept)
    offsets = np.arange(1 << order, dtype=np.int64)
    pages = heads[:, None] + offsets[None, :]
    mm.free_pages_batch(pages[offsets[None, :] != kept[:, None]], 0)
