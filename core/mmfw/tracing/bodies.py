"""From mm's typed events to what the kernel's tracepoints print."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from mmfw.mm import trace as tp
from mmfw.proc import compaction_trace as ct
from mmfw.proc import oom_trace as om
from mmfw.proc import vmscan_trace as vm
from mmfw.types import CompactPriority, CompactResult

if TYPE_CHECKING:
    from mmfw.mm.memory import Vma
    from mmfw.proc.tracebody import Body

#: ``ZONE_TYPE`` of mmflags.h.
_ZONES: Final = ("DMA", "DMA32", "Normal", "Movable")
_LRU_NAMES: Final = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
#: enum vmscan_throttle_state
_THROTTLE: Final = ("WRITEBACK", "ISOLATED", "NOPROGRESS", "CONGESTED")
#: What ``compact_retry`` calls a result; all others are progress (``compact_result_to_feedback()``, mmflags.h).
_FEEDBACK: Final = {
    CompactResult.COMPLETE: "failed",
    CompactResult.DEFERRED: "withdrawn",
    CompactResult.CONTENDED: "withdrawn",
    CompactResult.PARTIAL_SKIPPED: "withdrawn",
}
#: TASK_COMM_LEN, its final 0 included.
TASK_COMM_LEN: Final = 16
_NOT_A_SYMBOL: Final = re.compile(r"[^0-9A-Za-z_.]", re.ASCII)


@lru_cache(maxsize=1024)
def shown_comm(comm: str) -> str:
    """``comm`` of a task as traces show it: `TASK_COMM_LEN` less one characters, all of them printable ASCII."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in comm[: TASK_COMM_LEN - 1])
    return shown.strip() or "<...>"


def page_pointer(pfn: int) -> str:
    """``%p`` of a pfn's ``struct page``: 32 bits of a hash, as the kernel prints; no two pages have the same."""
    return f"00000000{(pfn * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF:08x}"


def shrinker_pointer(shrinker: str) -> str:
    """``%p`` of a shrinker, hashed too; the same for a name in every run."""
    return f"00000000{hashlib.sha256(shrinker.encode()).hexdigest()[:8]}"


def scan_symbol(shrinker: str) -> str:
    """``%pS`` of a shrinker's scan function, made of the shrinker's name; a Python method has no size, so 0.

    Examples
    --------
    >>> scan_symbol("drm-ttm_pool")
    'drm_ttm_pool_scan_objects+0x0/0x0'
    """
    return f"{_NOT_A_SYMBOL.sub('_', shrinker)}_scan_objects+0x0/0x0"


def _zone(index: int) -> str:
    """Name of a zone; an index that `_ZONES` does not name is printed as a number (``trace_print_symbols_seq()``)."""
    return _ZONES[index] if index < len(_ZONES) else f"{index:#x}"


def _reclaim_flags(file: bool) -> str:
    return "RECLAIM_WB_FILE|RECLAIM_WB_ASYNC" if file else "RECLAIM_WB_ANON|RECLAIM_WB_ASYNC"


def _status(result: int) -> str:
    return CompactResult(result).name.lower()


def _mode(sync: bool) -> str:
    return "sync" if sync else "async"


def _deferred(cls: type[ct.CompactionDeferred]) -> Callable[[Any], Body]:
    return lambda e: cls(e.nid, _zone(e.zone_idx), e.order, e.order_failed, e.considered, 1 << e.defer_shift)


def _shrink_slab_start(e: tp.MmShrinkSlabStart) -> Body:
    return vm.ShrinkSlabStart(
        scan_symbol(e.shrinker), shrinker_pointer(e.shrinker), e.nid, e.nr_objects_to_shrink, e.gfp_flags,
        e.cache_items, e.delta, e.total_scan, e.priority,
    )  # fmt: skip


def _shrink_slab_end(e: tp.MmShrinkSlabEnd) -> Body:
    return vm.ShrinkSlabEnd(
        scan_symbol(e.shrinker), shrinker_pointer(e.shrinker), e.nid, e.unused_scan, e.new_scan, e.total_scan,
        e.retval,
    )  # fmt: skip


def _lru_isolate(e: tp.MmVmscanLruIsolate) -> Body:
    return vm.LruIsolate(
        e.isolate_mode, e.classzone, e.order, e.nr_requested, e.nr_scanned, e.nr_skipped, e.nr_taken,
        _LRU_NAMES[e.lru],
    )  # fmt: skip


def _shrink_inactive(e: tp.MmVmscanLruShrinkInactive) -> Body:
    return vm.LruShrinkInactive(
        e.nid, e.nr_scanned, e.nr_reclaimed, e.nr_dirty, e.nr_writeback, e.nr_congested, e.nr_immediate,
        e.nr_activate_anon, e.nr_activate_file, e.nr_ref_keep, e.nr_unmap_fail, e.priority,
        _reclaim_flags(e.file),
    )  # fmt: skip


def _shrink_active(e: tp.MmVmscanLruShrinkActive) -> Body:
    return vm.LruShrinkActive(
        e.nid, e.nr_taken, e.nr_active, e.nr_deactivated, e.nr_referenced, e.priority, _reclaim_flags(e.file)
    )


def _throttled(e: tp.MmVmscanThrottled) -> Body:
    reason = f"VMSCAN_THROTTLE_{_THROTTLE[e.reason]}"
    return vm.Throttled(e.nid, e.usec_timeout, e.usec_delayed, reason)


def _begin(e: tp.MmCompactionBegin) -> Body:
    return ct.CompactionBegin(e.zone_start, e.migrate_pfn, e.free_pfn, e.zone_end, _mode(e.sync))


def _end(e: tp.MmCompactionEnd) -> Body:
    return ct.CompactionEnd(
        e.zone_start, e.migrate_pfn, e.free_pfn, e.zone_end, _mode(e.sync), _status(e.status)
    )


def _retry_zone(e: tp.ReclaimRetryZone) -> Body:
    return om.RetryZone(
        e.node, _zone(e.zone_idx), e.order, e.reclaimable, e.available, e.min_wmark, e.no_progress_loops,
        int(e.wmark_check),
    )  # fmt: skip


def _retry_compact(e: tp.CompactRetry) -> Body:
    return om.RetryCompact(
        e.order,
        f"COMPACT_PRIO_{CompactPriority(e.priority).name}",
        _FEEDBACK.get(CompactResult(e.result), "progress"),
        e.retries,
        e.max_retries,
        int(e.ret),
    )


_BODIES: Final[dict[type[tp.TraceEvent], Callable[[Any], Body]]] = {
    tp.MmVmscanKswapdSleep: lambda e: vm.KswapdSleep(e.nid),
    tp.MmVmscanKswapdWake: lambda e: vm.KswapdWake(e.nid, e.order),
    tp.MmVmscanWakeupKswapd: lambda e: vm.WakeupKswapd(e.nid, e.order, e.gfp_flags),
    tp.MmVmscanDirectReclaimBegin: lambda e: vm.DirectReclaimBegin(e.order, e.gfp_flags),
    tp.MmVmscanDirectReclaimEnd: lambda e: vm.DirectReclaimEnd(e.nr_reclaimed),
    tp.MmShrinkSlabStart: _shrink_slab_start,
    tp.MmShrinkSlabEnd: _shrink_slab_end,
    tp.MmVmscanLruIsolate: _lru_isolate,
    tp.MmVmscanLruShrinkInactive: _shrink_inactive,
    tp.MmVmscanLruShrinkActive: _shrink_active,
    tp.MmVmscanWriteFolio: lambda e: vm.WriteFolio(page_pointer(e.pfn), e.pfn, _reclaim_flags(e.file)),
    tp.MmVmscanThrottled: _throttled,
    tp.MmCompactionBegin: _begin,
    tp.MmCompactionEnd: _end,
    tp.MmCompactionTryToCompactPages: lambda e: ct.TryToCompactPages(e.order, e.gfp_mask, int(e.prio)),
    tp.MmCompactionSuitable: lambda e: ct.CompactionSuitable(
        e.nid, _zone(e.zone_idx), e.order, _status(e.ret)
    ),
    tp.MmCompactionFinished: lambda e: ct.CompactionFinished(
        e.nid, _zone(e.zone_idx), e.order, _status(e.ret)
    ),
    tp.MmCompactionDeferred: _deferred(ct.CompactionDeferred),
    tp.MmCompactionDeferCompaction: _deferred(ct.DeferCompaction),
    tp.MmCompactionDeferReset: _deferred(ct.DeferReset),
    tp.MmCompactionKcompactdSleep: lambda e: ct.KcompactdSleep(e.nid),
    tp.MmCompactionWakeupKcompactd: lambda e: ct.WakeupKcompactd(e.nid, e.order, _zone(e.highest_zoneidx)),
    tp.MmCompactionKcompactdWake: lambda e: ct.KcompactdWake(e.nid, e.order, _zone(e.highest_zoneidx)),
    tp.ReclaimRetryZone: _retry_zone,
    tp.CompactRetry: _retry_compact,
}


def event_body(event: tp.TraceEvent) -> Body:
    """What the tracepoint of an event prints; for `MarkVictim` see `victim_body`."""
    return _BODIES[type(event)](event)


def victim_body(pid: int, vmas: Iterable[Vma]) -> Body:
    """What ``mark_victim`` prints of a task: sizes of its mappings in KiB, as the OOM killer's report has them.

    Parameters
    ----------
    pid : int
        The victim.
    vmas : iterable of Vma
        Mappings of the machine.
    """
    own = [vma for vma in vmas if vma.task.pid == pid]
    return om.Victim(
        pid,
        shown_comm(own[0].task.comm) if own else "<...>",
        sum(vma.nr_pages for vma in own) * 4,
        sum(vma.nr_resident for vma in own) * 4,
        0,
        0,
        0,
        sum(vma.nr_page_tables for vma in own) * 4,
        min((vma.oom_score_adj for vma in own), default=0),
    )
