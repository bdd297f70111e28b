"""What is counted about buffers, and what a lookup needs to know of a level of a path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmfw_xfs_buf.types import MAX_LRU_REF, BufType


class Level(NamedTuple):
    """What all buffers at one level of some paths have in common: size in bytes, and kind."""

    nr_bytes: int
    buf_type: BufType


@dataclass(slots=True)
class BufStats:
    """Counters (``xs_xb``, fs/xfs/xfs_stats.h, where there is one).

    Attributes
    ----------
    hits, misses : int
        Lookups that found a buffer, and that made one (``xb_get_locked``, ``xb_miss_locked``).
    reads : int
        Buffers read from the device (``xb_get_read``).
    disposed : int64[5]
        By the weight of their type, 0 to 4: buffers that a scan freed.
    disposed_bytes : int
        Their size.
    delisted : int
        Buffers in use that a scan took off the LRU and counted as freed.
    rotated : int
        Buffers whose ``b_lru_ref`` a scan counted down.
    recreated : int
        Buffers made again after a scan had freed them.
    compaction_freed_pages : int
        Pages of buffers that ``compaction_scan`` gave up.
    """

    hits: int = 0
    misses: int = 0
    reads: int = 0
    disposed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MAX_LRU_REF + 1, dtype=np.int64))
    disposed_bytes: int = 0
    delisted: int = 0
    rotated: int = 0
    recreated: int = 0
    compaction_freed_pages: int = 0
