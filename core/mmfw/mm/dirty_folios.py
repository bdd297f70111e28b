"""Dirty file folios in the order in which they became dirty (``wb->b_dirty`` and the tags of mm/page-writeback.c)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg

if TYPE_CHECKING:
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.rmap import RmapSpace
    from mmfw.sched import Scheduler

Pfns = NDArray[np.int64]


class DirtyFolios:
    """What the flusher has to write.

    The kernel keeps files in the order in which they became dirty, and finds a file's dirty pages by index. Here each
    folio has its place in one queue: the same order for a file that is written from its start to its end. It is found by
    its slot, so that migration may move it meanwhile.

    Parameters
    ----------
    rmap, lruvec, sched
        Where folios are, their flags, the clock.
    """

    def __init__(self, rmap: RmapSpace, lruvec: Lruvec, sched: Scheduler) -> None:
        self._rmap = rmap
        self._lruvec = lruvec
        self._sched = sched
        # When, the folios' first slots, and their pages.
        self._queue: deque[tuple[int, Pfns, int]] = deque()

    def add(self, pfns: Pfns, nr_pages: int) -> None:
        """Queue folios that have just become dirty.

        Parameters
        ----------
        pfns : int64[n]
            Heads of the folios.
        nr_pages : int
            Pages of all of them.
        """
        self._queue.append((self._sched.now, self._rmap.slots_of(pfns), nr_pages))

    @property
    def oldest_ns(self) -> int:
        """When the folios that come next became dirty; a time that never comes if there are none."""
        return self._queue[0][0] if self._queue else 1 << 62

    def take(self, nr_pages: int) -> Pfns:
        """Take folios off the queue that are to be written now, of about so many pages.

        Those that were written or dropped meanwhile are left out. One that is still being written from before goes to the
        queue's end, as WB_SYNC_NONE passes it over.

        Returns
        -------
        int64[n]
            Heads of the folios; none if nothing is left that may be written now.
        """
        taken: list[Pfns] = []
        again: list[tuple[int, Pfns, int]] = []
        got = 0
        while self._queue and got < nr_pages:
            when, slots, pages = self._queue.popleft()
            words = self._rmap.slots[slots]
            there = words < pg.SLOT_SHADOW
            slots, pfns = slots[there], words[there].astype(np.int64)
            flags = self._lruvec.words(pfns)
            dirty = (flags & (pg.TYPE_MASK | pg.PG_DIRTY)) == (pg.T_ALLOC | pg.PG_DIRTY)
            busy = dirty & ((flags & pg.PG_WRITEBACK) != 0)
            if busy.any():
                again.append((when, slots[busy], pages))
            now = pfns[dirty & ~busy]
            if len(now):
                taken.append(now)
                got += pages
        self._queue.extend(again)
        if not taken:
            return np.empty(0, dtype=np.int64)
        # One that was cleaned by others and dirtied again is queued twice.
        pfns = np.concatenate(taken)
        _, first = np.unique(pfns, return_index=True)
        first.sort()
        return pfns[first]
