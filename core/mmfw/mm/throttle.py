"""Where reclaim sleeps to let others make progress (``reclaim_throttle()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from mmfw.costs import NSEC_PER_SEC, TICK_NSEC
from mmfw.mm.trace import MmVmscanThrottled, Tracepoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.mm.context import ExecContext
    from mmfw.mm.mmzone import PglistData


class VmscanThrottle(IntEnum):
    """``enum vmscan_throttle_state``."""

    WRITEBACK = 0
    ISOLATED = 1
    NOPROGRESS = 2
    CONGESTED = 3


_TIMEOUT_NS: Final = {
    VmscanThrottle.WRITEBACK: NSEC_PER_SEC // 10,
    VmscanThrottle.ISOLATED: NSEC_PER_SEC // 50,
    VmscanThrottle.NOPROGRESS: TICK_NSEC,
    VmscanThrottle.CONGESTED: TICK_NSEC,
}
MAX_RECLAIM_RETRIES: Final = 16


def reclaim_throttle(
    pgdat: PglistData,
    reason: VmscanThrottle,
    context: ExecContext,
    trace: Tracepoints,
    *,
    may_sleep: bool,
    skip_congested: Callable[[], bool],
) -> None:
    """Sleep for a reason's timeout, or just let others run (``reclaim_throttle()``).

    The kernel wakes sleepers for writeback early, once enough pages were written; here they sleep the
    whole tenth of a second, which costs a task under heavy swapping up to that much.

    Parameters
    ----------
    pgdat : PglistData
        The node.
    reason : VmscanThrottle
        Why.
    context, trace
        The running task; where the event goes.
    may_sleep : bool
        False for kernel threads other than kswapd and I/O workers.
    skip_congested : callable
        ``skip_throttle_noprogress()``: whether sleeping would be in vain.
    """
    if not may_sleep:
        context.might_sleep()
        return
    if reason in (VmscanThrottle.NOPROGRESS, VmscanThrottle.CONGESTED) and skip_congested():
        context.might_sleep()
        return
    ns = _TIMEOUT_NS[reason]
    context.schedule_timeout(ns)
    trace.fire(MmVmscanThrottled, pgdat.node_id, ns // 1000, ns // 1000, reason)
