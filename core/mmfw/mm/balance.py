"""kswapd's pass: priorities from 12 down until the node is balanced (``balance_pgdat()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw.gfp import GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.mm.mmzone import Zone, high_wmark_pages
from mmfw.mm.throttle import MAX_RECLAIM_RETRIES
from mmfw.mm.vmscan import Vmscan, compact_gap
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import PAGEBLOCK_ORDER
from mmfw.types import DEF_PRIORITY, SWAP_CLUSTER_MAX, Reclaimer, ScanControl

if TYPE_CHECKING:
    from mmfw.mm.mmzone import PglistData


class Balancer:
    """What kswapd does when awake.

    Parameters
    ----------
    vmscan : Vmscan
        Reclaim of its node.
    vmstat : VmStat
        Where counts go.
    """

    def __init__(self, vmscan: Vmscan, vmstat: VmStat) -> None:
        self.vmscan = vmscan
        self.pgdat: PglistData = vmscan.pgdat
        self._vmstat = vmstat

    def balance_pgdat(self, order: int, highest_zoneidx: int, beyond: int = 0) -> int:
        """Reclaim until the node is balanced for an order, or every priority was tried (``balance_pgdat()``).

        A policy may have asked for free pages `beyond` the high watermark.

        Returns
        -------
        int
            The order it ended with: 0 once enough was reclaimed to leave the rest to compaction.
        """
        pgdat, vmscan = self.pgdat, self.vmscan
        sc = ScanControl(
            nr_to_reclaim=0,
            order=order,
            priority=DEF_PRIORITY,
            reclaim_idx=highest_zoneidx,
            gfp_mask=GFP_KERNEL,
            may_writepage=False,
            may_unmap=True,
            may_swap=True,
        )
        vmscan.begin_reclaim()
        self._vmstat.count(VmEvent.pageoutrun)
        boosts = [(z, z.watermark_boost) for z in pgdat.managed_zones(highest_zoneidx)]
        nr_boost_reclaim = sum(boost for _, boost in boosts)
        boosted = nr_boost_reclaim > 0
        zones = [z for z, _ in boosts]
        for zone in zones:
            zone.set_flag(pg.ZF_RECLAIM_ACTIVE, True)
        done = False
        while sc.priority >= 1:
            raise_priority = True
            before = sc.nr_reclaimed
            balanced = pgdat.pgdat_balanced(sc.order, highest_zoneidx, beyond)
            if not balanced and nr_boost_reclaim:
                nr_boost_reclaim = 0
                sc.priority = DEF_PRIORITY
                continue
            if not nr_boost_reclaim and balanced:
                done = True
                break
            if nr_boost_reclaim and sc.priority == DEF_PRIORITY - 2:
                raise_priority = False
            sc.may_writepage = not nr_boost_reclaim or sc.priority < DEF_PRIORITY - 2
            sc.may_swap = not nr_boost_reclaim
            self._kswapd_age_node(sc)
            sc.nr_scanned = 0
            if self.kswapd_shrink_node(sc, zones):
                raise_priority = False
            vmscan.wake_allowed()
            vmscan.try_to_freeze()
            progress = sc.nr_reclaimed - before
            nr_boost_reclaim -= min(nr_boost_reclaim, progress)
            if nr_boost_reclaim and not progress:
                break
            if raise_priority or not progress:
                sc.priority -= 1
        if not done and sc.nr_reclaimed == 0 and vmscan.counts_as_failure(sc):
            pgdat.kswapd_failures += 1
        for zone in zones:
            zone.set_flag(pg.ZF_RECLAIM_ACTIVE, False)
        if boosted:
            for zone, boost in boosts:
                zone.watermark_boost -= min(zone.watermark_boost, boost)
            if vmscan.compaction is not None:
                vmscan.compaction.wakeup_kcompactd(PAGEBLOCK_ORDER, highest_zoneidx)
        if vmscan.lru_scan is not None:
            vmscan.lru_scan.snapshot_refaults()
        vmscan.end_reclaim()
        return sc.order

    def _kswapd_age_node(self, sc: ScanControl) -> None:
        """``kswapd_age_node()``: keep some anonymous pages inactive, if there is swap."""
        scan = self.vmscan.lru_scan
        if scan is not None and scan.can_age_anon_pages() and scan.inactive_is_low(False):
            scan.shrink_active_list(pg.LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX, sc)

    def kswapd_shrink_node(self, sc: ScanControl, zones: list[Zone]) -> bool:
        """One priority's turn; whether it scanned enough to stay at it (``kswapd_shrink_node()``)."""
        sc.nr_to_reclaim = sum(max(high_wmark_pages(zone), SWAP_CLUSTER_MAX) for zone in zones)
        self.vmscan.shrink_node(sc, Reclaimer.KSWAPD)
        if sc.order and sc.nr_reclaimed >= compact_gap(sc.order):
            sc.order = 0
        return sc.nr_scanned >= sc.nr_to_reclaim

    def prepare_kswapd_sleep(self, order: int, highest_zoneidx: int, beyond: int = 0) -> bool:
        """Whether kswapd may sleep: the node is hopeless or balanced (``prepare_kswapd_sleep()``)."""
        pgdat = self.pgdat
        self.vmscan.wake_throttled()
        if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES:
            return True
        if pgdat.pgdat_balanced(order, highest_zoneidx, beyond):
            pgdat.under_writeback = pgdat.many_dirty = pgdat.congested = False
            return True
        return False
