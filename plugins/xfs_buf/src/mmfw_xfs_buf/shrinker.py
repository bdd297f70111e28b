"""The shrinker "xfs-buf:<device>" (``xfs_buftarg_shrink_scan()``, fs/xfs/xfs_buf.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import hookimpl

if TYPE_CHECKING:
    from mmfw import Mm, ShrinkControl
    from mmfw_xfs_buf.buf import XfsBuftarg


class XfsBufShrinker:
    """Counts and frees buffers, whatever their size and the mask.

    Parameters
    ----------
    mm : Mm
        Where looking at a buffer costs time.
    buftarg : XfsBuftarg
        Whose buffers.
    """

    seeks = 2
    batch = 0

    def __init__(self, mm: Mm, buftarg: XfsBuftarg) -> None:
        self._mm = mm
        self._buftarg = buftarg

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Buffers on the LRU; 0 and not SHRINK_EMPTY if there is none, as in the kernel."""
        return self._buftarg.nr_lru

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free the oldest ``nr_to_scan`` buffers; never SHRINK_STOP."""
        self._mm.charge(sc.nr_to_scan * self._mm.sched.costs.scan_object, "xfs-buf walk")
        return self._buftarg.shrink(sc.nr_to_scan)
