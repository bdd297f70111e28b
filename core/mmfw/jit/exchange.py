"""Copying page by page: one allocation, one free, and so on, as a backup to shmem does it."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit
from mmfw.jit.alloc import (
    BATCH_BAD_PAGE,
    BATCH_BOOST_WAKE,
    BATCH_DONE,
    BATCH_SLOWPATH,
    BATCH_TRACE_FULL,
    free_pages_core,
    get_page_from_freelist,
)
from mmfw.jit.page import S_BOOST_WAKE, S_TRACE_CAP, S_TRACE_N, TR_PAGE_ALLOC, trace
from mmfw.jit.prefetch import AHEAD, prefetch_page


@njit
def exchange_batch(
    page: Any,
    pb: Any,
    S: Any,
    cpu: int,
    node_row: int,
    gfp: int,
    mt: int,
    hzi: int,
    flags: int,
    old: Any,
    new: Any,
    start: int,
) -> tuple[int, int]:
    """For each order-0 page of ``old[start:]``: allocate one into ``new``, then free the old one.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index of the first page not exchanged. After ``BATCH_BOOST_WAKE`` the
        page before that index is done; after ``BATCH_SLOWPATH`` nothing of that index is.
    """
    order = i64(0)  # typed: a literal would compile the allocator a second time
    i = start
    while i < old.shape[0]:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            return BATCH_TRACE_FULL, i
        if i + AHEAD < old.shape[0]:
            prefetch_page(page, i64(old[i + AHEAD]))
        pfn = get_page_from_freelist(page, pb, S, cpu, node_row, gfp, order, mt, hzi, flags)
        if pfn < 0:
            return BATCH_SLOWPATH, i
        trace(S, TR_PAGE_ALLOC, pfn, order, mt, gfp, 0)
        new[i] = pfn
        if not free_pages_core(page, pb, S, cpu, i64(old[i]), order):
            return BATCH_BAD_PAGE, i
        i += 1
        if S[S_BOOST_WAKE] != 0:
            return BATCH_BOOST_WAKE, i
    return BATCH_DONE, i
