"""What the compaction tracepoints print (``TP_printk()`` of include/trace/events/compaction.h, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from mmfw.proc.tracebody import Body


@dataclass(frozen=True, slots=True)
class IsolateMigratepages(Body):
    """A stretch was scanned for pages to move: first pfn, first pfn not scanned, pages."""

    event: ClassVar[str] = "mm_compaction_isolate_migratepages"
    template: ClassVar[str] = "range=({start_pfn} ~ {end_pfn}) nr_scanned={nr_scanned} nr_taken={nr_taken}"
    start_pfn: int
    end_pfn: int
    nr_scanned: int
    nr_taken: int


@dataclass(frozen=True, slots=True)
class IsolateFreepages(IsolateMigratepages):
    """A stretch was scanned for free pages."""

    event: ClassVar[str] = "mm_compaction_isolate_freepages"


@dataclass(frozen=True, slots=True)
class Migratepages(Body):
    """One call of ``migrate_pages()``; pages."""

    event: ClassVar[str] = "mm_compaction_migratepages"
    template: ClassVar[str] = "nr_migrated={nr_migrated} nr_failed={nr_failed}"
    nr_migrated: int
    nr_failed: int


@dataclass(frozen=True, slots=True)
class CompactionBegin(Body):
    """``compact_zone()`` starts to scan; `mode` is sync or async."""

    event: ClassVar[str] = "mm_compaction_begin"
    template: ClassVar[str] = (
        "zone_start={start_pfn} migrate_pfn={migrate_pfn} free_pfn={free_pfn} zone_end={end_pfn}, mode={mode}"
    )
    start_pfn: int
    migrate_pfn: int
    free_pfn: int
    end_pfn: int
    mode: str


@dataclass(frozen=True, slots=True)
class CompactionEnd(CompactionBegin):
    """``compact_zone()`` has scanned; `status` is a `COMPACTION_STATUS`."""

    event: ClassVar[str] = "mm_compaction_end"
    template: ClassVar[str] = CompactionBegin.template + " status={status}"
    status: str


@dataclass(frozen=True, slots=True)
class TryToCompactPages(Body):
    """Direct compaction starts; 2 is async, 0 tries hardest."""

    event: ClassVar[str] = "mm_compaction_try_to_compact_pages"
    template: ClassVar[str] = "order={order} gfp_mask={gfp_flags} priority={priority}"
    order: int
    gfp_flags: int
    priority: int


@dataclass(frozen=True, slots=True)
class CompactionSuitable(Body):
    """Whether a zone is worth compacting; `result` is a `COMPACTION_STATUS`."""

    event: ClassVar[str] = "mm_compaction_suitable"
    template: ClassVar[str] = "node={node} zone={zone} order={order} ret={result}"
    node: int
    zone: str
    order: int
    result: str


@dataclass(frozen=True, slots=True)
class CompactionFinished(CompactionSuitable):
    """Whether compaction of a zone may end."""

    event: ClassVar[str] = "mm_compaction_finished"


@dataclass(frozen=True, slots=True)
class CompactionDeferred(Body):
    """A zone is passed over because of recent failures; `limit` is ``1 << compact_defer_shift``."""

    event: ClassVar[str] = "mm_compaction_deferred"
    template: ClassVar[str] = (
        "node={node} zone={zone} order={order} order_failed={order_failed} "
        "consider={considered} limit={limit}"
    )
    node: int
    zone: str
    order: int
    order_failed: int
    considered: int
    limit: int


@dataclass(frozen=True, slots=True)
class DeferCompaction(CompactionDeferred):
    """A failure is noted."""

    event: ClassVar[str] = "mm_compaction_defer_compaction"


@dataclass(frozen=True, slots=True)
class DeferReset(CompactionDeferred):
    """A success is noted."""

    event: ClassVar[str] = "mm_compaction_defer_reset"


@dataclass(frozen=True, slots=True)
class KcompactdSleep(Body):
    """kcompactd goes to sleep."""

    event: ClassVar[str] = "mm_compaction_kcompactd_sleep"
    template: ClassVar[str] = "nid={nid}"
    nid: int


@dataclass(frozen=True, slots=True)
class KcompactdWake(Body):
    """kcompactd starts to work; ``classzone_idx`` is the kernel's old name of the highest zone index."""

    event: ClassVar[str] = "mm_compaction_kcompactd_wake"
    template: ClassVar[str] = "nid={nid} order={order} classzone_idx={zone}"
    nid: int
    order: int
    zone: str


@dataclass(frozen=True, slots=True)
class WakeupKcompactd(KcompactdWake):
    """Somebody wakes kcompactd."""

    event: ClassVar[str] = "mm_compaction_wakeup_kcompactd"


COMPACTION_EVENTS: Final[tuple[type[Body], ...]] = (
    IsolateMigratepages, IsolateFreepages, Migratepages, CompactionBegin, CompactionEnd, TryToCompactPages,
    CompactionFinished, CompactionSuitable, CompactionDeferred, DeferCompaction, DeferReset,
    KcompactdSleep, WakeupKcompactd, KcompactdWake,
)  # fmt: skip
