"""What the queue's shrinker does otherwise in later kernels, as named switches (mm/huge_memory.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class DeferredSplitKernel:
    """Rules of one kernel.

    Attributes
    ----------
    splits_underused : bool
        Huge pages are queued as soon as they are mapped, and split if they hold more zero-filled pages than
        ``max_ptes_none``; a split maps the zero page in place of what is zero-filled, and frees it (6.12,
        ``split_underused_thp``, on by default).
    empty_says_so : bool
        An empty queue is counted as SHRINK_EMPTY, not 0 ("mm: return SHRINK_EMPTY for an empty deferred split list",
        on top of the queue's move to a list_lru). That it is in 7.2 and not in 7.1 is an assumption.
    """

    splits_underused: bool
    empty_says_so: bool


#: By `mmfw.kernels.KernelProfile.name`.
DEFERRED_SPLIT_KERNELS: Final = {
    "6.1": DeferredSplitKernel(splits_underused=False, empty_says_so=False),
    "7.1": DeferredSplitKernel(splits_underused=True, empty_says_so=False),
    "7.2": DeferredSplitKernel(splits_underused=True, empty_says_so=True),
}
