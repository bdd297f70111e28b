"""Mainline's answer to every decision hook: a plugin like any other, asked last, never answering None.

Without a policy, mm calls these functions directly; with one, they are what its None falls back to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.hookspecs import HOOK_API, hookimpl
from mmfw.offers import PluginInfo
from mmfw.types import KcompactdWork, WakePlan

if TYPE_CHECKING:
    from mmfw.types import (
        CompactControl,
        CompactionScan,
        KcompactdRequest,
        KswapdWake,
        PgdatView,
        ReclaimContext,
        ScanControl,
        ScanPhase,
    )

MMFW_PLUGIN: Final = PluginInfo(name="mainline", hook_api=HOOK_API, kind="policy")

#: By order; a plan is frozen, and one is asked for at every entry of the slow path.
_PLANS: Final = tuple(WakePlan(kswapd_order=order) for order in range(11))


@hookimpl(trylast=True)
def mmfw_plan_wakeup(pgdat: PgdatView, wake: KswapdWake) -> WakePlan:
    """Ask kswapd for the very order that failed (``wakeup_kswapd()``, mm/vmscan.c)."""
    return _PLANS[wake.order]


@hookimpl(trylast=True)
def mmfw_should_shrink_slab(reclaim_context: ReclaimContext) -> bool:
    """Call the shrinkers whatever woke reclaim (``shrink_node_memcgs()``, mm/vmscan.c)."""
    return True


@hookimpl(trylast=True)
def mmfw_should_count_kswapd_failure(pgdat: PgdatView, sc: ScanControl) -> bool:
    """Count every pass that reclaimed nothing (``balance_pgdat()``, mm/vmscan.c)."""
    return True


@hookimpl(trylast=True)
def mmfw_should_wake_kcompactd(pgdat: PgdatView, request: KcompactdRequest) -> bool:
    """Take every request (``wakeup_kcompactd()``, mm/compaction.c)."""
    return True


@hookimpl(trylast=True)
def mmfw_plan_kcompactd_work(pgdat: PgdatView, request: KcompactdRequest) -> KcompactdWork:
    """Compact every zone of the request for its order, waiting for no writeback (``kcompactd_do_work()``)."""
    return KcompactdWork(request.order, request.highest_zoneidx)


@hookimpl(trylast=True)
def mmfw_plan_compaction_scan(cc: CompactControl, phase: ScanPhase) -> CompactionScan | None:
    """Ask no shrinker: ``compact_zone()`` knows none (mm/compaction.c)."""
    return None
