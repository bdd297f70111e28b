"""Writing files: the folios that a write takes or makes (mm/filemap.c of 6.1; ``__filemap_get_folio()`` of 6.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmfw import gfp
from mmfw.jit import page as pg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.mm.filemap import AddressSpace

#: Pages of a batch where writes make single pages.
_BATCH = 32


def generic_perform_write(file: AddressSpace, start: int, nr_pages: int) -> int:
    """Write whole pages (``generic_perform_write()``, ``iomap_write_iter()``): dirty until the flusher has written them.

    That marks no page accessed, and a page that comes back to be overwritten is no refault.

    Returns
    -------
    int
        Pages written; fewer than asked at the end of the file, if memory ran out, or if the task was killed.
    """
    end = min(start + nr_pages, file.nr_pages)
    cache = file.cache
    index = start
    while index < end and not cache.context.fatal_signal_pending:
        written = _write_folio(file, index, end) if file.max_write_order else _write_pages(file, index, end)
        if written == 0:
            break
        index += written
        cache.context.charge(written * cache.costs.copy_page, "file write")
        cache.page_io.balance_dirty_pages_ratelimited()
    return index - start


def write_gfp_mask(file: AddressSpace) -> int:
    """Mask of a write's folios (``__filemap_get_folio()`` with FGP_WRITE)."""
    mask = file.gfp_mask | gfp.COMP | gfp.WRITE
    return mask & ~gfp.FS if file.write_nofs else mask


def _write_pages(file: AddressSpace, index: int, end: int) -> int:
    """Write a batch as single pages; how many."""
    cache = file.cache
    indices = np.arange(index, min(index + _BATCH, end), dtype=np.int64)
    _add_for_write(file, indices[~file.cached(indices)])
    words = file.words()[indices]
    absent = words >= pg.SLOT_SHADOW
    written = int(absent.argmax()) if absent.any() else len(indices)
    pfns = words[:written].astype(np.int64)
    cache.dirty(np.unique(cache.lruvec.heads(pfns)) if file.max_order else pfns)
    return written


def _add_for_write(file: AddressSpace, indices: NDArray[np.int64]) -> None:
    """``grab_cache_page_write_begin()``."""
    mask = write_gfp_mask(file)
    done = 0
    while done < len(indices):
        some = indices[done : done + file.tree.batch(indices[done:])]
        pfns = file.cache.allocator.alloc_pages_batch(mask, 0, len(some))
        if len(pfns) == 0:
            return
        file.insert(pfns, some[: len(pfns)], 0, 0, mask)
        done += len(some)


def _write_folio(file: AddressSpace, index: int, end: int) -> int:
    """Write into the folio at an index, made as large as the rest of the write if there is none; pages written."""
    cache = file.cache
    word = file.words()[index : index + 1]
    if word[0] >= pg.SLOT_SHADOW and not _make_folio(file, index, end - index):
        return 0
    head = cache.lruvec.heads(file.words()[index : index + 1].astype(np.int64))
    pfn, order = int(file.words()[index]), int(cache.lruvec.words(head)[0] & pg.ORDER_MASK)
    cache.dirty(head)
    return min(int(head[0]) + (1 << order) - pfn, end - index)


def _make_folio(file: AddressSpace, index: int, length: int) -> bool:
    """Put a folio at an index where there is none (``__filemap_get_folio()`` with FGP_CREAT and a size).

    The order is that of the length, lower for alignment; it goes down one by one until there is memory, or until no page
    of it is cached already. Above order 0 nothing is retried and nobody warned; order 1 is passed over, as up to 6.8.
    """
    order = min(length.bit_length() - 1, file.max_write_order)
    if index & ((1 << order) - 1):
        order = (index & -index).bit_length() - 1
    mask = write_gfp_mask(file)
    while order >= 0:
        order = 0 if order == 1 else order
        extra = gfp.NORETRY | gfp.NOWARN if order else 0
        if file.add_folio(index, order, mask | extra) >= 0:
            return True
        order -= 1
    return bool(file.words()[index] < pg.SLOT_SHADOW)
