"""What the oom tracepoints print (``TP_printk()`` of include/trace/events/oom.h, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from mmfw.proc.tracebody import Body


@dataclass(frozen=True, slots=True)
class RetryZone(Body):
    """``should_reclaim_retry()`` looks at a zone; pages."""

    event: ClassVar[str] = "reclaim_retry_zone"
    template: ClassVar[str] = (
        "node={node} zone={zone} order={order} reclaimable={reclaimable} available={available} "
        "min_wmark={min_wmark} no_progress_loops={no_progress_loops} wmark_check={wmark_check}"
    )
    node: int
    zone: str
    order: int
    reclaimable: int
    available: int
    min_wmark: int
    no_progress_loops: int
    wmark_check: int


@dataclass(frozen=True, slots=True)
class RetryCompact(Body):
    """``should_compact_retry()`` decides.

    Attributes
    ----------
    prio : str
        ``COMPACT_PRIO_*``.
    result : str
        failed, withdrawn or progress.
    """

    event: ClassVar[str] = "compact_retry"
    template: ClassVar[str] = (
        "order={order} priority={prio} compaction_result={result} retries={retries} "
        "max_retries={max_retries} should_retry={should_retry}"
    )
    order: int
    prio: str
    result: str
    retries: int
    max_retries: int
    should_retry: int


@dataclass(frozen=True, slots=True)
class Victim(Body):
    """A task is chosen to die; sizes in KiB (as 6.1.192 prints them, first releases of 6.1 print only the pid)."""

    event: ClassVar[str] = "mark_victim"
    template: ClassVar[str] = (
        "pid={pid} comm={comm} total-vm={total_vm}kB anon-rss={anon_rss}kB file-rss:{file_rss}kB "
        "shmem-rss:{shmem_rss}kB uid={uid} pgtables={pgtables}kB oom_score_adj={oom_score_adj}"
    )
    pid: int
    comm: str
    total_vm: int
    anon_rss: int
    file_rss: int
    shmem_rss: int
    uid: int
    pgtables: int
    oom_score_adj: int


OOM_EVENTS: Final[tuple[type[Body], ...]] = (RetryZone, RetryCompact, Victim)
