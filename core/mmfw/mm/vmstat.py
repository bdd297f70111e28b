"""Event counters under the names of /proc/vmstat (mm/vmstat.c, include/linux/vm_event_item.h of 6.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from mmfw.jit import page as pg

if TYPE_CHECKING:
    from mmfw.mm.mmzone import Memory


class VmEvent(IntEnum):
    """Events counted per decision, in Python; the per-page ones (pgalloc_*, pgfree) are counted where they happen."""

    allocstall_dma = 0
    allocstall_dma32 = 1
    allocstall_normal = 2
    allocstall_movable = 3
    pgscan_kswapd = 4
    pgscan_direct = 5
    pgscan_file = 6
    pgsteal_kswapd = 7
    pgsteal_direct = 8
    pgsteal_file = 9
    slabs_scanned = 10
    kswapd_low_wmark_hit_quickly = 11
    kswapd_high_wmark_hit_quickly = 12
    pageoutrun = 13
    pswpin = 14
    pswpout = 15
    workingset_refault_file = 16


class VmStat:
    """The system's event counters.

    Parameters
    ----------
    memory : Memory
        Holds the counters of the compiled loops.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._events = np.zeros(len(VmEvent), dtype=np.int64)

    def count(self, event: VmEvent, n: int = 1) -> None:
        """Add to a counter (``count_vm_events()``)."""
        self._events[event] += n

    def __getitem__(self, event: VmEvent) -> int:
        return int(self._events[event])

    def as_dict(self) -> dict[str, int]:
        """All counters by their /proc/vmstat names, sorted by name; pgfree and pgalloc_* in pages."""
        S = self._memory.S
        out = {event.name: int(self._events[event]) for event in VmEvent}
        out["pgfree"] = int(S[pg.S_PGFREE])
        for index, zone in enumerate(("dma", "dma32", "normal", "movable")):
            out[f"pgalloc_{zone}"] = int(S[pg.S_PGALLOC + index])
        return dict(sorted(out.items()))
