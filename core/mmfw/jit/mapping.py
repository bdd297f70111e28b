"""Page tables, of which each page has one entry at most: accessed bits, and mapping a file (mm/memory.c of 6.1)."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit
from mmfw.jit.lru import folio_head
from mmfw.jit.page import (
    NS_FILE_MAPPED,
    ORDER_MASK,
    PG_LOCKED,
    PG_MAPPED,
    PG_RECLAIM,
    PTE_YOUNG,
    S_NODE_STAT,
    SLOT_SHADOW,
    WORD,
)
from mmfw.jit.pagecache import NO_PAGE


@njit
def touch_mapped(page: Any, slots: Any, at: Any) -> int:
    """Set the accessed bits of mapped pages, up to the first slot without one; how many."""
    for i in range(at.shape[0]):
        pfn = i64(slots[i64(at[i])])
        head = folio_head(page, pfn) if pfn < SLOT_SHADOW else i64(NO_PAGE)
        if head == NO_PAGE or not page[4 * head + WORD] & PG_MAPPED:
            return i
        page[4 * head + WORD] |= PTE_YOUNG
    return at.shape[0]


@njit
def touch_range(page: Any, slots: Any, start: int, end: int) -> int:
    """`touch_mapped` of consecutive slots."""
    at = start
    while at < end:
        pfn = i64(slots[at])
        if pfn >= SLOT_SHADOW:
            break
        head = folio_head(page, pfn)
        if not page[4 * head + WORD] & PG_MAPPED:
            break
        page[4 * head + WORD] |= PTE_YOUNG
        at += 1
    return at - start


@njit
def map_page(page: Any, S: Any, slots: Any, slot: int, flags: int) -> None:
    """Enter a file's folio into a page table (``do_set_pte()``)."""
    head = folio_head(page, i64(slots[slot]))
    word = i64(page[4 * head + WORD])
    if not word & PG_MAPPED:
        S[S_NODE_STAT + NS_FILE_MAPPED] += 1 << (word & ORDER_MASK)
    page[4 * head + WORD] = word | flags


@njit
def map_pages(
    page: Any, S: Any, slots: Any, start: int, end: int, wanted: int, flags: int
) -> tuple[int, bool]:
    """Map the cached pages of slots, but for those being read or with the readahead flag (``filemap_map_pages()``).

    Returns
    -------
    (int, bool)
        Pages that could be mapped, or were; and whether the wanted slot is among them.
    """
    met = 0
    found = False
    for slot in range(start, end):
        pfn = i64(slots[slot])
        if pfn < SLOT_SHADOW:
            word = i64(page[4 * folio_head(page, pfn) + WORD])
            if not word & (PG_LOCKED | PG_RECLAIM):
                met += 1
                found |= slot == wanted
                if not word & PG_MAPPED:
                    map_page(page, S, slots, i64(slot), flags)
    return met, found
