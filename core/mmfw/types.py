"""What crosses the plugin boundary: control structs, enums, what hooks return, and the bound ops.

Control structs carry a request through many calls, as in the kernel; each field says whether the callee
reads it or writes it. Fields marked ``+`` are not in 6.1. A policy adds a field of its own as its patch does, by an
attachment (`mmfw.attachments`). What plugins offer to assembly is in `mmfw.offers`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from mmfw.attachments import Attachments
from mmfw.views import PgdatView as PgdatView
from mmfw.views import ZoneView as ZoneView

#: The shrinker cannot make progress now (include/linux/shrinker.h); there ~0UL, here never a count.
SHRINK_STOP: Final[int] = -1
#: The shrinker has nothing at all (include/linux/shrinker.h); there ~0UL - 1.
SHRINK_EMPTY: Final[int] = -2
#: First and mildest scan priority: a pass looks at ``size >> priority`` (include/linux/mmzone.h).
DEF_PRIORITY: Final[int] = 12
#: Seeks it takes to bring an object back, where a shrinker does not say (include/linux/shrinker.h).
DEFAULT_SEEKS: Final[int] = 2
#: Objects asked for in one ``scan_objects`` call, where a shrinker does not say (mm/vmscan.c).
SHRINK_BATCH: Final[int] = 128
#: Pages reclaimed, isolated or migrated in one batch (include/linux/swap.h).
SWAP_CLUSTER_MAX: Final[int] = 32


class MigrateMode(IntEnum):
    """``enum migrate_mode`` (include/linux/migrate_mode.h)."""

    ASYNC = 0
    SYNC_LIGHT = 1
    SYNC = 2


class CompactResult(IntEnum):
    """``enum compact_result`` (include/linux/compaction.h); callers take the maximum over zones."""

    NOT_SUITABLE_ZONE = 0  #: for tracepoints only
    SKIPPED = 1
    DEFERRED = 2
    NO_SUITABLE_PAGE = 3  #: for tracepoints only
    CONTINUE = 4
    COMPLETE = 5
    PARTIAL_SKIPPED = 6
    CONTENDED = 7
    SUCCESS = 8


class CompactPriority(IntEnum):
    """``enum compact_priority`` (include/linux/compaction.h); smaller tries harder."""

    SYNC_FULL = 0
    SYNC_LIGHT = 1
    ASYNC = 2


class WakeReason(Enum):
    """Which caller of ``wakeup_kswapd()`` asks."""

    SLOWPATH = "slowpath"  #: wake_all_kswapds(), mm/page_alloc.c
    BOOST = "boost"  #: a boosted watermark, rmqueue(), mm/page_alloc.c
    NUMA_MIGRATE = "numa_migrate"  #: no room on the target node, numamigrate_isolate_page(), mm/migrate.c


class Reclaimer(Enum):
    """Who runs the reclaim pass a decision is about."""

    KSWAPD = "kswapd"
    DIRECT = "direct"
    MEMCG = "memcg"
    PROACTIVE = "proactive"


class ScanPhase(Enum):
    """Where in ``compact_zone()`` a compaction scan is considered."""

    ENTRY = "entry"
    PAGEBLOCK = "pageblock"
    FINISH = "finish"


#: ``pageblock_order`` of x86-64; `mmfw.state` has it too, but this module stays a leaf.
_PAGEBLOCK_ORDER: Final = 9
#: ``MAX_ORDER`` (11 in 6.1) and ``MAX_NR_ZONES`` of `mmfw.state`, likewise.
_NR_ORDERS: Final = 11
_MAX_NR_ZONES: Final = 5
#: Pages of a 64-bit address space; a larger count of them means nothing, and does not fit compiled code.
_MAX_PAGES: Final = 1 << 52


def _set_int(struct: object, name: str, highest: int, *, none: str | None = None) -> None:
    """Check one field of a frozen struct, which a plugin filled in: an int from 0 to `highest`.

    An integer of an array library becomes an int, for it would compare, print and overflow unlike the others. A bool is
    none: it is a slip, such as a comparison in place of an order.

    Parameters
    ----------
    none : str, optional
        What None says there; None is refused without it.

    Raises
    ------
    ValueError
        Anything else.
    """
    value: object = getattr(struct, name)
    if (type(value) is int and 0 <= value <= highest) or (value is None and none is not None):
        return
    try:
        found = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type] # what it is not, is caught
    except TypeError:
        found = None
    if found is None or not 0 <= found <= highest:
        an_int = "" if type(value) is int else "an int, "
        or_none = "" if none is None else f", or None {none},"
        raise ValueError(f"{name} is {value!r}; {an_int}0 to {highest}{or_none} is wanted")
    object.__setattr__(struct, name, found)


# --- control structs ---------------------------------------------------------------------------------


@dataclass(slots=True)
class ShrinkControl:
    """``struct shrink_control`` (include/linux/shrinker.h).

    Attributes
    ----------
    gfp_mask : int
        In: mask of the allocation reclaim works for.
    nid : int
        In: node being shrunk.
    nr_to_scan : int
        In: objects to look at; set before every ``scan_objects``.
    nr_scanned : int
        In/out: set to `nr_to_scan` before the call; the callee corrects it to what it looked at.
    priority : int
        In, +: scan priority of the pass, `DEF_PRIORITY` down to 0.
    attached : Attachments, optional
        +: fields of policies, put there by `mmfw_init_shrink_control`. The order that reclaim works for is not here, as
        it is not in 6.1: who adds it attaches it.
    """

    gfp_mask: int
    nid: int
    nr_to_scan: int = 0
    nr_scanned: int = 0
    priority: int = DEF_PRIORITY
    attached: Attachments | None = None


@dataclass(slots=True)
class ScanCounts:
    """``scan_control.nr``: what one pass over the LRU lists met, in pages."""

    dirty: int = 0
    unqueued_dirty: int = 0
    congested: int = 0
    writeback: int = 0
    immediate: int = 0
    file_taken: int = 0
    taken: int = 0


@dataclass(slots=True)
class ScanControl:
    """``struct scan_control`` (mm/vmscan.c): one reclaim pass.

    Attributes
    ----------
    nr_to_reclaim : int
        In: pages wanted.
    order, gfp_mask : int
        In: the allocation reclaim works for.
    priority : int
        In/out: scan priority, falls as the pass goes on without progress.
    reclaim_idx : int
        In: highest zone index whose pages help.
    may_writepage, may_unmap, may_swap, proactive : bool
        In: as in the kernel.
    force_deactivate : bool
        In: deactivate whatever refaults say; a second try of direct reclaim.
    may_deactivate_anon, may_deactivate_file : bool
        Out: the bits of ``may_deactivate``.
    skipped_deactivate : bool
        Out: an active list was left alone because its bit was not set.
    cache_trim_mode, file_is_tiny : bool
        Out: how ``get_scan_count()`` will balance anonymous and file pages.
    anon_cost, file_cost : int
        Out: the lruvec's costs, as the pass began.
    nr_scanned, nr_reclaimed : int
        Out: pages.
    compaction_ready : bool
        Out: some zone has room enough to compact, so reclaim may stop.
    nr : ScanCounts
        Out: what the last ``shrink_node()`` met.
    attached : Attachments, optional
        +: fields of policies.
    """

    nr_to_reclaim: int
    order: int
    priority: int
    reclaim_idx: int
    gfp_mask: int
    may_writepage: bool
    may_unmap: bool
    may_swap: bool
    proactive: bool = False
    force_deactivate: bool = False
    may_deactivate_anon: bool = False
    may_deactivate_file: bool = False
    skipped_deactivate: bool = False
    cache_trim_mode: bool = False
    file_is_tiny: bool = False
    anon_cost: int = 0
    file_cost: int = 0
    nr_scanned: int = 0
    nr_reclaimed: int = 0
    compaction_ready: bool = False
    nr: ScanCounts = field(default_factory=ScanCounts)
    attached: Attachments | None = None


@dataclass(frozen=True, slots=True)
class ReclaimContext:
    """+ What a decision about ``shrink_slab()`` may know; answers `mmfw_should_shrink_slab`.

    Attributes
    ----------
    pgdat : PgdatView
        Node being reclaimed.
    sc : ScanControl
        The pass; a decision reads it and does not change it.
    caller : Reclaimer
        Who runs the pass.
    """

    pgdat: PgdatView
    sc: ScanControl
    caller: Reclaimer

    @property
    def order(self) -> int:
        """Order of the allocation the pass works for; 0 once kswapd has dropped it."""
        return self.sc.order


@dataclass(slots=True)
class CompactControl:
    """``struct compact_control`` (mm/internal.h): one run of compaction over a zone.

    Attributes
    ----------
    zone : ZoneView
        In: zone being compacted.
    order, gfp_mask, migratetype : int
        In: the allocation compaction works for; order -1 compacts as far as it goes.
    alloc_flags, highest_zoneidx : int
        In: of that allocation.
    mode : MigrateMode
        In: how long migration waits.
    free_pfn, migrate_pfn : int
        In/out: where the two scanners stand.
    nr_freepages, nr_migratepages : int
        Out: pages isolated and held by either scanner.
    total_migrate_scanned, total_free_scanned : int
        Out: pages looked at.
    whole_zone, ignore_skip_hint, ignore_block_suitable, no_set_skip_hint : bool
        In: as in the kernel.
    direct_compaction, proactive_compaction : bool
        In: who runs it.
    fast_search_fail, search_order : int
        In/out: state of the searches of the free lists.
    fast_start_pfn : int
        In/out: lowest free page that the fast search met.
    contended, rescan : bool
        Out: the run should end; the same block is scanned a second time.
    attached : Attachments, optional
        +: fields of policies.
    """

    zone: ZoneView
    order: int
    gfp_mask: int
    migratetype: int
    alloc_flags: int
    highest_zoneidx: int
    mode: MigrateMode
    free_pfn: int = 0
    migrate_pfn: int = 0
    nr_freepages: int = 0
    nr_migratepages: int = 0
    total_migrate_scanned: int = 0
    total_free_scanned: int = 0
    whole_zone: bool = False
    ignore_skip_hint: bool = False
    ignore_block_suitable: bool = False
    no_set_skip_hint: bool = False
    direct_compaction: bool = False
    proactive_compaction: bool = False
    fast_search_fail: int = 0
    search_order: int = 0
    fast_start_pfn: int = 0
    contended: bool = False
    rescan: bool = False
    attached: Attachments | None = None


@dataclass(slots=True)
class CompactionScan:
    """+ Argument of the proposed third shrinker method, ``compaction_scan``.

    Attributes
    ----------
    zone : ZoneView
        In: zone being compacted.
    nid, order : int
        In: its node, and the order compaction wants.
    pfn_lo, pfn_hi : int
        In: range, `pfn_hi` exclusive, in which a freed page helps most.
    nr_to_free : int
        In: pages after which the callee may stop.
    opportunistic : bool
        In: True asks only for memory nobody would miss; False must free, a working set may go.
    mode : MigrateMode
        In: how long the caller would wait.
    gfp_mask, migratetype : int
        In: of the allocation compaction works for.
    phase : ScanPhase
        In: where ``compact_zone()`` stands.
    attached : Attachments, optional
        Fields of policies.
    nr_scanned : int
        Out: objects looked at.
    """

    zone: ZoneView
    nid: int
    order: int
    pfn_lo: int
    pfn_hi: int
    nr_to_free: int
    opportunistic: bool
    mode: MigrateMode
    gfp_mask: int
    migratetype: int
    phase: ScanPhase
    attached: Attachments | None = None
    nr_scanned: int = 0

    @classmethod
    def of(cls, cc: CompactControl, phase: ScanPhase, *, opportunistic: bool) -> CompactionScan:
        """What a run of compaction wants: one block of its order; 2 MiB if it compacts all.

        Anywhere in its zone; after a pageblock, in that one.
        """
        zone, order = cc.zone, cc.order if cc.order >= 0 else _PAGEBLOCK_ORDER
        start = zone.zone_start_pfn
        end = start + zone.spanned_pages
        if phase is ScanPhase.PAGEBLOCK:
            start, end = (cc.migrate_pfn - 1) >> _PAGEBLOCK_ORDER << _PAGEBLOCK_ORDER, cc.migrate_pfn
        return cls(
            zone=zone,
            nid=zone.node,
            order=order,
            pfn_lo=start,
            pfn_hi=end,
            nr_to_free=1 << order,
            opportunistic=opportunistic,
            mode=cc.mode,
            gfp_mask=cc.gfp_mask,
            migratetype=cc.migratetype,
            phase=phase,
        )

    def check(self) -> None:
        """Check what a policy asks; where it is asked and not where it is made, for a policy may change it meanwhile.

        Raises
        ------
        ValueError
            A field is of another type, or there is nothing such.
        """
        for name, highest in _SCAN_INTS:
            _set_int(self, name, highest)
        for name, kind in _SCAN_KINDS:
            value: object = getattr(self, name)
            if type(value) is not kind:
                raise ValueError(f"{name} is {value!r}; a {kind.__name__} is wanted")


_SCAN_INTS: Final = (
    ("nid", (1 << 10) - 1),
    ("order", _NR_ORDERS - 1),
    ("pfn_lo", _MAX_PAGES),
    ("pfn_hi", _MAX_PAGES),
    ("nr_to_free", _MAX_PAGES),
    ("gfp_mask", (1 << 32) - 1),
    ("migratetype", (1 << 31) - 1),
)
_SCAN_KINDS: Final = (("opportunistic", bool), ("mode", MigrateMode), ("phase", ScanPhase))


@dataclass(frozen=True, slots=True)
class KswapdWake:
    """Arguments of ``wakeup_kswapd()`` (mm/vmscan.c), and who called it."""

    order: int
    gfp_mask: int
    highest_zoneidx: int
    reason: WakeReason


@dataclass(frozen=True, slots=True)
class KswapdRequest:
    """What kswapd was asked for, as it takes it or puts it back (``kswapd()``, mm/vmscan.c).

    Attributes
    ----------
    order : int
        Highest order of its wakers.
    highest_zoneidx : int
        Zones that they may use.
    """

    order: int
    highest_zoneidx: int


@dataclass(frozen=True, slots=True)
class WakePlan:
    """What a wake-up becomes; returned by `mmfw_plan_wakeup`.

    Attributes
    ----------
    kswapd_order : int or None
        Order to ask of kswapd; None leaves it asleep and records nothing.
    kswapd_min_free_pages : int
        Free pages beyond the high watermark that some zone shall have before kswapd counts the node as balanced; of
        several wakers the largest holds.
    kcompactd_order : int or None
        Order to ask of kcompactd besides; None adds no wake-up to those of mainline.

    Raises
    ------
    ValueError
        An order that there is not, 0 to 10 being there, or pages that are no count.
    """

    kswapd_order: int | None
    kswapd_min_free_pages: int = 0
    kcompactd_order: int | None = None

    def __post_init__(self) -> None:
        _set_int(self, "kswapd_order", _NR_ORDERS - 1, none="to leave it asleep")
        _set_int(self, "kswapd_min_free_pages", _MAX_PAGES)
        _set_int(self, "kcompactd_order", _NR_ORDERS - 1, none="to add no wake-up")


@dataclass(frozen=True, slots=True)
class KcompactdRequest:
    """What kcompactd is, or was, asked for (``wakeup_kcompactd()``, ``kcompactd_do_work()``, mm/compaction.c).

    Attributes
    ----------
    order : int
        Order wanted, above 0.
    highest_zoneidx : int
        Zones that the asking may use.
    """

    order: int
    highest_zoneidx: int


@dataclass(frozen=True, slots=True)
class KcompactdWork:
    """What kcompactd does about a request; returned by `mmfw_plan_kcompactd_work`.

    Attributes
    ----------
    order : int
        Order to compact for, at most 10; 0 compacts nothing.
    highest_zoneidx : int
        Highest zone index to compact, 0 to 4.
    mode : MigrateMode
        How long migration waits.

    Raises
    ------
    ValueError
        An order, a zone index or a mode that there is not.
    """

    order: int
    highest_zoneidx: int
    mode: MigrateMode = MigrateMode.SYNC_LIGHT

    def __post_init__(self) -> None:
        _set_int(self, "order", _NR_ORDERS - 1)
        _set_int(self, "highest_zoneidx", _MAX_NR_ZONES - 1)
        mode: object = self.mode
        if type(mode) is not MigrateMode:
            raise ValueError(
                f"mode is {mode!r}; a MigrateMode ({', '.join(MigrateMode.__members__)}) is wanted"
            )


# --- what mm calls -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MmOps:
    """Every decision of mm as a plain callable; filled by `mmfw.binding.bind_mm_ops`.

    Each field is the hook of the same name without ``mmfw_``. None ever answers None, but for
    `plan_compaction_scan`, whose None means that nobody is asked.
    """

    plan_wakeup: Callable[[PgdatView, KswapdWake], WakePlan]
    should_shrink_slab: Callable[[ReclaimContext], bool]
    #: None asks no shrinker to scan for compaction, as mainline.
    plan_compaction_scan: Callable[[CompactControl, ScanPhase], CompactionScan | None] | None = None
    #: None wakes kcompactd for whoever asks, as mainline.
    should_wake_kcompactd: Callable[[PgdatView, KcompactdRequest], bool] | None = None
    #: None does what was asked, as mainline.
    plan_kcompactd_work: Callable[[PgdatView, KcompactdRequest], KcompactdWork] | None = None
    #: None counts every pass that reclaimed nothing, as mainline.
    should_count_kswapd_failure: Callable[[PgdatView, ScanControl], bool] | None = None
    #: Amendments; None where no plugin makes any.
    fold_kswapd_waker: Callable[[PgdatView, KswapdWake], None] | None = None
    kswapd_begin: Callable[[PgdatView, KswapdRequest], None] | None = None
    kswapd_requeue: Callable[[PgdatView, KswapdRequest], None] | None = None
    init_shrink_control: Callable[[ShrinkControl, ReclaimContext], None] | None = None


@dataclass(frozen=True, slots=True)
class ShrinkerOps:
    """``struct shrinker`` as mm calls it; filled by `mmfw.binding.bind_shrinker`.

    Attributes
    ----------
    count_objects, scan_objects : callable
        As in `mmfw.hookspecs.ShrinkerOpsSpec`.
    compaction_scan : callable or None
        None is the kernel's NULL pointer.
    name : str
        Name given at registration, as in /sys/kernel/debug/shrinker.
    seeks : int
        Cost of bringing an object back; 0 means none.
    batch : int
        Objects per scan call; 0 means `SHRINK_BATCH`.
    flags : int
        ``SHRINKER_*`` bits.
    plugin : str
        Short name of the plugin that registered it.
    compaction_holds : callable or None
        None says that it cannot tell whose a page is, and is not asked for what lies in one pageblock.
    """

    count_objects: Callable[[ShrinkControl], int]
    scan_objects: Callable[[ShrinkControl], int]
    compaction_scan: Callable[[CompactionScan], int] | None
    name: str
    seeks: int
    batch: int
    flags: int
    plugin: str
    compaction_holds: Callable[[CompactionScan], int] | None = None
