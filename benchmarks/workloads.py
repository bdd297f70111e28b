"""Streams of requests: the same for every implementation, made before any clock runs.

An operation is a uint32: bit 0 free, bits 1-4 order, bits 5-6 which kind of request (`REQUESTS`), bits 8-31
which of the held blocks to free, as a fraction of their number. An allocation that fails is dropped, a free
with nothing held does nothing, so that any stream runs on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.gfp import gfp_migratetype, gfp_zone
from mmfw.jit import page as pg
from mmfw.state import NodeState, ZoneType

Ops = NDArray[np.uint32]

FREE: Final = 1
ORDER_SHIFT: Final = 1
REQUEST_SHIFT: Final = 5
PICK_SHIFT: Final = 8

#: gfp masks of the streams; the mixed ones draw from all.
REQUESTS: Final = (gfp.GFP_HIGHUSER_MOVABLE, gfp.GFP_KERNEL, gfp.GFP_KERNEL | gfp.RECLAIMABLE)
#: Operations in a chunk: bounds what a stream needs in memory, and is what one timing covers.
CHUNK: Final = 1 << 20


def request_rows(state: NodeState) -> NDArray[np.int64]:
    """gfp mask, migratetype, highest zone index and fast-path ``ALLOC_*`` flags of each of `REQUESTS`."""
    rows = []
    for mask in REQUESTS:
        flags = pg.ALLOC_WMARK_LOW | mask & gfp.KSWAPD_RECLAIM
        if any(zone.zone == ZoneType.NORMAL for zone in state.zones):
            flags |= pg.ALLOC_NOFRAGMENT
        rows.append((mask, gfp_migratetype(mask), gfp_zone(mask), flags))
    return np.array(rows, dtype=np.int64)


def picks(rng: np.random.Generator, n: int) -> Ops:
    return rng.integers(0, 1 << 24, n, dtype=np.uint32) << PICK_SHIFT


def fill(n: int) -> Iterator[Ops]:
    """Order-0 Movable allocations."""
    while n > 0:
        yield np.zeros(min(n, CHUNK), dtype=np.uint32)
        n -= CHUNK


def free_random(rng: np.random.Generator, n: int) -> Iterator[Ops]:
    """Frees of random held blocks."""
    while n > 0:
        yield picks(rng, min(n, CHUNK)) | FREE
        n -= CHUNK


def churn(rng: np.random.Generator, n: int) -> Ops:
    """A random free, an order-0 allocation, and again: what stays in the per-CPU lists."""
    ops = picks(rng, n) | FREE
    ops[1::2] = 0
    return ops


def bursts(rng: np.random.Generator, n: int) -> Ops:
    """4096 random frees, 4096 order-0 allocations, and again: refills and trims the per-CPU lists."""
    ops = picks(rng, n) | FREE
    ops[np.arange(n) & 4096 != 0] = 0
    return ops


def mixed(rng: np.random.Generator, n: int) -> Ops:
    """Half frees, half allocations of all types, order = min(trailing zeros of a random number, 9)."""
    draw = rng.integers(1, 1 << 32, n, dtype=np.uint64).astype(np.int64)
    order = np.minimum(np.log2(draw & -draw).astype(np.uint32), 9)
    allocs = order << ORDER_SHIFT | rng.integers(0, len(REQUESTS), n, dtype=np.uint32) << REQUEST_SHIFT
    return np.where(rng.random(n) < 0.5, picks(rng, n) | FREE, allocs).astype(np.uint32)


def tight(rng: np.random.Generator, n: int) -> Ops:
    """Half frees, half allocations of all types, one in eight of order 1..3, where some of them fail."""
    order = np.where(rng.random(n) < 0.125, rng.integers(1, 4, n), 0).astype(np.uint32)
    allocs = order << ORDER_SHIFT | rng.integers(0, len(REQUESTS), n, dtype=np.uint32) << REQUEST_SHIFT
    return np.where(rng.random(n) < 0.5, picks(rng, n) | FREE, allocs).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is timed.

    Attributes
    ----------
    name, about : str
        Key, and words for the table.
    filled : float
        Part of managed memory that is first taken by order-0 pages; above 1 until requests fail.
    freed : float
        Part of managed memory that is then freed at random.
    stream : callable
        Generator and length to operations.
    """

    name: str
    about: str
    filled: float
    freed: float
    stream: Callable[[np.random.Generator, int], Ops]

    def setup(self, managed: int) -> Iterator[Ops]:
        """What brings a machine of so many managed pages to where timing starts."""
        yield from fill(int(self.filled * managed))
        yield from free_random(np.random.default_rng(1), int(self.freed * managed))

    def chunk(self, managed: int) -> int:
        """Operations a round on such a machine; those that only fill must not reach the end of memory."""
        return CHUNK if self.filled else min(CHUNK, managed // 32)


WORKLOADS: Final = (
    Workload("fill", "order-0 allocations only", 0, 0, lambda rng, n: np.zeros(n, dtype=np.uint32)),
    Workload("churn", "order-0 churn at half full", 0.5, 0, churn),
    Workload("bursts", "the same in bursts of 4096", 0.5, 0, bursts),
    Workload("mixed", "orders 0..9, fragmented memory", 1.01, 0.5, mixed),
    Workload("near-full", "orders 0..3 at the watermark", 1.01, 0, tight),
)
