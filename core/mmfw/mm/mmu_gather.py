"""In which order a mapping's pages are freed (mm/mmu_gather.c, mm/memory.c of 6.1).

Unmapping gathers pages and frees them when all is unmapped: a bundle of 8 that lies on the stack, then batches of 510,
each of which needs a page for itself, at most 19. Page tables go through the same batches behind the data, as they do
where no hypervisor flushes the TLB (``native_tlb_remove_table()``; from memory, not checked against 6.1). One batch is
freed newest first; huge pages come before the others of their batch. The pages of the batches go last.

Simplified: what is in a later batch stays mapped while an earlier one is freed, so reclaim may take it meanwhile; a
mapping's tables are all its own, as if it were aligned to 2 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.state import PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.mm.memory import AnonMemory, Vma

Ints = NDArray[np.int64]

#: Pages of the bundle on the stack, of a batch, and number of batches.
MMU_GATHER_BUNDLE: Final = 8
MAX_GATHER_BATCH: Final = 510
MAX_GATHER_BATCH_COUNT: Final = 19
GATHER_GFP: Final = gfp.GFP_NOWAIT | gfp.NOWARN


def unmap_vmas(mm: AnonMemory, vmas: list[Vma]) -> int:
    """Unmap mappings by one gather and free what they held (``exit_mmap()``, ``unmap_region()`` of one).

    Returns
    -------
    int
        Pages freed, tables and the gather's own pages not counted.
    """
    gather = _Gather(mm)
    tables: list[int] = []
    freed = 0
    for vma in vmas:
        mm.nr_page_table_pages -= len(vma.page_tables)
        slots, in_pmds, zapped = _mapped(mm, vma)
        freed += zapped
        # A huge page's table was deposited with it, and goes when it is unmapped.
        for table in in_pmds:
            if table in vma.page_tables:
                mm.allocator.free_pages(vma.page_tables.pop(table), 0)
        gather.add(slots)
        tables += [vma.page_tables[table] for table in sorted(vma.page_tables)]
        vma.page_tables.clear()
    gather.add(-1 - np.array(tables, dtype=np.int64))
    return freed + gather.finish() - len(tables)


def _mapped(mm: AnonMemory, vma: Vma) -> tuple[Ints, list[int], int]:
    """Walk over a mapping (``zap_pte_range()``, ``zap_huge_pmd()``).

    What is swapped out gives its slot back here, and what is in the swap cache only is freed here, page by page.

    Returns
    -------
    (int64[n], list of int, int)
        Slots to gather, tables that huge pages have with them, and pages freed here.
    """
    base = vma.base_slot
    words = mm.rmap.part(base, vma.nr_pages)
    present = np.flatnonzero(words < pg.SLOT_SHADOW)
    pfns = words[present].astype(np.int64)
    heads = mm.lruvec.heads(pfns)
    flags = mm.lruvec.words(heads)
    mapped = (flags & pg.PG_MAPPED) != 0
    whole = mapped & ((flags & pg.ORDER_MASK) == PAGEBLOCK_ORDER) & ((flags & pg.PG_PTE_MAPPED) == 0)
    swapped = np.flatnonzero((words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY))
    unmapped = np.sort(np.concatenate([swapped, present[~mapped]]))
    gathered = base + present[mapped & (~whole | (pfns == heads))]
    in_pmds = np.unique(present[whole] >> PAGEBLOCK_ORDER).tolist()
    freed, _ = mm.lruvec.zap(base + unmapped)
    return gathered, in_pmds, freed


class _Gather:
    """``struct mmu_gather``.

    Parameters
    ----------
    mm : AnonMemory
        Whose pages.
    """

    def __init__(self, mm: AnonMemory) -> None:
        self._mm = mm
        self._batches: list[int] = []
        self._waiting = np.empty(0, dtype=np.int64)
        self._freed = 0

    def add(self, entries: Ints) -> None:
        """Gather entries for `Lruvec.release_pages`; where no batch can be had, free them (``tlb_remove_page()``)."""
        self._waiting = np.concatenate([self._waiting, entries])
        while len(self._waiting) >= MMU_GATHER_BUNDLE:
            # A batch that is full asks for the next one at once.
            full = 1 + (len(self._waiting) - MMU_GATHER_BUNDLE) // MAX_GATHER_BATCH
            wanted = min(full, MAX_GATHER_BATCH_COUNT) - len(self._batches)
            if wanted > 0:
                got = self._mm.allocator.alloc_pages_batch(GATHER_GFP, 0, wanted).tolist()
                self._batches += got
            room = MMU_GATHER_BUNDLE + MAX_GATHER_BATCH * len(self._batches)
            if len(self._waiting) < room:
                return
            self._flush(self._waiting[:room])
            self._waiting = self._waiting[room:]

    def _flush(self, entries: Ints) -> None:
        """Free what was gathered, batch by batch (``tlb_flush_mmu()``)."""
        mm = self._mm
        done = 0
        while done < len(entries):
            batch = entries[done : done + (MAX_GATHER_BATCH if done else MMU_GATHER_BUNDLE)]
            self._freed += mm.lruvec.release_pages(batch)
            mm.context.charge(len(batch) * mm.costs.free_pcp, "munmap")
            mm.context.might_sleep()
            done += len(batch)

    def finish(self) -> int:
        """Free the rest, then the batches' own pages (``tlb_finish_mmu()``); pages freed but for the last."""
        self._flush(self._waiting)
        self._mm.allocator.free_pages_batch(np.array(self._batches, dtype=np.int64), 0)
        return self._freed
