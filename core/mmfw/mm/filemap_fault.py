"""Access to a file through a mapping: fault, fault-around, read-around (mm/filemap.c, mm/memory.c of 6.1).

The mapping is taken to begin with page 0 of the file, at an address that is a multiple of 2 MiB, and to be read only.
Not modelled: the page tables of file mappings, MADV_RANDOM and MADV_SEQUENTIAL, huge pages of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent

if TYPE_CHECKING:
    from mmfw.mm.filemap import AddressSpace

#: Pages that one fault maps if they are there (``fault_around_bytes``, 64 KiB).
FAULT_AROUND_PAGES: Final = 16
#: Misses beyond the hits from which on nothing is read around a fault.
MMAP_LOTSAMISS: Final = 100


def mmap_touch(file: AddressSpace, indices: NDArray[np.int64], *, executable: bool = False) -> int:
    """Access pages through a mapping, in the order given (``filemap_fault()``).

    A page that is mapped is marked young. Else the cached ones of its 16 are mapped; if it is not among them, it is read
    in, and pages around it.

    Parameters
    ----------
    file : AddressSpace
        The file.
    indices : int64[n]
        Its pages.
    executable : bool
        Whether the mapping is VM_EXEC.

    Returns
    -------
    int
        Major faults.
    """
    lruvec = file.cache.lruvec
    flags = pg.PG_MAPPED | pg.PTE_YOUNG | (pg.PTE_EXEC if executable else 0)
    major = 0
    done = 0
    while done < len(indices):
        done += lruvec.touch_mapped(file.base_slot + indices[done:])
        if done == len(indices):
            break
        faulted = _fault(file, int(indices[done]), flags)
        if faulted < 0:
            break
        major += faulted
        done += 1
    return major


def _fault(file: AddressSpace, index: int, flags: int) -> int:
    """One fault, retries included: 1 if it was major, 0 if not, -1 if the page could not be had.

    Whenever the task let go of ``mmap_lock`` to read, the fault begins anew, and is counted anew.
    """
    cache, ra = file.cache, file.ra
    major = 0
    tried = False
    while not cache.context.fatal_signal_pending:
        cache.vmstat.count(VmEvent.pgfault)
        cache.context.charge(cache.costs.page_fault, "page fault")
        first = index - index % FAULT_AROUND_PAGES
        if _map_pages(file, first, min(first + FAULT_AROUND_PAGES, file.nr_pages), index, flags):
            return major
        if file.words()[index] < pg.SLOT_SHADOW:
            again = False
            if not tried and ra.ra_pages:
                ra.mmap_miss = max(0, ra.mmap_miss - 1)
                again = _async_mmap_readahead(file, index)
            if not file.wait_locked(index) and not again:
                # PG_readahead alone keeps it from being mapped with the others around.
                _map_one(file, index, flags)
                return major
        else:
            cache.vmstat.count(VmEvent.pgmajfault)
            major = 1
            _sync_mmap_readahead(file, index)
            if file.words()[index] >= pg.SLOT_SHADOW and not file.create_folio(index):
                return -1
            file.wait_locked(index)
        tried = True
    return -1


def _sync_mmap_readahead(file: AddressSpace, index: int) -> None:
    """Read around a page that is absent, if that was of use so far (``do_sync_mmap_readahead()``)."""
    ra = file.ra
    if not ra.ra_pages:
        return
    ra.mmap_miss = min(ra.mmap_miss + 1, 10 * MMAP_LOTSAMISS)
    if ra.mmap_miss > MMAP_LOTSAMISS:
        return
    ra.start = max(0, index - ra.ra_pages // 2)
    ra.size = ra.ra_pages
    ra.async_size = ra.ra_pages // 4
    ra.marker = ra.start + ra.size - ra.async_size
    file.fill(ra.start, ra.size)


def _async_mmap_readahead(file: AddressSpace, index: int) -> bool:
    """Read on if the page has the readahead flag (``do_async_mmap_readahead()``); whether it had."""
    lruvec = file.cache.lruvec
    head = lruvec.heads(file.words()[index : index + 1].astype(np.int64))
    if not lruvec.words(head)[0] & pg.PG_RECLAIM:
        return False
    file.async_readahead(index, file.ra.ra_pages)
    return True


def _map_pages(file: AddressSpace, first: int, end: int, index: int, flags: int) -> bool:
    """Map what is cached and ready (``filemap_map_pages()``); whether the page is among it."""
    met, mapped = file.cache.lruvec.map_file(file.base_slot, first, end, index, flags)
    file.ra.mmap_miss = max(0, file.ra.mmap_miss - met)
    return mapped


def _map_one(file: AddressSpace, index: int, flags: int) -> None:
    """``finish_fault()``."""
    file.cache.lruvec.map_file_page(file.base_slot + index, flags)
