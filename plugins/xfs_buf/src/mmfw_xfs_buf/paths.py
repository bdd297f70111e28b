"""Many lookups at once: the blocks of paths from root to leaf, hits in array operations, misses one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw_xfs_buf.table import DONE, LOCKED, STALE

if TYPE_CHECKING:
    from mmfw_xfs_buf.buftarg import XfsBuftarg
    from mmfw_xfs_buf.stats import Level

#: Buffers that are looked up at once.
_CHUNK: Final = 4096


def read_paths(
    buftarg: XfsBuftarg, paths: NDArray[np.int64], levels: tuple[Level, ...], misses: NDArray[np.int64]
) -> None:
    """Read the buffers of some paths from root to leaf, one path after another (``xfs_btree_lookup()``).

    Every buffer gets its kind's weight. While one is read from the device, those above it are held, as a cursor does.
    Hits take no time: what they cost the CPU is the caller's to charge.

    Parameters
    ----------
    buftarg : XfsBuftarg
        Whose buffers.
    paths : int64[n, h]
        daddrs, the root's first; those of one path differ.
    levels : tuple of h Level
        What lies at each place of a path; no kind of weight 0.
    misses : int64[h]
        Out: buffers that had to be made, added by place.
    """
    flat = np.ascontiguousarray(paths).reshape(-1)
    height = len(levels)
    refs = buftarg.weights[[level.buf_type for level in levels]]
    table, stats = buftarg.table, buftarg.stats
    done = 0
    while done < len(flat):
        part = flat[done : done + _CHUNK]
        slots = buftarg.lookup(part)
        usable = slots >= 0
        usable[usable] = (table.flags[slots[usable]] & (LOCKED | STALE | DONE)) == DONE
        weights = refs[(done + np.arange(len(part))) % height]
        nr_freed, at = buftarg.nr_freed, 0
        for miss in np.flatnonzero(~usable).tolist():
            table.lru_ref[slots[at:miss]] = weights[at:miss]
            stats.hits += miss - at
            where, level = done + miss, (done + miss) % height
            misses[level] += _read_below(buftarg, flat[where - level : where], int(part[miss]), levels[level])
            at = miss + 1
            if buftarg.nr_freed != nr_freed:
                # Slots looked up before may be other buffers' now.
                break
        else:
            table.lru_ref[slots[at:]] = weights[at:]
            stats.hits += len(part) - at
            at = len(part)
        done += at


def _read_below(buftarg: XfsBuftarg, above: NDArray[np.int64], daddr: int, level: Level) -> int:
    """Read one buffer of a path while those above it are held; 1 if it had to be made."""
    missed = int(buftarg.lookup(np.array([daddr]))[0] < 0)
    found = buftarg.lookup(above)
    held = found[found >= 0]
    buftarg.hold_all(held)
    slot = buftarg.read(daddr, *level)
    buftarg.set_ref(slot)
    buftarg.rele(slot)
    buftarg.rele_all(held)
    return missed
