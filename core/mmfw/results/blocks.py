"""``blocks.parquet``: fragmentation over pfns and time, in long form.

``time_ns``, ``first_pfn``; of the bin's pages ``nr_pages`` (those that exist), ``nr_free`` (in free blocks),
``nr_free_order_9`` (in free blocks of order 9 and above), ``nr_movable`` (allocated, on an LRU list or otherwise
migratable), ``nr_other`` (the rest: allocated and not migratable, on per-CPU lists, reserved). All int64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mmfw.jit import page as pg
from mmfw.state import MAX_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.mm.core import Mm

NR_BINS: Final = 128
NR_TIMES: Final = 48
COLUMNS: Final = ("time_ns", "first_pfn", "nr_pages", "nr_free", "nr_free_order_9", "nr_movable", "nr_other")
#: Pages that are looked at together, so that a machine of a TiB needs no second array of its size.
_CHUNK: Final = 1 << 22


class BlockRecorder:
    """Notes where free memory lies: at most `NR_TIMES` times, evenly, however long the run turns out to be.

    Every sample is kept until there are too many; then every other one is dropped, and from there on only every second
    is taken, and so on.

    Parameters
    ----------
    mm : Mm
        The machine.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        nr_pfns = mm.pgdat.memory.nr_pfns
        block = 1 << (MAX_ORDER - 1)  # no free block lies in two bins
        self._bin_pages = max(-(-nr_pfns // NR_BINS) + block - 1, block) // block * block
        self._nr_bins = -(-nr_pfns // self._bin_pages)
        self._nr_pages = self._existing()
        self._seen = 0
        self._stride = 1
        #: Number of the sample, its time in ns, and what `_look` saw.
        self._kept: list[tuple[int, int, NDArray[np.int64]]] = []

    def sample(self) -> None:
        """Note memory as it is now, if this time is one of those that are kept."""
        index, self._seen = self._seen, self._seen + 1
        if index % self._stride:
            return
        if len(self._kept) == NR_TIMES:
            self._stride *= 2
            self._kept = [each for each in self._kept if each[0] % self._stride == 0]
            if index % self._stride:
                return
        self._kept.append((index, self._mm.sched.now, self._look()))

    def _existing(self) -> NDArray[np.int64]:
        """Pages of each bin that are there."""
        memory = self._mm.pgdat.memory
        there = np.zeros(len(memory.pb), dtype=np.int64)
        for zone in self._mm.pgdat.node_zones:
            if not zone.managed_pages:
                continue
            first = np.arange(len(memory.pb), dtype=np.int64) << PAGEBLOCK_ORDER
            low = np.maximum(first, zone.zone_start_pfn)
            high = np.minimum(first + PAGEBLOCK_NR_PAGES, zone.zone_end_pfn)
            there += np.maximum(high - low, 0)
        there[(memory.pb & pg.PB_ABSENT) != 0] = 0
        return self._by_bin(there)

    def _by_bin(self, by_pageblock: NDArray[np.int64]) -> NDArray[np.int64]:
        bins = np.arange(len(by_pageblock)) // (self._bin_pages >> PAGEBLOCK_ORDER)
        return np.bincount(bins, by_pageblock, minlength=self._nr_bins).astype(np.int64)

    def _look(self) -> NDArray[np.int64]:
        """nr_free, nr_free_order_9 and nr_movable of every bin: int64[3, bins]."""
        memory = self._mm.pgdat.memory
        words = memory.page[pg.WORD : 4 * memory.nr_pfns : 4]
        out = np.zeros((3, self._nr_bins), dtype=np.int64)
        for start in range(0, memory.nr_pfns, _CHUNK):
            part = words[start : start + _CHUNK]
            heads = np.flatnonzero((part & pg.TYPE_MASK) == pg.T_BUDDY)
            orders = (part[heads] & pg.ORDER_MASK).astype(np.int64)
            bins = (heads + start) // self._bin_pages
            large = orders >= PAGEBLOCK_ORDER
            out[0] += np.bincount(bins, 1 << orders, minlength=self._nr_bins).astype(np.int64)
            out[1] += np.bincount(bins[large], 1 << orders[large], minlength=self._nr_bins).astype(np.int64)
        out[2] = self._by_bin((memory.pb >> pg.PB_LRU_SHIFT).astype(np.int64))
        return out

    def columns(self) -> dict[str, NDArray[Any]]:
        """The rows as columns; bins without pages are left out."""
        first = np.arange(self._nr_bins, dtype=np.int64) * self._bin_pages
        there = self._nr_pages > 0
        parts = []
        for _, time_ns, (free, large, movable) in self._kept:
            other = self._nr_pages - free - movable
            rows = (np.full_like(first, time_ns), first, self._nr_pages, free, large, movable, other)
            parts.append(np.stack(rows)[:, there])
        table = np.concatenate(parts, axis=1) if parts else np.zeros((len(COLUMNS), 0), dtype=np.int64)
        return dict(zip(COLUMNS, table, strict=True))
