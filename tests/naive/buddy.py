"""A plain twin of one zone's buddy lists in Linux 6.1 (mm/page_alloc.c): ordered dicts, and a dict of heads.

It shares no line with the simulator, so that a rule misread in one of them shows as a difference. State goes
in and out in the format of a trace's state record; pfns are page frame numbers, amounts pages of 4 KiB.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

MAX_ORDER = 11  # exclusive
PAGEBLOCK_ORDER = 9
PAGEBLOCK_PAGES = 512
COSTLY_ORDER = 3
UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE = range(5)
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}
ZONE_INDEX = {"DMA": 0, "DMA32": 1, "Normal": 2, "Movable": 3, "Device": 4}

GFP_ATOMIC = 0x200

WMARK_NAMES = ("min", "low", "high")
WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARK_MASK = 0, 1, 2, 3
ALLOC_OOM, ALLOC_NON_BLOCK, ALLOC_MIN_RESERVE = 0x8, 0x10, 0x20
ALLOC_NOFRAGMENT, ALLOC_HIGHATOMIC, ALLOC_KSWAPD = 0x100, 0x200, 0x800
ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM

ZONE_BOOSTED_WATERMARK = 0x1

Record = dict[str, Any]
Event = list[Any]


def mergeable(migratetype: int) -> bool:
    return migratetype < 3


def pcp_allowed_order(order: int) -> bool:
    return order <= COSTLY_ORDER or order == PAGEBLOCK_ORDER


class NaiveBuddy:
    """One zone's free lists, pageblock types, watermarks and free-page counter with one CPU's delta."""

    def __init__(self, record: Record, events: list[Event], watermark_boost_factor: int = 15000) -> None:
        self.record = record
        self.events = events
        self.boost_factor = watermark_boost_factor
        self.index = ZONE_INDEX[record["zone"]]
        self.start: int = record["start_pfn"]
        self.end: int = self.start + record["spanned"]
        self.managed: int = record["managed"]
        self.watermark: list[int] = [record["watermark"][name] for name in WMARK_NAMES]
        self.boost: int = record["watermark_boost"]
        self.nr_reserved_highatomic: int = record["nr_reserved_highatomic"]
        self.lowmem_reserve: list[int] = record["lowmem_reserve"]
        self.flags: int = record["flags"]
        self.vm_free: int = record["vm_free"]
        self.vm_free_diff: int = record["vm_free_cpu_diff"]
        self.threshold: int = record["stat_threshold"]
        self.first_block: int = record["pageblock_start_pfn"] >> PAGEBLOCK_ORDER
        self.block_mt = [int(digit, 16) for digit in record["pageblock_mt"]]
        self.block_lru = {self.first_block + i: n for i, n in record["pageblock_lru"]}
        self.heads: dict[int, tuple[int, int]] = {}
        self.lists: list[list[OrderedDict[int, None]]] = []
        for order, area in enumerate(record["free_area"]):
            self.lists.append([OrderedDict.fromkeys(pfns) for pfns in area["lists"]])
            for mt, pfns in enumerate(area["lists"]):
                self.heads.update((pfn, (order, mt)) for pfn in pfns)

    def state(self) -> Record:
        """The zone dict with everything that allocation changes, pcp lists apart."""
        free_area = [
            {"nr_free": self.nr_free(order), "lists": [list(pages) for pages in self.lists[order]]}
            for order in range(MAX_ORDER)
        ]
        return dict(
            self.record,
            watermark_boost=self.boost,
            nr_reserved_highatomic=self.nr_reserved_highatomic,
            flags=self.flags,
            vm_free=self.vm_free,
            vm_free_cpu_diff=self.vm_free_diff,
            pageblock_mt="".join(f"{mt:x}" for mt in self.block_mt),
            free_area=free_area,
        )

    # ---- counters and watermarks

    def nr_free(self, order: int) -> int:
        return sum(len(pages) for pages in self.lists[order])

    def mod_free_pages(self, delta: int) -> None:
        self.vm_free_diff += delta
        if abs(self.vm_free_diff) > self.threshold:
            self.vm_free += self.vm_free_diff
            self.vm_free_diff = 0

    def wmark(self, which: int) -> int:
        return self.watermark[which] + self.boost

    def unusable(self, order: int, flags: int) -> int:
        reserved = 0 if flags & ALLOC_RESERVES else self.nr_reserved_highatomic
        return (1 << order) - 1 + reserved

    def watermark_ok(self, order: int, mark: int, hzi: int, flags: int, free: int) -> bool:
        free -= self.unusable(order, flags)
        low = mark
        if flags & ALLOC_MIN_RESERVE:
            low -= low // 2
            if flags & ALLOC_NON_BLOCK:
                low -= low // 4
        if flags & ALLOC_OOM:
            low -= low // 2
        if free <= low + self.lowmem_reserve[hzi]:
            return False
        if order == 0:
            return True
        types = [UNMOVABLE, MOVABLE, RECLAIMABLE]
        if flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
            types.append(HIGHATOMIC)
        return any(self.lists[o][mt] for o in range(order, MAX_ORDER) for mt in types)

    def watermark_fast(self, order: int, mark: int, hzi: int, flags: int, gfp: int) -> bool:
        free = max(0, self.vm_free)
        if order == 0:
            usable = free - min(free, self.unusable(0, flags))
            if usable > mark + self.lowmem_reserve[hzi]:
                return True
        if self.watermark_ok(order, mark, hzi, flags, free):
            return True
        if order == 0 and gfp & GFP_ATOMIC and self.boost and flags & WMARK_MASK == WMARK_MIN:
            return self.watermark_ok(order, self.watermark[WMARK_MIN], hzi, flags, free)
        return False

    def watermark_ok_safe(self, order: int, mark: int, hzi: int) -> bool:
        free = max(0, self.vm_free)
        if free < self.record["percpu_drift_mark"]:
            free = max(0, self.vm_free + self.vm_free_diff)
        return self.watermark_ok(order, mark, hzi, 0, free)

    def boost_watermark(self) -> bool:
        if self.boost_factor == 0 or self.managed < 4 * PAGEBLOCK_PAGES:
            return False
        cap = self.watermark[WMARK_HIGH] * self.boost_factor // 10000
        if cap == 0:
            return False
        self.boost = min(self.boost + PAGEBLOCK_PAGES, max(PAGEBLOCK_PAGES, cap))
        return True

    # ---- free lists

    def spans(self, pfn: int) -> bool:
        return self.start <= pfn < self.end

    def get_block_mt(self, pfn: int) -> int:
        return self.block_mt[(pfn >> PAGEBLOCK_ORDER) - self.first_block]

    def set_block_mt(self, pfn: int, migratetype: int) -> None:
        self.block_mt[(pfn >> PAGEBLOCK_ORDER) - self.first_block] = migratetype

    def add(self, pfn: int, order: int, migratetype: int, tail: bool) -> None:
        pages = self.lists[order][migratetype]
        assert pfn not in self.heads, f"pfn {pfn} is already free"
        pages[pfn] = None
        if not tail:
            pages.move_to_end(pfn, last=False)
        self.heads[pfn] = (order, migratetype)

    def remove(self, pfn: int) -> None:
        order, migratetype = self.heads.pop(pfn)
        del self.lists[order][migratetype][pfn]

    def is_head(self, pfn: int, order: int) -> bool:
        return pfn in self.heads and self.heads[pfn][0] == order

    def free_one_page(self, pfn: int, order: int, migratetype: int) -> None:
        if migratetype != ISOLATE:
            self.mod_free_pages(1 << order)
        while order < MAX_ORDER - 1:
            buddy = pfn ^ (1 << order)
            if not self.is_head(buddy, order):
                break
            if order >= PAGEBLOCK_ORDER:
                buddy_mt = self.get_block_mt(buddy)
                if buddy_mt != migratetype and not (mergeable(buddy_mt) and mergeable(migratetype)):
                    break
            self.remove(buddy)
            pfn &= buddy
            order += 1
        tail = False
        if order < MAX_ORDER - 2:
            parent = pfn & (pfn ^ (1 << order))
            tail = self.is_head(parent ^ (1 << (order + 1)), order + 1)
        self.add(pfn, order, migratetype, tail)

    def rmqueue_smallest(self, order: int, migratetype: int) -> int | None:
        for current in range(order, MAX_ORDER):
            if not self.lists[current][migratetype]:
                continue
            pfn = next(iter(self.lists[current][migratetype]))
            self.remove(pfn)
            for half in range(current - 1, order - 1, -1):
                self.add(pfn + (1 << half), half, migratetype, tail=False)
            refill = int(pcp_allowed_order(order) and migratetype < 3)
            self.events.append(["z", pfn, order, migratetype, refill])
            return pfn
        return None

    def find_suitable_fallback(self, current: int, migratetype: int) -> int | None:
        return next((mt for mt in FALLBACKS[migratetype] if self.lists[current][mt]), None)

    def rmqueue_fallback(self, order: int, migratetype: int, flags: int) -> bool:
        min_order = PAGEBLOCK_ORDER if order < PAGEBLOCK_ORDER and flags & ALLOC_NOFRAGMENT else order
        for current in range(MAX_ORDER - 1, min_order - 1, -1):
            fallback = self.find_suitable_fallback(current, migratetype)
            if fallback is None:
                continue
            can_steal = current >= PAGEBLOCK_ORDER // 2 or migratetype in (UNMOVABLE, RECLAIMABLE)
            if not can_steal and migratetype == MOVABLE and current > order:
                for current in range(order, MAX_ORDER):  # the search starts anew, from below
                    fallback = self.find_suitable_fallback(current, migratetype)
                    if fallback is not None:
                        break
                assert fallback is not None
            pfn = next(iter(self.lists[current][fallback]))
            self.steal_suitable_fallback(pfn, migratetype, can_steal, flags)
            self.events.append(["x", pfn, order, current, migratetype, fallback])
            return True
        return False

    def move_to_list(self, pfn: int, migratetype: int) -> int:
        """Move a free head to the tail of another type's list; return its pages."""
        order, _ = self.heads[pfn]
        self.remove(pfn)
        self.add(pfn, order, migratetype, tail=True)
        return 1 << order

    def move_freepages_block(self, pfn: int, migratetype: int) -> int:
        first = pfn & ~(PAGEBLOCK_PAGES - 1)
        last = first + PAGEBLOCK_PAGES - 1
        if not self.spans(last):
            return 0
        if not self.spans(first):
            first = pfn
        moved = 0
        while first <= last:
            step = self.move_to_list(first, migratetype) if first in self.heads else 0
            moved += step
            first += step or 1
        return moved

    def steal_suitable_fallback(self, pfn: int, start_type: int, whole: bool, flags: int) -> None:
        order, _ = self.heads[pfn]
        old_type = self.get_block_mt(pfn)
        if old_type == HIGHATOMIC:
            self.move_to_list(pfn, start_type)
            return
        if order >= PAGEBLOCK_ORDER:
            for block in range(pfn, pfn + (1 << order), PAGEBLOCK_PAGES):
                self.set_block_mt(block, start_type)
            self.move_to_list(pfn, start_type)
            return
        if self.boost_watermark() and flags & ALLOC_KSWAPD:
            self.flags |= ZONE_BOOSTED_WATERMARK
        free = self.move_freepages_block(pfn, start_type) if whole else 0
        if free == 0:
            self.move_to_list(pfn, start_type)
            return
        movable = self.block_lru.get(pfn >> PAGEBLOCK_ORDER, 0)
        if start_type == MOVABLE:
            alike = movable
        elif old_type == MOVABLE:
            alike = PAGEBLOCK_PAGES - (free + movable)
        else:
            alike = 0
        if free + alike >= PAGEBLOCK_PAGES // 2:
            self.set_block_mt(pfn, start_type)

    def rmqueue_locked(self, order: int, migratetype: int, flags: int) -> int | None:
        """``__rmqueue()``: one page off the buddy lists; the counter is the caller's."""
        while True:
            pfn = self.rmqueue_smallest(order, migratetype)
            if pfn is not None or not self.rmqueue_fallback(order, migratetype, flags):
                return pfn

    def reserve_highatomic(self, pfn: int) -> None:
        if self.nr_reserved_highatomic >= self.managed // 100 + PAGEBLOCK_PAGES:
            return
        if mergeable(self.get_block_mt(pfn)):
            self.nr_reserved_highatomic += PAGEBLOCK_PAGES
            self.set_block_mt(pfn, HIGHATOMIC)
            self.move_freepages_block(pfn, HIGHATOMIC)
