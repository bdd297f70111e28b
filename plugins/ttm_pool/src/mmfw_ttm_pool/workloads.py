"""A load that leaves known blocks in the pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from mmfw_ttm_pool.alloc import OperationCtx, ttm_pool_alloc, ttm_pool_free
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import Caching, TtmTt

if TYPE_CHECKING:
    from mmfw import Mm


class PoolFillParams(BaseModel):
    """Objects of one block each, freed into the pools."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: int = Field(8, ge=0, le=10, description="order of the pool; objects have as many pages")
    count: int = Field(2, ge=1, description="blocks that this pool shall hold at the end")
    caching: Caching = Field(Caching.WRITE_COMBINED, description="caching class of the objects")


def pool_fill(mm: Mm, params: PoolFillParams) -> None:
    """Let a driver allocate as many objects as a pool shall hold blocks, then free all of them, if it holds fewer.

    Each object is one block if the pool or the system has one; else its ladder goes down, and smaller blocks end
    up in the pools. The CPUs' lists are emptied before (as ``compact_memory`` does), or a 2 MiB block that an earlier
    load freed would lie on one of them, out of these objects' reach.
    """
    pool = mm.attached.get(TtmPool)
    assert pool is not None, "module_init attaches it"
    pt = pool.select_type(params.caching, False, params.order)
    if pt is None or pt.nr_blocks < params.count:
        mm.drain_all_pages()
        ctx = OperationCtx(gfp_retry_mayfail=True)
        tts = [TtmTt(1 << params.order, params.caching) for _ in range(params.count)]
        for tt in [tt for tt in tts if ttm_pool_alloc(pool, tt, ctx)]:
            ttm_pool_free(pool, tt)
    mm.sched.nanosleep(0)
