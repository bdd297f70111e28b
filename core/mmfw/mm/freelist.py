"""Requests and the free lists: what a gfp mask means, and one attempt at the lists (mm/page_alloc.c of 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import gfp
from mmfw.gfp import GFP_BITS_MASK, GFP_MOVABLE_MASK, gfp_migratetype, gfp_zone
from mmfw.jit import alloc as jit
from mmfw.jit import page as pg
from mmfw.jit.buddy import unreserve_highatomic_pageblock
from mmfw.state import MAX_ORDER, ZoneType
from mmfw.types import WakeReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmfw.mm.context import ExecContext
    from mmfw.mm.mmzone import PglistData, Zone
    from mmfw.mm.wakeup import KswapdRequests

PF_MEMALLOC: Final = 0x800
PF_MEMALLOC_NOFS: Final = 0x40000
PF_MEMALLOC_NOIO: Final = 0x80000


@dataclass(frozen=True, slots=True)
class Request:
    """What ``prepare_alloc_pages()`` and ``gfp_to_alloc_flags()`` derive from a mask.

    Attributes
    ----------
    gfp_mask : int
        The mask, with the running task's NOFS and NOIO scopes applied.
    migratetype, highest_zoneidx : int
        Type and highest zone it may use.
    fast_flags, slow_flags : int
        ``ALLOC_*`` flags of the fast path, and those the slow path begins with.
    """

    gfp_mask: int
    migratetype: int
    highest_zoneidx: int
    fast_flags: int
    slow_flags: int


class Freelist:
    """Attempts to take a block from the zones of one node.

    Parameters
    ----------
    pgdat : PglistData
        The node.
    vmscan : Vmscan
        Whose kswapd is woken.
    context : ExecContext
        The running task.
    """

    def __init__(self, pgdat: PglistData, kswapd: KswapdRequests, context: ExecContext) -> None:
        self.pgdat = pgdat
        self.memory = pgdat.memory
        self.node_row = 0
        self.kswapd = kswapd
        self._context = context
        self._requests: dict[tuple[int, int], Request] = {}
        # By highest zone index; memory is neither plugged in nor out.
        self._zonelists = [
            [zone for zone in reversed(pgdat.node_zones[: hzi + 1]) if zone.managed_pages]
            for hzi in range(len(pgdat.node_zones))
        ]

    def request(self, gfp_mask: int, order: int) -> Request:
        """What a mask means for the running task.

        Raises
        ------
        ValueError
            The mask has unknown bits or two zone selectors, or the order is negative.
        """
        scope = self._context.task_flags & (PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO)
        key = (gfp_mask, scope | (1 if order else 0))
        request = self._requests.get(key)
        if request is None:
            request = self._prepare_alloc_pages(gfp_mask, order, scope)
            self._requests[key] = request
        return request

    def _prepare_alloc_pages(self, gfp_mask: int, order: int, scope: int) -> Request:
        if gfp_mask & ~GFP_BITS_MASK or gfp_mask < 0:
            raise ValueError(f"gfp mask {gfp_mask:#x} has bits that 6.1 does not have")
        if order < 0:
            raise ValueError(f"order {order}: 0 to {MAX_ORDER - 1} exist")
        if gfp_mask & GFP_MOVABLE_MASK == GFP_MOVABLE_MASK:
            raise ValueError(f"gfp mask {gfp_mask:#x} asks for Movable and Reclaimable at once")
        # current_gfp_context()
        if scope & PF_MEMALLOC_NOIO:
            gfp_mask &= ~(gfp.IO | gfp.FS)
        elif scope & PF_MEMALLOC_NOFS:
            gfp_mask &= ~gfp.FS
        hzi = gfp_zone(gfp_mask)
        migratetype = 0 if self.memory.S[pg.S_MOBILITY_OFF] else gfp_migratetype(gfp_mask)
        fast = pg.ALLOC_WMARK_LOW | gfp_mask & gfp.KSWAPD_RECLAIM
        # alloc_flags_nofragment(): only while the preferred zone is Normal, so that DMA32 stays whole
        if self.preferred_zone(hzi) == ZoneType.NORMAL:
            fast |= pg.ALLOC_NOFRAGMENT
        return Request(gfp_mask, migratetype, hzi, fast, self._gfp_to_alloc_flags(gfp_mask, order))

    @staticmethod
    def _gfp_to_alloc_flags(gfp_mask: int, order: int) -> int:
        """``gfp_to_alloc_flags()`` of 6.1.192, less what real-time tasks get."""
        flags = pg.ALLOC_WMARK_MIN | pg.ALLOC_CPUSET | gfp_mask & (gfp.HIGH | gfp.KSWAPD_RECLAIM)
        if not gfp_mask & gfp.DIRECT_RECLAIM:
            if not gfp_mask & gfp.NOMEMALLOC:
                flags |= pg.ALLOC_NON_BLOCK
                if order > 0 and flags & pg.ALLOC_MIN_RESERVE:
                    flags |= pg.ALLOC_HIGHATOMIC
            if flags & pg.ALLOC_MIN_RESERVE:
                flags &= ~pg.ALLOC_CPUSET
        return flags

    def zonelist(self, highest_zoneidx: int) -> Iterator[Zone]:
        """Managed zones up to an index, in the order in which they are tried: highest first."""
        return iter(self._zonelists[highest_zoneidx])

    def preferred_zone(self, highest_zoneidx: int) -> int:
        """Index of the zone that is tried first, or -1."""
        zones = self._zonelists[highest_zoneidx]
        return zones[0].index if zones else -1

    def get_page(self, request: Request, order: int, flags: int) -> int:
        """First pfn of a block, or -1 (``get_page_from_freelist()``); wakes kswapd for a boosted watermark."""
        memory = self.memory
        pfn = jit.get_page_from_freelist(
            memory.page,
            memory.pb,
            memory.S,
            self._context.cpu,
            self.node_row,
            request.gfp_mask,
            order,
            request.migratetype,
            request.highest_zoneidx,
            flags,
        )
        if memory.S[pg.S_BOOST_WAKE]:
            self.wake_for_boost()
        return int(pfn)

    def watermark_ok(
        self, zone: Zone, order: int, mark: int, highest_zoneidx: int, flags: int, free: int
    ) -> bool:
        """Whether a zone with that many free pages could serve an order (``__zone_watermark_ok()``)."""
        memory = self.memory
        return jit.zone_watermark_ok_free(
            memory.page, memory.S, zone.index, order, mark, highest_zoneidx, flags, free
        )

    def wake_for_boost(self) -> None:
        """The wake-up that ``rmqueue()`` does after a steal boosted a zone's watermark."""
        S = self.memory.S
        if not S[pg.S_BOOST_WAKE]:
            return  # another CPU was quicker
        zone = self.pgdat.node_zones[int(S[pg.S_BOOST_WAKE]) - 1]
        S[pg.S_BOOST_WAKE] = 0
        self.kswapd.wakeup_kswapd(0, 0, zone.index, WakeReason.BOOST)

    def wake_all_kswapds(self, request: Request, order: int) -> bool:
        """``wake_all_kswapds()``: once per node of the zonelist, and there is one; whether kswapd slept."""
        if self.preferred_zone(request.highest_zoneidx) < 0:
            return False
        return self.kswapd.wakeup_kswapd(
            request.gfp_mask, order, request.highest_zoneidx, WakeReason.SLOWPATH
        )

    def unreserve_highatomic_pageblock(self, request: Request, *, force: bool) -> bool:
        """Give one highatomic block back; whether pages were moved (``unreserve_highatomic_pageblock()``)."""
        memory = self.memory
        for zone in self.zonelist(request.highest_zoneidx):
            z = memory.zone_offset(zone.index)
            if unreserve_highatomic_pageblock(
                memory.page, memory.pb, memory.S, zone.index, z, request.migratetype, force
            ):
                return True
        return False

    def drain_local_pages(self) -> None:
        """Empty this CPU's page lists (``drain_local_pages()``)."""
        memory = self.memory
        jit.drain_pages(memory.page, memory.pb, memory.S, self._context.cpu)

    def drain_all_pages(self) -> int:
        """Empty all CPUs' page lists (``drain_all_pages()``); pages they held."""
        memory = self.memory
        drained = 0
        for cpu in range(memory.nr_cpus):
            for row in memory.populated_rows:
                drained += int(memory.S[memory.pcp_offset(cpu, row) + pg.C_COUNT])
            jit.drain_pages(memory.page, memory.pb, memory.S, cpu)
        return drained
