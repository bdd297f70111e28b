"""Fills and their fragmentation: unmovable pages, all taken, then every n-th given back (the module's fill list)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw import Mm

#: GFP_KERNEL without the reclaim bits, no warning: an allocation that wakes nobody.
FILL_GFP = (gfp.GFP_KERNEL & ~gfp.RECLAIM) | gfp.NOWARN
_CHUNK = 1024


class Fill:
    """Blocks held, in the order of their allocation.

    Parameters
    ----------
    mm : Mm
        Where they come from.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self.pfns: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def fill(self, leave: int, limit: int | None = None) -> None:
        """Take single unmovable pages until at most ``leave`` are free, or none is to be had.

        Parameters
        ----------
        leave : int
            Free pages to leave, by the system-wide count without per-CPU deltas.
        limit : int, optional
            Take at most so many.
        """
        taken = [self.pfns]
        total = 0
        while limit is None or total < limit:
            want = min(_CHUNK, self._mm.global_zone_free_pages() - leave)
            want = want if limit is None else min(want, limit - total)
            if want <= 0:
                break
            got = self._mm.alloc_pages_batch(FILL_GFP, 0, want)
            taken.append(got)
            total += len(got)
            self._mm.cond_resched()
            if len(got) < want:
                break
        self.pfns = np.concatenate(taken)

    def _keep(self, keep: NDArray[np.bool_]) -> None:
        freed, self.pfns = self.pfns[~keep], self.pfns[keep]
        for at in range(0, len(freed), _CHUNK):
            self._mm.free_pages_batch(freed[at : at + _CHUNK], 0)
            self._mm.cond_resched()

    def punch(self, n: int) -> None:
        """Give every n-th page back, in the order of allocation."""
        self._keep(np.arange(len(self.pfns)) % n != n - 1)

    def punch_pfn(self, n: int) -> None:
        """Give back all pages but those whose pfn is a multiple of n."""
        self._keep(self.pfns % n == 0)

    def fill_free(self) -> None:
        """Give everything back."""
        self._keep(np.zeros(len(self.pfns), dtype=np.bool_))
