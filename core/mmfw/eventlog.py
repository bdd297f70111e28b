"""The events of a run, digested: two runs are the same if the same happened in both at the same times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mmfw.mm.trace import (
    CompactRetry,
    MarkVictim,
    MmCompactionBegin,
    MmCompactionDeferCompaction,
    MmCompactionDeferred,
    MmCompactionDeferReset,
    MmCompactionEnd,
    MmCompactionKcompactdSleep,
    MmCompactionKcompactdWake,
    MmCompactionSuitable,
    MmCompactionTryToCompactPages,
    MmCompactionWakeupKcompactd,
    MmShrinkSlabEnd,
    MmShrinkSlabStart,
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    MmVmscanKswapdSleep,
    MmVmscanKswapdWake,
    MmVmscanThrottled,
    MmVmscanWakeupKswapd,
    ReclaimRetryZone,
    TraceEvent,
)

if TYPE_CHECKING:
    from mmfw.mm.core import Mm

#: Events that the digest is made of: a fixed list, so that what else is listened to cannot change a digest. Those that
#: come for each page, pageblock or batch of 32 pages are left out: they cost more than all others, and /proc/vmstat,
#: which is digested too, counts what they say.
DIGESTED_EVENTS: Final[tuple[type[TraceEvent], ...]] = (
    MmVmscanWakeupKswapd, MmVmscanKswapdWake, MmVmscanKswapdSleep, MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd, MmShrinkSlabStart, MmShrinkSlabEnd, MmVmscanThrottled,
    MmCompactionBegin, MmCompactionEnd, MmCompactionTryToCompactPages, MmCompactionSuitable,
    MmCompactionDeferred, MmCompactionDeferCompaction, MmCompactionDeferReset,
    MmCompactionKcompactdSleep, MmCompactionWakeupKcompactd, MmCompactionKcompactdWake,
    ReclaimRetryZone, CompactRetry, MarkVictim,
)  # fmt: skip


class EventLog:
    """Digests `DIGESTED_EVENTS` with their times, and counts those the result shows.

    Parameters
    ----------
    mm : Mm
        The machine.

    Attributes
    ----------
    kswapd_wakes : dict of int to int
        Passes of kswapd by order.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._hash = hashlib.sha256()
        self._read: dict[type, Callable[[Any], Any]] = {}
        self._last: tuple[TraceEvent | None, str] = None, ""
        self.kswapd_wakes: dict[int, int] = {}
        for kind in DIGESTED_EVENTS:
            mm.trace.subscribe(kind, self._note)

    def _note(self, event: TraceEvent) -> None:
        kind = type(event)
        last, text = self._last
        if event is not last:  # the same one again says the same: events are frozen
            read = self._read.get(kind)
            if read is None:
                read = self._read[kind] = attrgetter(*(f.name for f in fields(event)))
            text = f"{kind.__name__} {read(event)!r}\n"
            self._last = event, text
        self._hash.update(f"{self._mm.sched.now} {text}".encode())
        if kind is MmVmscanKswapdWake:
            order = event.order  # type: ignore[attr-defined] # just told apart by its class
            self.kswapd_wakes[order] = self.kswapd_wakes.get(order, 0) + 1

    def hexdigest(self) -> str:
        """SHA-256 of the events so far."""
        return self._hash.hexdigest()
