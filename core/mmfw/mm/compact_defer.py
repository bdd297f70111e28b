"""Deferral: zones in which compaction failed lately are passed over for a while (mm/compaction.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.jit import page as pg
from mmfw.mm.trace import (
    MmCompactionDeferCompaction,
    MmCompactionDeferred,
    MmCompactionDeferReset,
    Tracepoints,
)

if TYPE_CHECKING:
    from mmfw.mm.mmzone import Zone
    from mmfw.mm.pages import Memory

COMPACT_MAX_DEFER_SHIFT: Final = 6


class Deferral:
    """The defer counters of a machine's zones.

    Parameters
    ----------
    memory : Memory
        Holds them.
    trace : Tracepoints
        Where events go.
    """

    def __init__(self, memory: Memory, trace: Tracepoints) -> None:
        self._memory = memory
        self._trace = trace

    def _emit(
        self,
        kind: type[MmCompactionDeferred | MmCompactionDeferCompaction | MmCompactionDeferReset],
        zone: Zone,
        order: int,
    ) -> None:
        if self._trace.enabled(kind):
            S, z = self._memory.S, self._memory.zone_offset(zone.index)
            self._trace.fire(
                kind,
                zone.node,
                zone.index,
                order,
                int(S[z + pg.Z_ORDER_FAILED]),
                int(S[z + pg.Z_CONSIDERED]),
                int(S[z + pg.Z_DEFER_SHIFT]),
            )

    def compaction_deferred(self, zone: Zone, order: int) -> bool:
        """Whether to pass a zone over this time; counts the question (``compaction_deferred()``)."""
        S, z = self._memory.S, self._memory.zone_offset(zone.index)
        if order < S[z + pg.Z_ORDER_FAILED]:
            return False
        limit = 1 << int(S[z + pg.Z_DEFER_SHIFT])
        S[z + pg.Z_CONSIDERED] += 1
        if S[z + pg.Z_CONSIDERED] >= limit:
            S[z + pg.Z_CONSIDERED] = limit
            return False
        self._emit(MmCompactionDeferred, zone, order)
        return True

    def defer_compaction(self, zone: Zone, order: int) -> None:
        """Note a failure (``defer_compaction()``)."""
        S, z = self._memory.S, self._memory.zone_offset(zone.index)
        S[z + pg.Z_CONSIDERED] = 0
        S[z + pg.Z_DEFER_SHIFT] = min(int(S[z + pg.Z_DEFER_SHIFT]) + 1, COMPACT_MAX_DEFER_SHIFT)
        S[z + pg.Z_ORDER_FAILED] = min(int(S[z + pg.Z_ORDER_FAILED]), order)
        self._emit(MmCompactionDeferCompaction, zone, order)

    def compaction_defer_reset(self, zone: Zone, order: int, alloc_success: bool) -> None:
        """Note a success (``compaction_defer_reset()``)."""
        S, z = self._memory.S, self._memory.zone_offset(zone.index)
        if alloc_success:
            S[z + pg.Z_CONSIDERED] = 0
            S[z + pg.Z_DEFER_SHIFT] = 0
        if order >= S[z + pg.Z_ORDER_FAILED]:
            S[z + pg.Z_ORDER_FAILED] = order + 1
        self._emit(MmCompactionDeferReset, zone, order)

    def compaction_restarting(self, zone: Zone, order: int) -> bool:
        """Whether compaction is tried again after the longest deferral (``compaction_restarting()``)."""
        S, z = self._memory.S, self._memory.zone_offset(zone.index)
        shift = int(S[z + pg.Z_DEFER_SHIFT])
        return bool(
            order >= S[z + pg.Z_ORDER_FAILED]
            and shift == COMPACT_MAX_DEFER_SHIFT
            and S[z + pg.Z_CONSIDERED] >= 1 << shift
        )
