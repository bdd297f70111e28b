"""A load that keeps kswapd at work until a share of the cached objects is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import gfp
from mmfw_dcache.objects import Ints
from mmfw_dcache.storms import tree_of
from mmfw_dcache.tree import Tree

if TYPE_CHECKING:
    from mmfw import Mm

#: Wakes kswapd and never reclaims by itself, so that what goes is kswapd's doing.
PRESSURE_GFP: Final = (gfp.GFP_KERNEL | gfp.NOWARN | gfp.NORETRY | gfp.COMP) & ~gfp.DIRECT_RECLAIM
#: Pages asked for between two looks at what is left.
_STEP_PAGES: Final = 512


class PressureParams(BaseModel):
    """Unmovable blocks, allocated and kept."""

    order: int = Field(0, ge=0, le=10, description="order of the blocks")
    percent: float = Field(95, gt=0, le=100, description="share of the unpinned objects that is to go")
    pause_us: int = Field(1_000, ge=1, description="pause after a request that failed, us")
    give_up_ms: int = Field(5_000, ge=1, description="ends if no object has gone for so long, virtual ms")


def reclaim_objects(mm: Mm, params: PressureParams) -> None:
    """Allocate, without direct reclaim, until kswapd has taken enough; then give all back.

    A request that fails wakes kswapd and is made again after a pause. The load ends when so many objects have been
    freed as `percent` of those that nobody held open as it began, or when nothing goes any more.
    """
    tree = tree_of(mm, "reclaim-objects")
    goal = nr_evicted(tree) + int(tree.sb.nr_unpinned() * params.percent / 100)
    pages: list[Ints] = []
    sched = mm.sched
    last, since = nr_evicted(tree), sched.now
    try:
        while (now_gone := nr_evicted(tree)) < goal:
            if now_gone > last:
                last, since = now_gone, sched.now
            elif sched.now - since > params.give_up_ms * 1_000_000:
                break
            wanted = max(1, _STEP_PAGES >> params.order)
            got = mm.alloc_pages_batch(PRESSURE_GFP, params.order, wanted)
            if len(got):
                pages.append(got)
            sched.nanosleep(params.pause_us * 1_000 if len(got) < wanted else 1)
    finally:
        for block in pages:
            mm.free_pages_batch(block, params.order)


def nr_evicted(tree: Tree) -> int:
    """Objects of both kinds that reclaim has freed since the start."""
    return tree.sb.dentries.nr_evicted + tree.sb.inodes.nr_evicted
