"""The events that can be traced, under the kernel's names, and the choice of ``--events``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from mmfw.errors import InputError
from mmfw.jit import page as pg
from mmfw.mm import trace as tp
from mmfw.proc import compaction_trace as ct
from mmfw.proc import kmem_trace as km
from mmfw.proc import oom_trace as om
from mmfw.proc import vmscan_trace as vm
from mmfw.proc.tracebody import Body


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """One event; either `event` or `row` says how it is learned of.

    Attributes
    ----------
    system : str
        ``TRACE_SYSTEM``, the folder of the event under /sys/kernel/tracing/events.
    body : type of Body
        What it prints.
    event : type of TraceEvent, or None
        How mm says that it happened.
    row : int or None
        Kind of trace row (``TR_*``) by which a compiled loop says so.
    """

    system: str
    body: type[Body]
    event: type[tp.TraceEvent] | None = None
    row: int | None = None

    @property
    def name(self) -> str:
        """The event's name, without its system."""
        return self.body.event


#: Events that mm has; other events of these systems never happen in a simulation, or are not modelled.
TRACEPOINTS: Final[tuple[Tracepoint, ...]] = (
    Tracepoint("vmscan", vm.KswapdSleep, tp.MmVmscanKswapdSleep),
    Tracepoint("vmscan", vm.KswapdWake, tp.MmVmscanKswapdWake),
    Tracepoint("vmscan", vm.WakeupKswapd, tp.MmVmscanWakeupKswapd),
    Tracepoint("vmscan", vm.DirectReclaimBegin, tp.MmVmscanDirectReclaimBegin),
    Tracepoint("vmscan", vm.DirectReclaimEnd, tp.MmVmscanDirectReclaimEnd),
    Tracepoint("vmscan", vm.ShrinkSlabStart, tp.MmShrinkSlabStart),
    Tracepoint("vmscan", vm.ShrinkSlabEnd, tp.MmShrinkSlabEnd),
    Tracepoint("vmscan", vm.LruIsolate, tp.MmVmscanLruIsolate),
    Tracepoint("vmscan", vm.LruShrinkInactive, tp.MmVmscanLruShrinkInactive),
    Tracepoint("vmscan", vm.LruShrinkActive, tp.MmVmscanLruShrinkActive),
    Tracepoint("vmscan", vm.WriteFolio, tp.MmVmscanWriteFolio),
    Tracepoint("vmscan", vm.Throttled, tp.MmVmscanThrottled),
    Tracepoint("compaction", ct.CompactionBegin, tp.MmCompactionBegin),
    Tracepoint("compaction", ct.CompactionEnd, tp.MmCompactionEnd),
    Tracepoint("compaction", ct.TryToCompactPages, tp.MmCompactionTryToCompactPages),
    Tracepoint("compaction", ct.CompactionSuitable, tp.MmCompactionSuitable),
    Tracepoint("compaction", ct.CompactionFinished, tp.MmCompactionFinished),
    Tracepoint("compaction", ct.CompactionDeferred, tp.MmCompactionDeferred),
    Tracepoint("compaction", ct.DeferCompaction, tp.MmCompactionDeferCompaction),
    Tracepoint("compaction", ct.DeferReset, tp.MmCompactionDeferReset),
    Tracepoint("compaction", ct.Migratepages, row=pg.TR_MIGRATEPAGES),
    Tracepoint("compaction", ct.IsolateMigratepages, row=pg.TR_ISOLATE_MIGRATEPAGES),
    Tracepoint("compaction", ct.IsolateFreepages, row=pg.TR_ISOLATE_FREEPAGES),
    Tracepoint("compaction", ct.KcompactdSleep, tp.MmCompactionKcompactdSleep),
    Tracepoint("compaction", ct.WakeupKcompactd, tp.MmCompactionWakeupKcompactd),
    Tracepoint("compaction", ct.KcompactdWake, tp.MmCompactionKcompactdWake),
    Tracepoint("oom", om.RetryZone, tp.ReclaimRetryZone),
    Tracepoint("oom", om.RetryCompact, tp.CompactRetry),
    Tracepoint("oom", om.Victim, tp.MarkVictim),
    Tracepoint("kmem", km.PageAlloc, row=pg.TR_PAGE_ALLOC),
    Tracepoint("kmem", km.PageFree, row=pg.TR_PAGE_FREE),
    Tracepoint("kmem", km.PageAllocZoneLocked, row=pg.TR_ZONE_LOCKED),
    Tracepoint("kmem", km.PagePcpuDrain, row=pg.TR_PCPU_DRAIN),
    Tracepoint("kmem", km.PageAllocExtfrag, row=pg.TR_EXTFRAG),
)
#: Without ``--events``: all but the events of single pages, which are most of a trace's lines by far.
DEFAULT_SYSTEMS: Final = ("vmscan", "compaction", "oom")


def choose_events(text: str | None) -> tuple[Tracepoint, ...]:
    """Events of a list such as ``compaction,vmscan/mm_vmscan_kswapd_wake``.

    Parameters
    ----------
    text : str or None
        Comma-separated systems, events, or ``system/event`` (also ``system:event``, as in ``set_event``); each may be
        a pattern, such as ``kmem:*``. None for `DEFAULT_SYSTEMS`.

    Returns
    -------
    tuple of Tracepoint
        Each once, in the order of `TRACEPOINTS`.

    Raises
    ------
    InputError
        A word names no event; the message suggests the nearest name.

    Examples
    --------
    >>> [each.name for each in choose_events("mm_vmscan_kswapd_wake,vmscan:*_sleep")]
    ['mm_vmscan_kswapd_sleep', 'mm_vmscan_kswapd_wake']
    """
    words = list(DEFAULT_SYSTEMS) if text is None else [word.strip() for word in text.split(",")]
    chosen: set[str] = set()
    for word in words:
        found = [each.name for each in TRACEPOINTS if _is_meant(each, word)]
        if not found:
            raise InputError(f"--events {text!r}: {_unknown(word)}")
        chosen.update(found)
    return tuple(each for each in TRACEPOINTS if each.name in chosen)


def _is_meant(each: Tracepoint, word: str) -> bool:
    system, slash, name = word.replace(":", "/", 1).partition("/")
    if slash:
        return fnmatchcase(each.system, system) and fnmatchcase(each.name, name or "*")
    return fnmatchcase(each.system, word) or fnmatchcase(each.name, word)


def _unknown(word: str) -> str:
    if not word:
        return "an empty name; write systems or events with commas between, such as vmscan,compaction"
    systems = list(dict.fromkeys(each.system for each in TRACEPOINTS))
    whole = [f"{each.system}/{each.name}" for each in TRACEPOINTS]
    known = whole if "/" in word or ":" in word else [*systems, *(each.name for each in TRACEPOINTS)]
    near = difflib.get_close_matches(word.replace(":", "/", 1), known, n=1, cutoff=0.6)
    said = f"did you mean {near[0]!r}?" if near else f"known systems: {', '.join(sorted(systems))}"
    return f"no event or system {word!r} is traced; {said}"
