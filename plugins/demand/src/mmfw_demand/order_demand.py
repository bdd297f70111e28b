"""Workload ``order-demand``: blocks of one order, asked for with one mask, held for a while."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from mmfw_demand.loads import demand_loads
from mmfw_demand.masks import OPPORTUNISTIC, GfpMask
from mmfw_demand.pace import NSEC_PER_SEC, Pace

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_MSEC = 1_000_000


class OrderDemandParams(BaseModel):
    """Requests of one kind."""

    order: int = Field(9, ge=0, le=10, description="order of every request")
    gfp_mask: GfpMask = Field(
        OPPORTUNISTIC, validate_default=True, description='flags by name, such as "GFP_KERNEL|__GFP_NORETRY"'
    )
    per_second: float = Field(100.0, ge=0, le=1e6, description="requests a second; 0: back to back")
    hold_ms: int = Field(
        0, ge=-1, description="ms each block is held; 0: not at all; -1: until the load is killed"
    )
    count: int = Field(0, ge=0, description="requests until the load returns; 0: endless")


def order_demand(mm: Mm, params: OrderDemandParams) -> None:
    """Ask for blocks until `count` requests were made and what they got was held as long as is wanted.

    The blocks are the task's own (``alloc_pages()``), so neither reclaim nor compaction can have them; with
    ``__GFP_MOVABLE`` in the mask they lie in Movable pageblocks all the same, as long-term pinned user pages do. Movable
    memory that stays movable is ``anon-pressure``'s. A request that failed is not repeated.
    """
    loads, sched = demand_loads(mm), mm.sched
    loads.start("order-demand")
    pace = Pace(mm, params.per_second)
    held: deque[tuple[int, int]] = deque()
    left = params.count or -1
    try:
        while left or held:
            while held and held[0][0] <= sched.now:
                mm.free_pages(held.popleft()[1], params.order)
            if left and pace.due:
                pace.turn_begins()
                left -= left > 0
                loads.requests += 1
                pfn = mm.alloc_pages(params.gfp_mask, params.order)
                if pfn < 0:
                    loads.failures += 1
                elif params.hold_ms == 0:
                    mm.free_pages(pfn, params.order)
                else:
                    held.append((_free_at(sched.now, params.hold_ms), pfn))
            until = held[0][0] if held else None
            if left:
                pace.wait(until)
            elif until is not None and until > sched.now:
                sched.nanosleep(min(until - sched.now, NSEC_PER_SEC))
    finally:
        for _, pfn in held:
            mm.free_pages(pfn, params.order)


def _free_at(now: int, hold_ms: int) -> int:
    return (1 << 62) if hold_ms == -1 else now + hold_ms * NSEC_PER_MSEC
