"""From the compiled loops' trace rows (``TR_*``, `mmfw.jit.page`) to what the kernel's tracepoints print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mmfw.jit import page as pg
from mmfw.proc import compaction_trace as ct
from mmfw.proc import kmem_trace as km
from mmfw.state import PAGEBLOCK_ORDER
from mmfw.tracing.bodies import page_pointer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.proc.tracebody import Body

_NULL: Final = "0" * 16
_PCP_ORDER_MAX: Final = 3


def row_body(row: Sequence[int], pageblock_mt: Callable[[int], int]) -> Body:
    """What the tracepoint of a row prints.

    Parameters
    ----------
    row : sequence of int
        Kind and five values.
    pageblock_mt : callable
        Migratetype of the pageblock of a pfn. ``mm_page_alloc_extfrag`` prints whether the block has changed hands,
        which a row does not hold: it is looked up when the row is read, so if a block changes its type twice between
        two readings, both events show the last state.
    """
    kind, a, b, c, d, e = row
    if kind == pg.TR_PAGE_ALLOC:
        if a < 0:
            return km.PageAlloc(_NULL, 0, b, c, d)
        return km.PageAlloc(page_pointer(a), a, b, c, d)
    if kind == pg.TR_PAGE_FREE:
        return km.PageFree(page_pointer(a), a, b)
    if kind == pg.TR_ZONE_LOCKED:
        return km.PageAllocZoneLocked(page_pointer(a), a, b, c, d)
    if kind == pg.TR_PCPU_DRAIN:
        return km.PagePcpuDrain(page_pointer(a), a, b, c)
    if kind == pg.TR_EXTFRAG:
        changed = int(pageblock_mt(a) == d)
        fragmenting = int(c < PAGEBLOCK_ORDER)
        return km.PageAllocExtfrag(page_pointer(a), a, b, c, PAGEBLOCK_ORDER, d, e, fragmenting, changed)
    if kind == pg.TR_ISOLATE_MIGRATEPAGES:
        return ct.IsolateMigratepages(a, b, c, d)
    if kind == pg.TR_ISOLATE_FREEPAGES:
        return ct.IsolateFreepages(a, b, c, d)
    assert kind == pg.TR_MIGRATEPAGES, kind
    return ct.Migratepages(a, b)


def row_locks(row: Sequence[int]) -> int:
    """Preemption depth at a row's tracepoint from locks held there; interrupts are off if it is not 0.

    ``zone->lock`` is taken with interrupts off. A request that per-CPU lists answer (``rmqueue_pcplist()``), and
    a free that finds its list too long, hold that list's lock and pin the CPU besides. Which of the two paths was
    taken is told from order and migratetype. A drain of whole lists (``drain_pages_zone()``), which does not pin
    the CPU, cannot be told from a list that was too long, and shows the depth of the latter.
    """
    kind, order, mt = row[0], row[2], row[3]
    if kind == pg.TR_PCPU_DRAIN:
        return 3
    if kind == pg.TR_ZONE_LOCKED:
        return 3 if row[4] else 1
    if kind == pg.TR_EXTFRAG:
        mt = row[4]
        pcp = (order <= _PCP_ORDER_MAX or order == PAGEBLOCK_ORDER) and mt < pg.HIGHATOMIC
        return 3 if pcp else 1
    return 0
