"""Readahead in large folios (mm/readahead.c of 6.1, ``page_cache_ra_order()``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw.mm.filemap import AddressSpace


def page_cache_ra_order(file: AddressSpace, first: int, nr: int, order: int) -> int:
    """Read a planned window in as large folios.

    They are two orders larger than the one whose marker was met, so that they grow as a stream goes on, and no larger
    than the window; smaller ones align them. One that is not to be had is not tried smaller: single pages follow, which
    is the caller's part. Order 1 is never used (6.1; since 6.9 it is).

    Parameters
    ----------
    file : AddressSpace
        The file; its `ra` is of this window.
    first, nr : int
        The window.
    order : int
        Order of the folio whose marker was met; 0 for none.

    Returns
    -------
    int
        First page that was not read in; -1 if all were.
    """
    order = min(order + 2, file.max_order, file.ra.size.bit_length() - 1)
    end = min(first + nr, file.nr_pages)
    mask = (file.gfp_mask | gfp.COMP | gfp.NORETRY | gfp.NOWARN) & ~gfp.FS
    marker, flags = file.ra.marker, file.read_flags()
    index = first
    added: list[int] = []
    while index < end:
        size = order
        if index & ((1 << size) - 1):
            size = _not_one((index & -index).bit_length() - 1)
        while index + (1 << size) > end:
            size = _not_one(size - 1)
        pfn = file.add_folio(index, size, mask, flags)
        if pfn < 0:
            break
        if index == marker >> size << size:
            file.cache.lruvec.set_readahead(file.base_slot + index)
        added.append(pfn)
        index += 1 << size
    if added:
        file.read_in(np.array(added, dtype=np.int64))
    return -1 if index >= end else index


def _not_one(order: int) -> int:
    return 0 if order == 1 else order
