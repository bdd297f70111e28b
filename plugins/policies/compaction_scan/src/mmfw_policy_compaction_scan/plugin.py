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
from mmfw_policy_compaction_scan.wakers import Wakers, must_have

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from mmfw import KswapdWake, Mm, PgdatView, WakePlan, ZoneView
    from mmfw.types import CompactControl, KswapdRequest

MMFW_PLUGIN: Final = PluginInfo(name="compaction-scan", hook_api=(1, 0), kind="policy")

PAGE_ALLOC_COSTLY_ORDER: Final = 3
#: ``vm.extfrag_threshold``.
_EXTFRAG_THRESHOLD: Final = 500
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


@dataclass(slots=True)
class Scanning:
    """The policy's state on a node and its zones: its options, who woke kcompactd, and how many scans it planned."""

    options: Options
    wakers: Wakers = field(default_factory=Wakers)
    nr_scans: int = 0
    nr_must_free: int = 0


@dataclass(frozen=True, slots=True)
class KcompactdRequest:
    """Attached to a run of kcompactd: whether any of its wakers must have its block."""

    must_free: bool


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """One option."""
    return Options


@hookimpl
def mmfw_module_init(mm: Mm, params: Options) -> None:
    """Attach the state to the node, and to its zones: compaction knows only its zone."""
    state = Scanning(params)
    attach(mm.pgdat, state)
    for zone in mm.pgdat.node_zones:
        attach(zone, state)


# --- who woke kcompactd ----------------------------------------------------------------------------------


def _wakers(pgdat: PgdatView) -> Wakers:
    state = attachment(pgdat, Scanning)
    assert state is not None
    return state.wakers


@hookimpl(wrapper=True)
def mmfw_plan_wakeup(pgdat: PgdatView, wake: KswapdWake) -> Generator[None, WakePlan, WakePlan]:
    """Note the waker; the plan is whoever's it was.

    A wrapper and not `mmfw_fold_kswapd_waker`, which is not called for what a policy sends to kcompactd alone.
    """
    plan = yield
    _wakers(pgdat).fold(wake, plan)
    return plan


@hookimpl
def mmfw_kswapd_begin(pgdat: PgdatView) -> None:
    """Take the wakers along with kswapd's request."""
    _wakers(pgdat).kswapd_begins()


@hookimpl
def mmfw_kswapd_requeue(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Put them back with it."""
    if request.order > 0:
        _wakers(pgdat).kswapd_requeues()


# --- asking ----------------------------------------------------------------------------------------------


def free_above(zone: ZoneView, mark: int, highest_zoneidx: int) -> int:
    """Pages that a zone has for single-page requests beyond a mark; at 0 or below it is short."""
    return zone.nr_free_pages - zone.nr_reserved_highatomic - mark - zone.lowmem_reserve[highest_zoneidx]


def would_compact(cc: CompactControl) -> bool:
    """Whether ``compaction_suitable()`` says CONTINUE, as far as a policy can tell.

    It cannot see whose lists free blocks are on, nor does it grant access to reserves. That matters only if the
    last free block of the order is reserved, or if reserves are all that is left.
    """
    zone, order, hzi = cc.zone, cc.order, cc.highest_zoneidx
    if order < 0:
        return True
    nr_free = [zone.nr_free(o) for o in range(_NR_ORDERS)]
    mark = zone.wmark_pages(cc.alloc_flags & _ALLOC_WMARK_MASK)
    if any(nr_free[order:]) and free_above(zone, mark, hzi) > (1 << order) - 1:
        return False  # the request can be served as it is
    mark = zone.wmark_pages(_WMARK_LOW if order > PAGE_ALLOC_COSTLY_ORDER else _WMARK_MIN)
    if free_above(zone, mark, hzi) <= 2 << order:
        return False  # too few free pages to move anything into
    return (
        order <= PAGE_ALLOC_COSTLY_ORDER or not 0 <= fragmentation_index(nr_free, order) <= _EXTFRAG_THRESHOLD
    )


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
    request = attachment(cc, KcompactdRequest)
    return request is not None and request.must_free


@hookimpl
def mmfw_plan_compaction_scan(cc: CompactControl, phase: ScanPhase) -> CompactionScan | None:
    """Ask for a block of the order, anywhere: before the scanners start, if they would, and when they have met."""
    if phase is ScanPhase.PAGEBLOCK:
        return None
    state = attachment(cc.zone, Scanning)
    assert state is not None
    kcompactd = not cc.direct_compaction and not cc.proactive_compaction and cc.order > 0
    if kcompactd and attachment(cc, KcompactdRequest) is None:
        attach(cc, KcompactdRequest(state.wakers.kcompactd_takes()))
    if phase is ScanPhase.ENTRY and not would_compact(cc):
        return None
    must = must_free(cc, state)
    state.nr_scans += 1
    state.nr_must_free += must
    scan = CompactionScan.of(cc, phase, opportunistic=not must)
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
