"""The node's lruvec (``struct lruvec``): where pages of files and mappings wait to be reclaimed.

A page is here from `Lruvec.insert` to its eviction or `Lruvec.release`. Nobody keeps a page isolated over
a point where another task may run, so between two such points every page is on its list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import CallerError
from mmfw.jit import alloc as jit_alloc
from mmfw.jit import anon as jit_anon
from mmfw.jit import lru as jit
from mmfw.jit import mapping as jit_mapping
from mmfw.jit import page as pg
from mmfw.jit import pagecache as jit_cache

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext
    from mmfw.mm.pages import Memory
    from mmfw.mm.rmap import RmapSpace

Pfns = NDArray[np.int64]


class Lruvec:
    """The LRU lists of the only node.

    Parameters
    ----------
    memory : Memory
        Pages and counters.
    rmap : RmapSpace
        Where pages are.
    context : ExecContext
        The running CPU.
    """

    def __init__(self, memory: Memory, rmap: RmapSpace, context: ExecContext) -> None:
        self._memory = memory
        self._rmap = rmap
        self._context = context

    def insert(
        self, pfns: Pfns, slots: Pfns, *, order: int = 0, flags: int = 0, refault: bool = True
    ) -> None:
        """Put allocated folios into slots and on the inactive list (``folio_add_lru()``).

        A slot that holds a shadow makes the page a refault (``workingset_refault()``).

        Parameters
        ----------
        pfns : int64[n]
            Allocated folios of this order.
        slots : int64[n]
            First slot of each.
        order : int
            0 to 9.
        flags : int
            ``PG_*`` bits to set: `PG_SWAPBACKED`, `PG_MAPPED`, `PG_DIRTY` and so on.
        refault : bool
            False leaves shadows unjudged, as for pages that will be overwritten.
        """
        memory = self._memory
        jit_cache.insert_folios(
            memory.page, memory.pb, memory.S, self._rmap.slots, pfns, slots, order, flags, refault
        )

    def release(self, slots: Pfns) -> int:
        """Empty slots, freeing their pages in the order given (``release_pages()``).

        Returns
        -------
        int
            Pages freed.

        Raises
        ------
        CallerError
            A slot's page is not allocated.
        """
        memory = self._memory
        before = int(memory.S[pg.S_PGFREE])
        done = 0
        while done < len(slots):
            status, done = jit_cache.release_slots(
                memory.page, memory.pb, memory.S, self._rmap.slots, self._context.cpu, slots, done
            )
            if status == jit_alloc.BATCH_TRACE_FULL:
                memory.flush_trace()
            elif status == jit_alloc.BATCH_BAD_PAGE:
                raise CallerError(f"slot {int(slots[done])} holds a page that is not allocated")
        return int(memory.S[pg.S_PGFREE]) - before

    def drop_entries(self, base: int, nr_slots: int, *, invalidate: bool) -> int:
        """Drop a file's pages and shadows, those left out that are locked or being written; pages freed.

        Parameters
        ----------
        base, nr_slots : int
            Its slots.
        invalidate : bool
            Leave dirty, mapped and held pages, too.
        """
        memory = self._memory
        before = int(memory.S[pg.S_PGFREE])
        done, status = 0, jit_alloc.BATCH_TRACE_FULL
        while status == jit_alloc.BATCH_TRACE_FULL:
            status, done = jit_cache.drop_entries(
                memory.page,
                memory.pb,
                memory.S,
                self._rmap.slots,
                self._context.cpu,
                base,
                nr_slots,
                done,
                invalidate,
            )
            if status == jit_alloc.BATCH_TRACE_FULL:
                memory.flush_trace()
        return int(memory.S[pg.S_PGFREE]) - before

    def read_batch(self, start: int, end: int) -> tuple[int, int]:
        """Pages from a slot on that can be read, and why there are no more; see `mmfw.jit.pagecache.get_read_batch`."""
        run, why = jit_cache.get_read_batch(self._memory.page, self._rmap.slots, start, end)
        return int(run), int(why)

    def mark_accessed(self, slots: Pfns) -> None:
        """Note a use by a system call (``folio_mark_accessed()``)."""
        memory = self._memory
        jit.mark_accessed(memory.page, memory.pb, memory.S, self._rmap.slots, slots)

    def heads(self, pfns: Pfns) -> Pfns:
        """Head of the folio that each page lies in (``page_folio()``)."""
        out = np.empty(len(pfns), dtype=np.int64)
        jit_cache.folio_heads(self._memory.page, pfns, out)
        return out

    def touch_mapped(self, slots: Pfns) -> int:
        """Set the accessed bits of mapped pages, up to the first slot without one; how many."""
        return int(jit_mapping.touch_mapped(self._memory.page, self._rmap.slots, slots))

    def map_file(self, base: int, first: int, end: int, index: int, flags: int) -> tuple[int, bool]:
        """Map a file's pages that are ready; how many of them are cached, and whether one of them now is.

        Parameters
        ----------
        base : int
            Slot of the file's page 0.
        first, end : int
            Pages to map, end excluded.
        index : int
            The page that is asked for.
        flags : int
            ``PG_MAPPED`` and bits of the entry.
        """
        memory, slots = self._memory, self._rmap.slots
        met, mapped = jit_mapping.map_pages(
            memory.page, memory.S, slots, base + first, base + end, base + index, flags
        )
        return int(met), bool(mapped)

    def map_file_page(self, slot: int, flags: int) -> None:
        """Map the page of a slot, whatever its flags."""
        memory = self._memory
        jit_mapping.map_page(memory.page, memory.S, self._rmap.slots, slot, flags)

    def touch_range(self, start: int, end: int) -> int:
        """`touch_mapped` of consecutive slots."""
        return int(jit_mapping.touch_range(self._memory.page, self._rmap.slots, start, end))

    def map_swapcache(self, slot: int) -> bool:
        """Map a page of the swap cache (the end of ``do_swap_page()``); whether it had the readahead flag."""
        memory = self._memory
        return bool(jit_anon.map_swapcache(memory.page, memory.S, self._rmap.slots, slot))

    def set_flags(self, pfns: Pfns, *, on: int = 0, off: int = 0) -> None:
        """Set and clear page flags that do not decide a folio's list."""
        jit.change_flags(self._memory.page, pfns, on, off)

    def set_readahead(self, slot: int) -> None:
        """Give the folio of a slot the readahead flag (``folio_set_readahead()``)."""
        jit_cache.set_readahead(self._memory.page, self._rmap.slots, slot)

    def clear_readahead(self, slot: int) -> tuple[int, int]:
        """Take that flag away; the folio's order, -1 if it keeps it, and pages between its head and the slot's."""
        order, behind = jit_cache.clear_readahead(self._memory.page, self._rmap.slots, slot)
        return int(order), int(behind)

    def words(self, pfns: Pfns) -> NDArray[np.uint32]:
        """Page words of folio heads; see `mmfw.jit.page`."""
        found: NDArray[np.uint32] = self._memory.page[4 * pfns + pg.WORD]
        return found

    def split_huge_page(self, pfn: int) -> int:
        """Split a huge page; pages freed since nobody maps them, -1 if it cannot be (``split_huge_page()``)."""
        memory = self._memory
        return int(
            jit_anon.split_huge_page(
                memory.page, memory.pb, memory.S, self._rmap.slots, self._context.cpu, pfn
            )
        )

    def zap(self, slots: Pfns) -> tuple[int, list[int]]:
        """Unmap anonymous pages one after another, each freed before the next.

        Returns
        -------
        (int, list of int)
            Pages freed; and the huge pages of which part was unmapped.
        """
        memory = self._memory
        before = int(memory.S[pg.S_PGFREE])
        partial = np.empty(len(slots), dtype=np.int64)
        heads: list[int] = []
        done = 0
        while done < len(slots):
            status, done, noted = jit_anon.zap_slots(
                memory.page, memory.pb, memory.S, self._rmap.slots, self._context.cpu, slots, done, partial
            )
            if noted:
                heads += partial[:noted].tolist()
            if status == jit_alloc.BATCH_TRACE_FULL:
                memory.flush_trace()
            elif status == jit_alloc.BATCH_BAD_PAGE:
                raise CallerError(f"slot {int(slots[done - 1])} holds a page that is not allocated")
        return int(memory.S[pg.S_PGFREE]) - before, heads

    def release_pages(self, entries: Pfns) -> int:
        """Free a batch of a gather; see `mmfw.jit.anon.release_pages`. Pages freed, tables included."""
        memory = self._memory
        if memory.S[pg.S_TRACE_N] > memory.S[pg.S_TRACE_CAP] // 2:
            memory.flush_trace()
        before = int(memory.S[pg.S_PGFREE])
        jit_anon.release_pages(memory.page, memory.pb, memory.S, self._rmap.slots, self._context.cpu, entries)
        return int(memory.S[pg.S_PGFREE]) - before

    def end_writeback(self, pfns: Pfns) -> None:
        """The device has written pages (``folio_end_writeback()``): those for reclaim go next, ownerless ones now."""
        memory = self._memory
        jit_cache.end_writeback(memory.page, memory.pb, memory.S, self._context.cpu, pfns)

    def end_read(self, pfns: Pfns) -> None:
        """The device has read folios (``folio_unlock()``); ownerless ones are freed."""
        memory = self._memory
        jit_cache.end_read(memory.page, memory.pb, memory.S, self._context.cpu, pfns)

    def size(self, lru: int, highest_zoneidx: int = 4) -> int:
        """Pages on a list in zones up to an index (``lruvec_lru_size()``)."""
        return int(jit.lruvec_size(self._memory.S, lru, highest_zoneidx))

    @property
    def nr_pages(self) -> int:
        """Pages on all lists."""
        return sum(self.size(lru) for lru in range(pg.NR_LRU_LISTS))

    def node_stat(self, item: int) -> int:
        """A counter of the node, by its ``NS_*`` index."""
        return int(self._memory.S[pg.S_NODE_STAT + item])

    def add_node_stat(self, item: int, nr_pages: int) -> None:
        """Change a counter of the node."""
        self._memory.S[pg.S_NODE_STAT + item] += nr_pages
