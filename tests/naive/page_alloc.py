"""A plain twin of the page allocator of Linux 6.1 (mm/page_alloc.c), for one node and one CPU.

Deques for pcp lists, `naive.buddy` behind them, and ``alloc_pages()`` for masks that cannot enter reclaim.
"""

from __future__ import annotations

from collections import deque

from naive.buddy import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    COSTLY_ORDER,
    HIGHATOMIC,
    ISOLATE,
    MAX_ORDER,
    MOVABLE,
    PAGEBLOCK_ORDER,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MASK,
    WMARK_MIN,
    ZONE_BOOSTED_WATERMARK,
    Event,
    NaiveBuddy,
    Record,
    pcp_allowed_order,
)

ZONE_NORMAL = 2
GFP_DMA, GFP_HIGHMEM, GFP_DMA32, GFP_MOVABLE = 0x1, 0x2, 0x4, 0x8
GFP_HIGH, GFP_DIRECT_RECLAIM, GFP_KSWAPD_RECLAIM = 0x20, 0x400, 0x800
GFP_MEMALLOC, GFP_NOMEMALLOC = 0x20000, 0x80000

ZONE_RECLAIM_ACTIVE = 0x2
PCP_BATCH_SCALE_MAX = 5


def order_to_pindex(migratetype: int, order: int) -> int:
    if order == PAGEBLOCK_ORDER:
        return 12 + (migratetype == MOVABLE)
    return 3 * order + migratetype


def pindex_to_order(pindex: int) -> int:
    return PAGEBLOCK_ORDER if pindex >= 12 else pindex // 3


class NaiveZoneAllocator(NaiveBuddy):
    """One zone: the buddy lists and one CPU's page lists in front of them."""

    def __init__(self, record: Record, events: list[Event], watermark_boost_factor: int = 15000) -> None:
        super().__init__(record, events, watermark_boost_factor)
        pcp = record["pcp"]
        self.pcp_count: int = pcp["count"]
        self.pcp_high: int = pcp["high"]
        self.pcp_batch: int = pcp["batch"]
        self.free_factor: int = pcp["free_factor"]
        self.pcp: list[deque[tuple[int, int]]] = [
            deque((pfn, mt) for pfn, mt in pages) for pages in pcp["lists"]
        ]

    def state(self) -> Record:
        pcp = dict(self.record["pcp"])
        pcp.update(count=self.pcp_count, free_factor=self.free_factor)
        pcp["lists"] = [[list(page) for page in pages] for pages in self.pcp]
        return dict(super().state(), pcp=pcp)

    def rmqueue_pcplist(self, order: int, migratetype: int, flags: int) -> int | None:
        self.free_factor >>= 1
        pages = self.pcp[order_to_pindex(migratetype, order)]
        if not pages:
            batch = self.pcp_batch
            if batch > 1:
                batch = max(batch >> order, 2)
            for _ in range(batch):
                pfn = self.rmqueue_locked(order, migratetype, flags)
                if pfn is None:
                    break
                pages.append((pfn, migratetype))
            self.mod_free_pages(-(len(pages) << order))
            self.pcp_count += len(pages) << order
        if not pages:
            return None
        self.pcp_count -= 1 << order
        return pages.popleft()[0]

    def rmqueue_buddy(self, order: int, migratetype: int, flags: int) -> int | None:
        pfn = None
        if flags & ALLOC_HIGHATOMIC:
            pfn = self.rmqueue_smallest(order, HIGHATOMIC)
        if pfn is None:
            pfn = self.rmqueue_locked(order, migratetype, flags)
        if pfn is None and flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            pfn = self.rmqueue_smallest(order, HIGHATOMIC)
        if pfn is not None:
            self.mod_free_pages(-(1 << order))
        return pfn

    def free_pcppages_bulk(self, n: int, pindex: int) -> None:
        n = min(n, self.pcp_count)
        pindex -= 1
        lowest, highest = 0, len(self.pcp) - 1
        while n > 0:
            while True:
                pindex += 1
                if pindex > highest:
                    pindex = lowest
                if self.pcp[pindex]:
                    break
                if pindex == highest:
                    highest -= 1
                if pindex == lowest:
                    lowest += 1
            order = pindex_to_order(pindex)
            while n > 0 and self.pcp[pindex]:
                pfn, migratetype = self.pcp[pindex].pop()
                n -= 1 << order
                self.pcp_count -= 1 << order
                if self.record["nr_isolate_pageblock"]:
                    migratetype = self.get_block_mt(pfn)
                self.free_one_page(pfn, order, migratetype)
                self.events.append(["p", pfn, order, migratetype])

    def free_to_pcp(self, pfn: int, order: int, migratetype: int) -> None:
        pindex = order_to_pindex(migratetype if migratetype < 3 else MOVABLE, order)
        self.pcp[pindex].appendleft((pfn, migratetype))
        self.pcp_count += 1 << order
        batch = self.pcp_batch
        free_high = self.free_factor > 0 and 1 <= order <= COSTLY_ORDER
        if self.pcp_high == 0 or free_high:
            high = 0
        elif self.flags & ZONE_RECLAIM_ACTIVE:
            high = min(4 * batch, self.pcp_high)
        else:
            high = self.pcp_high
        if self.pcp_count < high:
            return
        if free_high:
            n = self.pcp_count
        elif high < batch:
            n = 1
        else:
            n = batch << self.free_factor
            if n < high - batch and self.free_factor < PCP_BATCH_SCALE_MAX:
                self.free_factor += 1
            n = max(batch, min(n, high - batch))
        self.free_pcppages_bulk(n, pindex)

    def free(self, pfn: int, order: int) -> None:
        migratetype = self.get_block_mt(pfn)
        if pcp_allowed_order(order) and migratetype != ISOLATE:
            self.free_to_pcp(pfn, order, migratetype)
        else:
            self.free_one_page(pfn, order, migratetype)

    def drain(self) -> None:
        while self.pcp_count:
            self.free_pcppages_bulk(min(self.pcp_count, self.pcp_batch << PCP_BATCH_SCALE_MAX), 0)


class NaiveMm:
    """The zones of one node behind ``alloc_pages()`` and ``__free_pages()``, for masks that cannot reclaim.

    Parameters
    ----------
    zones
        Zone dicts of a trace's state record; they are read, never changed.
    watermark_boost_factor
        The sysctl, in 1/10000 of the high watermark.

    Attributes
    ----------
    events
        ``x``, ``z``, ``p``, ``w`` events as the traces write them, oldest first; the caller may clear it.
    """

    def __init__(self, zones: list[Record], watermark_boost_factor: int = 15000) -> None:
        self.events: list[Event] = []
        self.zones = [NaiveZoneAllocator(zone, self.events, watermark_boost_factor) for zone in zones]
        self.kswapd_waiting = (
            True  # nothing runs it here: after one wake-up it is off its wait queue for good
        )

    def state(self) -> Record:
        return {"zones": [zone.state() for zone in self.zones]}

    def alloc(self, gfp_mask: int, order: int) -> int:
        """First pfn of a block of 2**order pages, or -1."""
        if gfp_mask & (GFP_DIRECT_RECLAIM | GFP_MEMALLOC):
            raise ValueError(f"gfp mask {gfp_mask:#x}: direct reclaim and MEMALLOC have no twin")
        hzi = gfp_zone(gfp_mask)
        zonelist = [zone for zone in reversed(self.zones) if zone.index <= hzi]
        if order >= MAX_ORDER or not zonelist:
            return -1
        flags = WMARK_LOW | (gfp_mask & GFP_KSWAPD_RECLAIM)
        if zonelist[0].index == ZONE_NORMAL:
            flags |= ALLOC_NOFRAGMENT
        pfn = self.get_page_from_freelist(zonelist, gfp_mask, order, flags, hzi)
        if pfn is None:
            pfn = self.slowpath(zonelist, gfp_mask, order, hzi)
        return -1 if pfn is None else pfn

    def free(self, pfn: int, order: int) -> None:
        next(zone for zone in self.zones if zone.spans(pfn)).free(pfn, order)

    def drain(self) -> None:
        """``drain_local_pages(NULL)``: every zone's pcp lists back to the buddy."""
        for zone in self.zones:
            zone.drain()

    def get_page_from_freelist(
        self, zonelist: list[NaiveZoneAllocator], gfp: int, order: int, flags: int, hzi: int
    ) -> int | None:
        for zone in zonelist:
            if not zone.watermark_fast(order, zone.wmark(flags & WMARK_MASK), hzi, flags, gfp):
                continue
            pfn = self.rmqueue(zone, order, gfp_migratetype(gfp), flags)
            if pfn is not None:
                if order and flags & ALLOC_HIGHATOMIC:
                    zone.reserve_highatomic(pfn)
                return pfn
        if flags & ALLOC_NOFRAGMENT:
            return self.get_page_from_freelist(zonelist, gfp, order, flags & ~ALLOC_NOFRAGMENT, hzi)
        return None

    def rmqueue(self, zone: NaiveZoneAllocator, order: int, migratetype: int, flags: int) -> int | None:
        pfn = zone.rmqueue_pcplist(order, migratetype, flags) if pcp_allowed_order(order) else None
        if pfn is None:
            pfn = zone.rmqueue_buddy(order, migratetype, flags)
        if zone.flags & ZONE_BOOSTED_WATERMARK:
            zone.flags &= ~ZONE_BOOSTED_WATERMARK
            self.wakeup_kswapd(0, zone.index)
        return pfn

    def slowpath(self, zonelist: list[NaiveZoneAllocator], gfp: int, order: int, hzi: int) -> int | None:
        flags = WMARK_MIN | (gfp & (GFP_HIGH | GFP_KSWAPD_RECLAIM))  # both bits equal their ALLOC_* twins
        if not gfp & GFP_NOMEMALLOC:
            flags |= ALLOC_NON_BLOCK
            if order > 0 and gfp & GFP_HIGH:
                flags |= ALLOC_HIGHATOMIC
        # Once after entry and once at the retry label; who cannot reclaim gives up there.
        for _ in range(2):
            if flags & ALLOC_KSWAPD and any(zone.managed for zone in zonelist):
                self.wakeup_kswapd(order, hzi)
            pfn = self.get_page_from_freelist(zonelist, gfp, order, flags, hzi)
            if pfn is not None:
                return pfn
        return None

    def wakeup_kswapd(self, order: int, hzi: int) -> None:
        zones = [zone for zone in self.zones if zone.index <= hzi and zone.managed]
        balanced = any(zone.watermark_ok_safe(order, zone.wmark(WMARK_HIGH), hzi) for zone in zones)
        if not self.kswapd_waiting or (balanced and not any(zone.boost for zone in zones)):
            return
        self.kswapd_waiting = False
        self.events.append(["w", order, hzi])


def gfp_migratetype(gfp: int) -> int:
    return (gfp & 0x18) >> 3


def gfp_zone(gfp: int) -> int:
    if gfp & GFP_DMA:
        return 0
    if gfp & GFP_DMA32:
        return 1
    return 3 if gfp & GFP_HIGHMEM and gfp & GFP_MOVABLE else 2
