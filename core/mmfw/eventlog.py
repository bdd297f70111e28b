"""The events of a run, digested: two runs are the same if the same happened in both at the same times."""

from __future__ import annotations

import hashlib
from dataclasses import fields
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

#: Lines that are digested together.
_LINES_AT_ONCE: Final = 512
_WAKE_ORDER: Final = [each.name for each in fields(MmVmscanKswapdWake)].index("order")


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
        self._lines: list[str] = []
        self.kswapd_wakes: dict[int, int] = {}
        for kind in DIGESTED_EVENTS:
            mm.trace.subscribe_fields(kind, self._note)

    def _note(self, kind: type[TraceEvent], values: tuple[Any, ...]) -> None:
        lines = self._lines
        lines.append(f"{self._mm.sched.now} {kind.__name__} {values if len(values) > 1 else values[0]!r}\n")
        if len(lines) == _LINES_AT_ONCE:
            self._digest()
        if kind is MmVmscanKswapdWake:
            order = values[_WAKE_ORDER]
            self.kswapd_wakes[order] = self.kswapd_wakes.get(order, 0) + 1

    def _digest(self) -> None:
        self._hash.update("".join(self._lines).encode())
        self._lines.clear()

    def hexdigest(self) -> str:
        """SHA-256 of the events so far."""
        self._digest()
        return self._hash.hexdigest()
