"""``compact_zone()`` asks shrinkers for memory it can use, through a third shrinker method (mm/compaction.c).

The review names the call sites and whom to ask; M. Brost's answer asks that opportunistic scans be told from those that
must free. Which request is of which kind is inferred, see `mmfw_policy_compaction_scan.wakers` and the README.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from mmfw import CompactionScan, Metric, MigrateMode, PluginInfo, ScanPhase, attach, attachment, hookimpl
from mmfw.mm.fragmentation import fragmentation_index
from mmfw.sched import PF_KSWAPD, Scheduler
from mmfw_policy_compaction_scan.wakers import Wakers, must_have

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from mmfw import CompactControl, KcompactdWork, KswapdRequest, KswapdWake, Mm, PgdatView, WakePlan

MMFW_PLUGIN: Final = PluginInfo(name="compaction-scan", hook_api=(1, 0), kind="policy")

PAGE_ALLOC_COSTLY_ORDER: Final = 3
#: ``enum zone_watermarks`` (include/linux/mmzone.h), and the bits of ``alloc_flags`` that hold one.
_WMARK_MIN: Final = 0
_WMARK_LOW: Final = 1
_ALLOC_WMARK_MASK: Final = 3
_NR_ORDERS: Final = 11


class Options(BaseModel):
    """What the caller tells the shrinkers."""

    model_config = ConfigDict(extra="forbid")

    distinguish: bool = Field(
        True,
        description="tell scans that ask only for what nobody would miss from those that must free; false: all must",
    )
    pageblocks: bool = Field(
        True,
        description="ask for what is left in each pageblock too, as the migration scanner finishes it; false: only at a "
        "run's begin and end",
    )
    budget_blocks: int = Field(
        2,
        ge=1,
        le=64,
        description="pages that a scan asks for, in blocks of the order; 2 make compact_gap(), the room that compaction "
        "wants for itself",
    )


@dataclass(slots=True)
class Scanning:
    """The policy's state on a node and its zones.

    Attributes
    ----------
    options : Options
        Its options.
    sched : Scheduler
        Who asks.
    extfrag_threshold : int
        ``vm.extfrag_threshold``.
    wakers : Wakers
        Who woke kcompactd.
    nr_scans, nr_must_free : int
        How many scans it planned, and how many of them had to free.
    """

    options: Options
    sched: Scheduler
    extfrag_threshold: int
    wakers: Wakers = field(default_factory=Wakers)
    nr_scans: int = 0
    nr_must_free: int = 0


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Three options."""
    return Options


@hookimpl
def mmfw_module_init(mm: Mm, params: Options) -> None:
    """Attach the state to the node, and to its zones: compaction knows only its zone."""
    state = Scanning(params, mm.sched, mm.pgdat.memory.vm.extfrag_threshold)
    attach(mm.pgdat, state)
    for zone in mm.pgdat.node_zones:
        attach(zone, state)


# --- who woke kcompactd ----------------------------------------------------------------------------------


def _state(pgdat: PgdatView) -> Scanning:
    state = attachment(pgdat, Scanning)
    assert state is not None
    return state


@hookimpl(wrapper=True)
def mmfw_plan_wakeup(pgdat: PgdatView, wake: KswapdWake) -> Generator[None, WakePlan, WakePlan]:
    """Note the waker; the plan is whoever's it was.

    A wrapper and not `mmfw_fold_kswapd_waker`, which is not called for what a policy sends to kcompactd alone.
    """
    plan = yield
    _state(pgdat).wakers.fold(wake, plan)
    return plan


@hookimpl
def mmfw_kswapd_begin(pgdat: PgdatView) -> None:
    """Take the wakers along with kswapd's request."""
    _state(pgdat).wakers.kswapd_begins()


@hookimpl
def mmfw_kswapd_requeue(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Put them back with it."""
    if request.order > 0:
        _state(pgdat).wakers.kswapd_requeues()


@hookimpl(wrapper=True)
def mmfw_should_wake_kcompactd(pgdat: PgdatView) -> Generator[None, bool, bool]:
    """Pass kswapd's wakers on, where it is kswapd that asks; whether kcompactd hears of it is for others to say."""
    asked = yield
    state = _state(pgdat)
    if asked and state.sched.current.flags & PF_KSWAPD:
        state.wakers.kswapd_passes_on()
    return asked


@hookimpl(wrapper=True)
def mmfw_plan_kcompactd_work(pgdat: PgdatView) -> Generator[None, KcompactdWork, KcompactdWork]:
    """Take kcompactd's wakers along with its request; the plan is whoever's it was."""
    work = yield
    _state(pgdat).wakers.kcompactd_begins()
    return work


# --- asking ----------------------------------------------------------------------------------------------


def would_compact(cc: CompactControl, extfrag_threshold: int) -> bool:
    """Whether ``compaction_suitable()`` says CONTINUE."""
    zone, order, hzi = cc.zone, cc.order, cc.highest_zoneidx
    if order < 0:
        return True
    mark = zone.wmark_pages(cc.alloc_flags & _ALLOC_WMARK_MASK)
    if zone.zone_watermark_ok(order, mark, hzi, cc.alloc_flags):
        return False  # the request can be served as it is
    costly = order > PAGE_ALLOC_COSTLY_ORDER
    gap = 2 << order  # compact_gap()
    if not zone.zone_watermark_ok(0, zone.wmark_pages(_WMARK_LOW if costly else _WMARK_MIN) + gap, hzi):
        return False  # too few free pages to move anything into
    if not costly:
        return True
    nr_free = [zone.nr_free(o) for o in range(_NR_ORDERS)]
    return not 0 <= fragmentation_index(nr_free, order) <= extfrag_threshold


def must_free(cc: CompactControl, state: Scanning) -> bool:
    """Whether a run may ask for memory that somebody works with.

    Direct compaction for a request that must have its block, once it is synchronous; kcompactd, if one of its wakers
    must. Not proactive compaction and not /proc/sys/vm/compact_memory.
    """
    if not state.options.distinguish:
        return True
    if cc.direct_compaction:
        return cc.mode is not MigrateMode.ASYNC and must_have(cc.order, cc.gfp_mask)
    if cc.proactive_compaction or cc.order < 0:
        return False
    return state.wakers.kcompactd_run


@hookimpl
def mmfw_plan_compaction_scan(cc: CompactControl, phase: ScanPhase) -> CompactionScan | None:
    """Ask for room for the order: anywhere, before the scanners start, if they would, and when they have met; and in
    each pageblock that they have finished.
    """
    state = attachment(cc.zone, Scanning)
    assert state is not None
    if phase is ScanPhase.PAGEBLOCK and not state.options.pageblocks:
        return None
    if phase is ScanPhase.ENTRY and not would_compact(cc, state.extfrag_threshold):
        return None
    must = must_free(cc, state)
    state.nr_scans += 1
    state.nr_must_free += must
    scan = CompactionScan.of(cc, phase, opportunistic=not must)
    scan.nr_to_free = state.options.budget_blocks << scan.order
    if must and cc.direct_compaction and cc.ignore_block_suitable:  # COMPACT_PRIO_SYNC_FULL
        scan.mode = MigrateMode.SYNC
    return scan


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """How often a scan had to free."""

    def must_free_ratio(mm: Mm) -> float:
        state = attachment(mm.pgdat, Scanning)
        return state.nr_must_free / state.nr_scans if state is not None and state.nr_scans else 0.0

    yield Metric(
        "compaction_scan_must_free_ratio",
        "1",
        "ratio",
        "neither",
        "Share of compaction's scans of the shrinkers that had to free, and were not opportunistic",
        must_free_ratio,
    )
