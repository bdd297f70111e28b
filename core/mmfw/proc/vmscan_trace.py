"""What the vmscan tracepoints print (``TP_printk()`` of include/trace/events/vmscan.h, 6.1).

Beside them the lines by which a capture's own shrinkers say what reclaim asked of them and what they
answered: a count, a scan, a registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from mmfw.proc.tracebody import Body


@dataclass(frozen=True, slots=True)
class KswapdSleep(Body):
    """kswapd goes to sleep for good."""

    event: ClassVar[str] = "mm_vmscan_kswapd_sleep"
    template: ClassVar[str] = "nid={nid}"
    nid: int


@dataclass(frozen=True, slots=True)
class KswapdWake(Body):
    """kswapd starts a pass; the zone index is recorded but not printed."""

    event: ClassVar[str] = "mm_vmscan_kswapd_wake"
    template: ClassVar[str] = "nid={nid} order={order}"
    nid: int
    order: int


@dataclass(frozen=True, slots=True)
class WakeupKswapd(Body):
    """A waker finds kswapd asleep and the node unbalanced."""

    event: ClassVar[str] = "mm_vmscan_wakeup_kswapd"
    template: ClassVar[str] = "nid={nid} order={order} gfp_flags={gfp_flags}"
    nid: int
    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class DirectReclaimBegin(Body):
    """An allocating task enters reclaim."""

    event: ClassVar[str] = "mm_vmscan_direct_reclaim_begin"
    template: ClassVar[str] = "order={order} gfp_flags={gfp_flags}"
    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class MemcgReclaimBegin(DirectReclaimBegin):
    """A task over its group's limit enters reclaim."""

    event: ClassVar[str] = "mm_vmscan_memcg_reclaim_begin"


@dataclass(frozen=True, slots=True)
class MemcgSoftlimitReclaimBegin(DirectReclaimBegin):
    """kswapd takes from a group over its soft limit."""

    event: ClassVar[str] = "mm_vmscan_memcg_softlimit_reclaim_begin"


@dataclass(frozen=True, slots=True)
class DirectReclaimEnd(Body):
    """An allocating task leaves reclaim; pages."""

    event: ClassVar[str] = "mm_vmscan_direct_reclaim_end"
    template: ClassVar[str] = "nr_reclaimed={nr_reclaimed}"
    nr_reclaimed: int


@dataclass(frozen=True, slots=True)
class MemcgReclaimEnd(DirectReclaimEnd):
    """Reclaim for a group's limit ends; pages."""

    event: ClassVar[str] = "mm_vmscan_memcg_reclaim_end"


@dataclass(frozen=True, slots=True)
class MemcgSoftlimitReclaimEnd(DirectReclaimEnd):
    """Reclaim for a group's soft limit ends; pages."""

    event: ClassVar[str] = "mm_vmscan_memcg_softlimit_reclaim_end"


@dataclass(frozen=True, slots=True)
class NodeReclaimBegin(Body):
    """``node_reclaim()`` starts."""

    event: ClassVar[str] = "mm_vmscan_node_reclaim_begin"
    template: ClassVar[str] = "nid={nid} order={order} gfp_flags={gfp_flags}"
    nid: int
    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class NodeReclaimEnd(DirectReclaimEnd):
    """``node_reclaim()`` ends; pages."""

    event: ClassVar[str] = "mm_vmscan_node_reclaim_end"


@dataclass(frozen=True, slots=True)
class ShrinkSlabStart(Body):
    """``do_shrink_slab()`` knows what it will scan.

    Attributes
    ----------
    shrink, shr : str
        Scan function as ``%pS`` prints it; the shrinker's hashed address, stable within a boot.
    nr_objects_to_shrink : int
        Deferred work that the call took.
    cache_items, delta, total_scan : int
        Objects.
    """

    event: ClassVar[str] = "mm_shrink_slab_start"
    template: ClassVar[str] = (
        "{shrink} {shr}: nid: {nid} objects to shrink {nr_objects_to_shrink} gfp_flags {gfp_flags} "
        "cache items {cache_items} delta {delta} total_scan {total_scan} priority {priority}"
    )
    shrink: str
    shr: str
    nid: int
    nr_objects_to_shrink: int
    gfp_flags: int
    cache_items: int
    delta: int
    total_scan: int
    priority: int


@dataclass(frozen=True, slots=True)
class ShrinkSlabEnd(Body):
    """``do_shrink_slab()`` is done: objects that it freed (``retval``), left over and deferred."""

    event: ClassVar[str] = "mm_shrink_slab_end"
    template: ClassVar[str] = (
        "{shrink} {shr}: nid: {nid} unused scan count {unused_scan} new scan count {new_scan} "
        "total_scan {total_scan} last shrinker return val {retval}"
    )
    shrink: str
    shr: str
    nid: int
    unused_scan: int
    new_scan: int
    total_scan: int
    retval: int


@dataclass(frozen=True, slots=True)
class LruIsolate(Body):
    """Pages were taken off an LRU list."""

    event: ClassVar[str] = "mm_vmscan_lru_isolate"
    template: ClassVar[str] = (
        "isolate_mode={isolate_mode} classzone={classzone} order={order} nr_requested={nr_requested} "
        "nr_scanned={nr_scanned} nr_skipped={nr_skipped} nr_taken={nr_taken} lru={lru}"
    )
    isolate_mode: int
    classzone: int
    order: int
    nr_requested: int
    nr_scanned: int
    nr_skipped: int
    nr_taken: int
    lru: str


@dataclass(frozen=True, slots=True)
class LruShrinkInactive(Body):
    """One batch of an inactive list went through ``shrink_folio_list()``."""

    event: ClassVar[str] = "mm_vmscan_lru_shrink_inactive"
    template: ClassVar[str] = (
        "nid={nid} nr_scanned={nr_scanned} nr_reclaimed={nr_reclaimed} nr_dirty={nr_dirty} "
        "nr_writeback={nr_writeback} nr_congested={nr_congested} nr_immediate={nr_immediate} "
        "nr_activate_anon={nr_activate_anon} nr_activate_file={nr_activate_file} "
        "nr_ref_keep={nr_ref_keep} nr_unmap_fail={nr_unmap_fail} priority={priority} flags={flags}"
    )
    nid: int
    nr_scanned: int
    nr_reclaimed: int
    nr_dirty: int
    nr_writeback: int
    nr_congested: int
    nr_immediate: int
    nr_activate_anon: int
    nr_activate_file: int
    nr_ref_keep: int
    nr_unmap_fail: int
    priority: int
    flags: str


@dataclass(frozen=True, slots=True)
class LruShrinkActive(Body):
    """One batch of an active list was looked at."""

    event: ClassVar[str] = "mm_vmscan_lru_shrink_active"
    template: ClassVar[str] = (
        "nid={nid} nr_taken={nr_taken} nr_active={nr_active} nr_deactivated={nr_deactivated} "
        "nr_referenced={nr_referenced} priority={priority} flags={flags}"
    )
    nid: int
    nr_taken: int
    nr_active: int
    nr_deactivated: int
    nr_referenced: int
    priority: int
    flags: str


@dataclass(frozen=True, slots=True)
class WriteFolio(Body):
    """A folio goes to its backing store."""

    event: ClassVar[str] = "mm_vmscan_write_folio"
    template: ClassVar[str] = "page={page} pfn={hex_pfn} flags={flags}"
    page: str
    hex_pfn: int
    flags: str


@dataclass(frozen=True, slots=True)
class Throttled(Body):
    """A reclaimer slept; microseconds. ``usect`` is the kernel's spelling."""

    event: ClassVar[str] = "mm_vmscan_throttled"
    template: ClassVar[str] = (
        "nid={nid} usec_timeout={usec_timeout} usect_delayed={usec_delayed} reason={reason}"
    )
    nid: int
    usec_timeout: int
    usec_delayed: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeShrinker(Body):
    """A capture registered a shrinker; its scan function is ``probe_scan_<id>``."""

    template: ClassVar[str] = (
        "probe: shrinker id={id} name={name} seeks={seeks} batch={batch} "
        "objects={objects} behaviour={behaviour}"
    )
    id: int
    name: str
    seeks: int
    batch: int
    objects: int
    behaviour: int


@dataclass(frozen=True, slots=True)
class ProbeCount(Body):
    """Its ``count_objects`` returned; -2 is SHRINK_EMPTY."""

    template: ClassVar[str] = "probe: count {name} ret={ret} gfp={gfp} nid={nid} comm={comm}"
    name: str
    ret: int
    gfp: int
    nid: int
    comm: str


@dataclass(frozen=True, slots=True)
class ProbeScan(Body):
    """Its ``scan_objects`` returned; -1 is SHRINK_STOP."""

    template: ClassVar[str] = (
        "probe: scan {name} nr_to_scan={nr_to_scan} ret={ret} nr_scanned={nr_scanned} left={left}"
    )
    name: str
    nr_to_scan: int
    ret: int
    nr_scanned: int
    left: int


VMSCAN_EVENTS: Final[tuple[type[Body], ...]] = (
    KswapdSleep, KswapdWake, WakeupKswapd,
    DirectReclaimBegin, MemcgReclaimBegin, MemcgSoftlimitReclaimBegin,
    DirectReclaimEnd, MemcgReclaimEnd, MemcgSoftlimitReclaimEnd,
    NodeReclaimBegin, NodeReclaimEnd, ShrinkSlabStart, ShrinkSlabEnd,
    LruIsolate, LruShrinkInactive, LruShrinkActive, WriteFolio, Throttled,
)  # fmt: skip

#: What a capture's shrinkers print, by its beginning.
PROBE_LINES: Final[tuple[tuple[str, type[Body]], ...]] = (
    ("probe: scan ", ProbeScan),
    ("probe: count ", ProbeCount),
    ("probe: shrinker ", ProbeShrinker),
)
