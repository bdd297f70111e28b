"""Counts over arrays of pfns and slots: what costs several array operations otherwise, for a few items each time."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit
from mmfw.jit.page import ORDER_MASK, T_BUDDY, TYPE_MASK, WORD


@njit
def folio_pages(page: Any, pfns: Any, huge_order: int) -> tuple[int, int]:
    """Pages of folios by their heads, and how many of them are of an order."""
    nr_pages = i64(0)
    nr_huge = i64(0)
    for i in range(pfns.shape[0]):
        order = i64(page[4 * i64(pfns[i]) + WORD]) & ORDER_MASK
        nr_pages += 1 << order
        nr_huge += order == huge_order
    return nr_pages, nr_huge


@njit
def at_least(words: Any, mark: int) -> int:
    """How many words are not below a mark."""
    n = i64(0)
    for i in range(words.shape[0]):
        n += words[i] >= mark
    return n


@njit
def blocks_of(pfns: Any, block_order: int, out: Any) -> int:
    """Blocks of an order that pfns lie in, in their order; one comes again only if another lies between; how many."""
    n = i64(0)
    for i in range(pfns.shape[0]):
        block = i64(pfns[i]) >> block_order
        if n == 0 or out[n - 1] != block:
            out[n] = block
            n += 1
    return n


@njit
def nr_free_blocks(page: Any, blocks: Any, block_order: int) -> int:
    """How many aligned blocks of an order lie in a free one of that order or the next, which is the highest."""
    n = i64(0)
    above = block_order + 1
    for i in range(blocks.shape[0]):
        block = i64(blocks[i])
        own = page[4 * (block << block_order) + WORD] & (TYPE_MASK | ORDER_MASK)
        larger = page[4 * ((block >> 1) << above) + WORD] & (TYPE_MASK | ORDER_MASK)
        n += own == T_BUDDY | block_order or larger == T_BUDDY | above
    return n
