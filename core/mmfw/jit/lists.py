"""Whole lists in and out of arrays: loading a state, dumping one, showing what is around a pfn."""

from __future__ import annotations

from typing import Any

from mmfw.jit import njit
from mmfw.jit.page import WORD, first_entry, list_add_tail


@njit
def load_list(page: Any, head: int, pfns: Any, word: int) -> None:
    """Append blocks (int64 pfns, list head first) to a list and set their words."""
    for i in range(pfns.shape[0]):
        pfn = pfns[i]
        page[4 * pfn + WORD] = word
        list_add_tail(page, head, pfn)


@njit
def walk_list(page: Any, head: int, out: Any) -> int:
    """Copy a list's entries, head first, into ``out`` (int64) as far as it holds them.

    Returns
    -------
    int
        Length of the list, which may exceed that of ``out``.
    """
    n = 0
    entry = first_entry(page, head)
    while entry != head:
        if n < out.shape[0]:
            out[n] = entry
        n += 1
        entry = first_entry(page, entry)
    return n
