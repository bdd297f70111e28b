"""``struct compact_control`` as the compiled scanners see it: one int64 array, and what both scanners share.

Field names are the kernel's (mm/internal.h). `CC_LIST` is the index of the private list that holds isolated free
pages, head first; pages isolated for migration go into an array of the caller's, in the order of isolation.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.page import (
    MOVABLE,
    PB_ABSENT,
    PB_ORDER,
    PB_PAGES,
    PB_SKIP,
    Z_END,
    Z_START,
    zone_offset,
)

CC_ROW: Final = 0
CC_ORDER: Final = 1
CC_MIGRATETYPE: Final = 2
CC_MODE: Final = 3
CC_FREE_PFN: Final = 4
CC_MIGRATE_PFN: Final = 5
CC_NR_FREEPAGES: Final = 6
CC_NR_MIGRATEPAGES: Final = 7
CC_MIGRATE_SCANNED: Final = 8
CC_FREE_SCANNED: Final = 9
CC_WHOLE_ZONE: Final = 10
CC_IGNORE_SKIP_HINT: Final = 11
CC_IGNORE_BLOCK_SUITABLE: Final = 12
CC_NO_SET_SKIP_HINT: Final = 13
CC_DIRECT: Final = 14
CC_PROACTIVE: Final = 15
CC_FAST_SEARCH_FAIL: Final = 16
CC_SEARCH_ORDER: Final = 17
CC_FAST_START_PFN: Final = 18  #: -1 stands for ULONG_MAX
CC_CONTENDED: Final = 19
CC_RESCAN: Final = 20
CC_LIST: Final = 21
CC_MAY_FS: Final = 22  #: __GFP_FS in gfp_mask
CC_UNEVICTABLE: Final = 23  #: vm.compact_unevictable_allowed
CC_NR_BLOCKS: Final = 24  #: pageblocks visited, for what the run costs
CC_NR_ISOLATED: Final = 25  #: pages isolated by either scanner, for the same
CC_ITERATION_PFN: Final = 26  #: where the last iteration of the loop began
CC_NR_ITERATIONS: Final = 27  #: iterations that the last call of `scan_fruitless_blocks` made
CC_FAST_FIND_SETS_SKIP: Final = 28  #: rules of the kernel: 6.1's if 1
CC_FAILURE_SKIPS_CHUNK: Final = 29
CC_SIZE: Final = 32

MODE_ASYNC: Final = 0
MODE_SYNC_LIGHT: Final = 1
MODE_SYNC: Final = 2

COMPACT_CLUSTER_MAX: Final = 32
COSTLY_ORDER: Final = 3


@inline_njit
def block_start_pfn(pfn: int, order: int) -> int:
    """``block_start_pfn()``."""
    return (pfn >> order) << order


@inline_njit
def block_end_pfn(pfn: int, order: int) -> int:
    """``block_end_pfn()``: an aligned pfn gives the next boundary."""
    return ((pfn + (1 << order)) >> order) << order


@inline_njit
def scanners_met(cc: Any) -> bool:
    """``compact_scanners_met()``."""
    return cc[CC_FREE_PFN] >> PB_ORDER <= cc[CC_MIGRATE_PFN] >> PB_ORDER


@inline_njit
def freelist_scan_limit(cc: Any) -> int:
    """``freelist_scan_limit()``."""
    return (COMPACT_CLUSTER_MAX >> min(63, cc[CC_FAST_SEARCH_FAIL])) + 1


@inline_njit
def get_skip(pb: Any, pfn: int) -> bool:
    """``get_pageblock_skip()``."""
    return pb[pfn >> PB_ORDER] & PB_SKIP != 0


@inline_njit
def set_skip(pb: Any, pfn: int) -> None:
    """``set_pageblock_skip()``."""
    pb[pfn >> PB_ORDER] |= PB_SKIP


@inline_njit
def isolation_suitable(pb: Any, cc: Any, pfn: int) -> bool:
    """``isolation_suitable()``."""
    return cc[CC_IGNORE_SKIP_HINT] != 0 or pb[pfn >> PB_ORDER] & PB_SKIP == 0


@njit
def pageblock_in_zone(pb: Any, S: Any, row: int, start: int, end: int) -> bool:
    """Whether a range of one pageblock is valid memory of the zone (``pageblock_pfn_to_page()``)."""
    z = zone_offset(row)
    if start < S[z + Z_START] or end > S[z + Z_END]:
        return False
    return pb[start >> PB_ORDER] & PB_ABSENT == 0


@inline_njit
def is_movable_block(pb: Any, pfn: int) -> bool:
    """Whether the block of a pfn is Movable (``is_migrate_movable()`` of its type)."""
    return i64(pb[pfn >> PB_ORDER] & 7) == MOVABLE


__all__ = ["PB_PAGES", "block_end_pfn", "block_start_pfn"]
