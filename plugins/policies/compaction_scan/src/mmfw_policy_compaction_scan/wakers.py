"""Whether kcompactd works for somebody who must have a block: the classes of its wakers, folded.

Nobody tells kcompactd who wakes it. A wake-up reaches it straight, where a policy plans that, or through kswapd, which
passes its request on as it goes to sleep. So a waker counts for the one, the other or both, and what counts for kswapd
counts for kcompactd too from the moment kswapd passes it on. ``wakeup_kswapd()`` itself passes on only requests
without direct reclaim, none of which must have its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw import KswapdWake, WakePlan


def must_have(order: int, gfp_mask: int) -> bool:
    """Whether a request above order 0 is neither failable nor without direct reclaim.

    Failable is ``__GFP_NORETRY`` or ``__GFP_RETRY_MAYFAIL`` without ``__GFP_NOFAIL``, as in v6 of the series. One that
    may not enter direct reclaim gives up at its first failure, so it is served opportunistically as well.
    """
    if order <= 0 or not gfp_mask & gfp.DIRECT_RECLAIM:
        return False
    return bool(gfp_mask & gfp.NOFAIL) or not gfp_mask & (gfp.NORETRY | gfp.RETRY_MAYFAIL)


@dataclass(slots=True)
class Wakers:
    """Whether any waker must have its block.

    Attributes
    ----------
    kswapd : bool
        Since kswapd last took its request.
    kswapd_run : bool
        Of the request that kswapd took last.
    kcompactd : bool
        Since kcompactd last took its request.
    kcompactd_run : bool
        Of the request that kcompactd took last.
    """

    kswapd: bool = False
    kswapd_run: bool = False
    kcompactd: bool = False
    kcompactd_run: bool = False

    def fold(self, wake: KswapdWake, plan: WakePlan) -> None:
        """Note a waker, as its wake-up was planned."""
        if not must_have(wake.order, wake.gfp_mask):
            return
        if plan.kcompactd_order:
            self.kcompactd = True
        if plan.kswapd_order:
            self.kswapd = True

    def kswapd_begins(self) -> None:
        """Kswapd takes its request."""
        self.kswapd_run, self.kswapd = self.kswapd, False

    def kswapd_requeues(self) -> None:
        """Kswapd puts its request back."""
        self.kswapd |= self.kswapd_run

    def kswapd_passes_on(self) -> None:
        """Kswapd asks kcompactd for what it was asked itself."""
        self.kcompactd |= self.kswapd_run

    def kcompactd_begins(self) -> None:
        """Kcompactd takes its request."""
        self.kcompactd_run, self.kcompactd = self.kcompactd, False
