"""Tracepoints that fire per decision: typed events to whoever subscribed, nothing when nobody did.

Fields are those of include/trace/events/{vmscan,kmem}.h in 6.1. Per-page events (kmem:*) are rows of
the compiled loops' trace buffer instead (`mmfw.jit.page`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class MmVmscanWakeupKswapd(TraceEvent):
    """mm_vmscan_wakeup_kswapd: a waker finds kswapd asleep and the node unbalanced for it."""

    nid: int
    zid: int
    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class MmVmscanKswapdWake(TraceEvent):
    """mm_vmscan_kswapd_wake: kswapd starts a pass."""

    nid: int
    zid: int
    order: int


@dataclass(frozen=True, slots=True)
class MmVmscanKswapdSleep(TraceEvent):
    """mm_vmscan_kswapd_sleep: kswapd goes to sleep for good."""

    nid: int


@dataclass(frozen=True, slots=True)
class MmVmscanDirectReclaimBegin(TraceEvent):
    """mm_vmscan_direct_reclaim_begin."""

    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class MmVmscanDirectReclaimEnd(TraceEvent):
    """mm_vmscan_direct_reclaim_end."""

    nr_reclaimed: int


@dataclass(frozen=True, slots=True)
class MmShrinkSlabStart(TraceEvent):
    """mm_shrink_slab_start; ``nr_objects_to_shrink`` is the deferred count on entry."""

    shrinker: str
    nid: int
    nr_objects_to_shrink: int
    gfp_flags: int
    cache_items: int
    delta: int
    total_scan: int
    priority: int


@dataclass(frozen=True, slots=True)
class MmShrinkSlabEnd(TraceEvent):
    """mm_shrink_slab_end; ``retval`` is the total freed by the call, ``total_scan`` what is left (may be negative)."""

    shrinker: str
    nid: int
    unused_scan: int
    new_scan: int
    total_scan: int
    retval: int


@dataclass(frozen=True, slots=True)
class MmVmscanLruIsolate(TraceEvent):
    """mm_vmscan_lru_isolate."""

    isolate_mode: int
    classzone: int
    order: int
    nr_requested: int
    nr_scanned: int
    nr_skipped: int
    nr_taken: int
    lru: int


@dataclass(frozen=True, slots=True)
class MmVmscanLruShrinkInactive(TraceEvent):
    """mm_vmscan_lru_shrink_inactive; counts are pages, ``file`` tells which half was shrunk."""

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
    file: bool


@dataclass(frozen=True, slots=True)
class MmVmscanLruShrinkActive(TraceEvent):
    """mm_vmscan_lru_shrink_active; counts are pages, ``file`` tells which half was shrunk."""

    nid: int
    nr_taken: int
    nr_active: int
    nr_deactivated: int
    nr_referenced: int
    priority: int
    file: bool


@dataclass(frozen=True, slots=True)
class MmVmscanWriteFolio(TraceEvent):
    """mm_vmscan_write_folio: reclaim starts to write a folio."""

    pfn: int
    file: bool


@dataclass(frozen=True, slots=True)
class MmVmscanThrottled(TraceEvent):
    """mm_vmscan_throttled; ``reason`` is a bit number of enum vmscan_throttle_state."""

    nid: int
    usec_timeout: int
    usec_delayed: int
    reason: int


@dataclass(frozen=True, slots=True)
class MmCompactionBegin(TraceEvent):
    """mm_compaction_begin: ``compact_zone()`` starts to scan."""

    zone_start: int
    migrate_pfn: int
    free_pfn: int
    zone_end: int
    sync: bool


@dataclass(frozen=True, slots=True)
class MmCompactionEnd(TraceEvent):
    """mm_compaction_end; ``status`` is a `CompactResult`."""

    zone_start: int
    migrate_pfn: int
    free_pfn: int
    zone_end: int
    sync: bool
    status: int


@dataclass(frozen=True, slots=True)
class MmCompactionTryToCompactPages(TraceEvent):
    """mm_compaction_try_to_compact_pages; ``prio`` is a `CompactPriority`."""

    order: int
    gfp_mask: int
    prio: int


@dataclass(frozen=True, slots=True)
class MmCompactionSuitable(TraceEvent):
    """mm_compaction_suitable; ``ret`` is a `CompactResult`, `zone_idx` a zone's index."""

    nid: int
    zone_idx: int
    order: int
    ret: int


@dataclass(frozen=True, slots=True)
class MmCompactionFinished(TraceEvent):
    """mm_compaction_finished; ``ret`` is a `CompactResult`, `zone_idx` a zone's index."""

    nid: int
    zone_idx: int
    order: int
    ret: int


@dataclass(frozen=True, slots=True)
class _CompactionDefer(TraceEvent):
    nid: int
    zone_idx: int
    order: int
    order_failed: int
    considered: int
    defer_shift: int


@dataclass(frozen=True, slots=True)
class MmCompactionDeferred(_CompactionDefer):
    """mm_compaction_deferred: a zone is passed over because of recent failures."""


@dataclass(frozen=True, slots=True)
class MmCompactionDeferCompaction(_CompactionDefer):
    """mm_compaction_defer_compaction: a failure is noted."""


@dataclass(frozen=True, slots=True)
class MmCompactionDeferReset(_CompactionDefer):
    """mm_compaction_defer_reset: a success is noted."""


@dataclass(frozen=True, slots=True)
class MmCompactionMigratepages(TraceEvent):
    """mm_compaction_migratepages: one call of ``migrate_pages()``."""

    nr_migrated: int
    nr_failed: int


@dataclass(frozen=True, slots=True)
class MmCompactionIsolateMigratepages(TraceEvent):
    """mm_compaction_isolate_migratepages: one block scanned for pages to move."""

    start_pfn: int
    end_pfn: int
    nr_scanned: int
    nr_taken: int


@dataclass(frozen=True, slots=True)
class MmCompactionIsolateFreepages(TraceEvent):
    """mm_compaction_isolate_freepages: one block scanned for pages to move to."""

    start_pfn: int
    end_pfn: int
    nr_scanned: int
    nr_taken: int


@dataclass(frozen=True, slots=True)
class MmCompactionKcompactdSleep(TraceEvent):
    """mm_compaction_kcompactd_sleep."""

    nid: int


@dataclass(frozen=True, slots=True)
class MmCompactionWakeupKcompactd(TraceEvent):
    """mm_compaction_wakeup_kcompactd: somebody wakes kcompactd."""

    nid: int
    order: int
    highest_zoneidx: int


@dataclass(frozen=True, slots=True)
class MmCompactionKcompactdWake(TraceEvent):
    """mm_compaction_kcompactd_wake: kcompactd starts to work."""

    nid: int
    order: int
    highest_zoneidx: int


@dataclass(frozen=True, slots=True)
class ReclaimRetryZone(TraceEvent):
    """reclaim_retry_zone (oom): ``should_reclaim_retry()`` looks at a zone."""

    node: int
    zone_idx: int
    order: int
    reclaimable: int
    available: int
    min_wmark: int
    no_progress_loops: int
    wmark_check: bool


@dataclass(frozen=True, slots=True)
class CompactRetry(TraceEvent):
    """compact_retry (oom): ``should_compact_retry()`` decides."""

    order: int
    priority: int
    result: int
    retries: int
    max_retries: int
    ret: bool


@dataclass(frozen=True, slots=True)
class MarkVictim(TraceEvent):
    """mark_victim (oom): a task is chosen to die."""

    pid: int


E = TypeVar("E", bound=TraceEvent)
P = ParamSpec("P")
#: Told of an event by its type and the values of its fields, in order of declaration.
FieldsProbe = Callable[[type[TraceEvent], tuple[Any, ...]], None]


class Tracepoints:
    """Who listens to which event.

    A site that has to compute a field asks `enabled` before, as a kernel site tests its static key.
    """

    def __init__(self) -> None:
        self._by_type: dict[object, list[Callable[[TraceEvent], None]]] = {}
        self._all: list[Callable[[TraceEvent], None]] = []
        self._by_fields: dict[object, list[FieldsProbe]] = {}
        self._read: dict[type[TraceEvent], Callable[[Any], Any]] = {}

    def subscribe(self, event_type: type[E], probe: Callable[[E], None]) -> None:
        """Call ``probe`` with every event of exactly this type, in order of subscription."""
        self._by_type.setdefault(event_type, []).append(probe)  # type: ignore[arg-type] # keyed by the type

    def subscribe_all(self, probe: Callable[[TraceEvent], None]) -> None:
        """Call ``probe`` with every event."""
        self._all.append(probe)

    def subscribe_fields(self, event_type: type[TraceEvent], probe: FieldsProbe) -> None:
        """Call ``probe(event_type, values)`` with every event of exactly this type: cheaper, for none is built for it."""
        self._by_fields.setdefault(event_type, []).append(probe)

    def enabled(self, event_type: type[TraceEvent]) -> bool:
        """Whether anybody listens to a type."""
        return bool(self._all) or event_type in self._by_type or event_type in self._by_fields

    def fire(self, event_type: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the listeners of an event, which is built only for who wants it whole."""
        if self._all or kwargs or event_type in self._by_type:
            self.emit(event_type(*args, **kwargs))
            return
        for probe in self._by_fields.get(event_type, ()):
            probe(event_type, args)  # type: ignore[arg-type] # a class is what it is keyed by

    def emit(self, event: TraceEvent) -> None:
        """Hand an event to its listeners; they may read the simulation but not change it."""
        kind = type(event)
        for probe in self._by_type.get(kind, ()):
            probe(event)
        for probe in self._all:
            probe(event)
        if kind in self._by_fields:
            read = self._read.get(kind)
            if read is None:
                read = self._read[kind] = read_fields(kind)
            for told in self._by_fields[kind]:
                told(kind, read(event))


def read_fields(event_type: type[TraceEvent]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes the values of an event's fields out, in order of declaration."""
    names = [each.name for each in fields(event_type)]
    if len(names) == 1:
        name = names[0]
        return lambda event: (getattr(event, name),)
    return attrgetter(*names)
