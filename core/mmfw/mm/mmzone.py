"""Nodes and zones: thin objects over the arrays of `mmfw.mm.pages`, single fields under the kernel's names.

Nothing is kept twice: what a compiled loop changes, these objects show.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.errors import CallerError
from mmfw.jit import page as pg
from mmfw.jit.alloc import zone_watermark_ok_free
from mmfw.state import MAX_NR_ZONES, MAX_ORDER, ZONE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmfw.attachments import Attachments
    from mmfw.mm.pages import Memory


#: Pages of a 64-bit address space; sums of such marks fit compiled code.
_MAX_PAGES: Final = 1 << 52
#: ``NR_WMARK``.
_NR_WMARK: Final = 4
#: Highest value of each argument of a question about a zone.
_HIGHEST: Final = {
    "order": MAX_ORDER - 1,
    "mark": _MAX_PAGES,
    "highest_zoneidx": MAX_NR_ZONES - 1,
    "alloc_flags": (1 << 31) - 1,
    "which": _NR_WMARK - 1,
}


def _checked(name: str, value: object) -> int:
    """An argument of a policy's question as an int, which an integer of an array library becomes.

    Raises
    ------
    CallerError
        It is none, or there is none such: compiled code would read whatever lies there.
    """
    highest = _HIGHEST[name]
    try:
        found = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type] # what it is not, is caught
    except TypeError:
        found = -1
    if 0 <= found <= highest:
        return found
    an_int = "" if type(value) is int else "an int, "
    raise CallerError(f"{name} of a question about a zone is {value!r:.80}; {an_int}0 to {highest} is wanted")


class Zone:
    """One zone (``struct zone``), by name. Sizes are in pages."""

    __slots__ = ("_at", "_free_diffs", "_words", "attached", "index", "memory", "pgdat")

    def __init__(self, memory: Memory, pgdat: PglistData, index: int) -> None:
        self.memory = memory
        self.pgdat = pgdat
        self.index = index
        self.attached: Attachments | None = None
        self._at = memory.zone_offset(index)
        self._words = memory.words
        first, end = (memory.pcp_offset(cpu, index) + pg.C_FREE_DIFF for cpu in (0, memory.nr_cpus))
        self._free_diffs = slice(first, end, (end - first) // memory.nr_cpus)

    @property
    def name(self) -> str:
        """DMA, DMA32, Normal ..."""
        return ZONE_NAMES[self.index]

    @property
    def zone_start_pfn(self) -> int:
        """First pfn of the span."""
        return self._words[self._at + pg.Z_START]

    @property
    def zone_end_pfn(self) -> int:
        """First pfn past the span."""
        return self._words[self._at + pg.Z_END]

    @property
    def present_pages(self) -> int:
        """Span less holes."""
        return self._words[self._at + pg.Z_PRESENT]

    @property
    def managed_pages(self) -> int:
        """Pages given to the buddy allocator at boot."""
        return self._words[self._at + pg.Z_MANAGED]

    @property
    def nr_free_pages(self) -> int:
        """Zone-wide NR_FREE_PAGES, without the CPUs' private deltas."""
        return self._words[self._at + pg.Z_FREE]

    @property
    def nr_reserved_highatomic(self) -> int:
        """Pages in blocks reserved for atomic high-order requests."""
        return self._words[self._at + pg.Z_NR_HIGHATOMIC]

    @property
    def watermark_boost(self) -> int:
        """Boost that all watermarks include."""
        return self._words[self._at + pg.Z_BOOST]

    @watermark_boost.setter
    def watermark_boost(self, pages: int) -> None:
        self.memory.S[self._at + pg.Z_BOOST] = pages

    @property
    def zone_idx(self) -> int:
        """``zone_idx()``."""
        return self.index

    @property
    def node(self) -> int:
        """Node id."""
        return self.pgdat.node_id

    @property
    def spanned_pages(self) -> int:
        """Span, holes included."""
        return self.zone_end_pfn - self.zone_start_pfn

    @property
    def vm_stat(self) -> tuple[int, ...]:
        """``vm_stat[]``; so far only NR_FREE_PAGES (index 0) is kept."""
        return (self.nr_free_pages,)

    @property
    def watermark(self) -> tuple[int, ...]:
        """``_watermark[]``: min, low, high, promo, without boost."""
        return tuple(int(v) for v in self.memory.S[self._at + pg.Z_WMARK : self._at + pg.Z_WMARK + 4])

    @property
    def lowmem_reserve(self) -> tuple[int, ...]:
        """Pages kept from requests that could have used a higher zone, by their highest zone index."""
        at = self._at + pg.Z_RESERVE
        return tuple(int(v) for v in self.memory.S[at : at + MAX_NR_ZONES])

    @property
    def lru_sizes(self) -> tuple[int, ...]:
        """Pages on each LRU list (NR_ZONE_INACTIVE_ANON ...)."""
        at = self._at + pg.Z_LRU
        return tuple(int(v) for v in self.memory.S[at : at + pg.NR_LRU_LISTS])

    def nr_free(self, order: int) -> int:
        """Free blocks of an order, all types (``free_area[order].nr_free``)."""
        if not (type(order) is int and 0 <= order < MAX_ORDER):
            order = _checked("order", order)
        return self._words[self._at + pg.Z_NR_FREE + order]

    def nr_free_by_order(self) -> list[int]:
        """Free blocks of each order, all types."""
        at = self._at + pg.Z_NR_FREE
        return self._words[at : at + MAX_ORDER].tolist()

    def set_flag(self, bit: int, on: bool) -> None:
        """Set or clear a bit of ``zone->flags``."""
        if on:
            self.memory.S[self._at + pg.Z_FLAGS] |= bit
        else:
            self.memory.S[self._at + pg.Z_FLAGS] &= ~bit

    def wmark_pages(self, which: int) -> int:
        """A watermark by ``enum zone_watermarks`` index, boost included."""
        if not (type(which) is int and 0 <= which < _NR_WMARK):
            which = _checked("which", which)
        return self._words[self._at + pg.Z_WMARK + which] + self._words[self._at + pg.Z_BOOST]

    def free_counters(self) -> list[int]:
        """Where in ``memory.S`` NR_FREE_PAGES and every CPU's delta to it are."""
        diffs = self._free_diffs
        return [self._at + pg.Z_FREE, *range(diffs.start, diffs.stop, diffs.step)]

    def free_pages_snapshot(self) -> int:
        """NR_FREE_PAGES with every CPU's delta (``zone_page_state_snapshot()``)."""
        S = self.memory.S
        return int(S[self._at + pg.Z_FREE]) + int(np.add.reduce(S[self._free_diffs]))

    def drift_free_pages(self) -> int:
        """Free pages as ``zone_watermark_ok_safe()`` reads them: exact when the zone is low."""
        free = self.nr_free_pages
        drift_mark = self._words[self._at + pg.Z_DRIFT_MARK]
        return self.free_pages_snapshot() if drift_mark and free < drift_mark else free

    def zone_watermark_ok(self, order: int, mark: int, highest_zoneidx: int, alloc_flags: int = 0) -> bool:
        """Whether the zone can serve an order and keep `mark` free pages (``zone_watermark_ok()``)."""
        return self._watermark_ok(order, mark, highest_zoneidx, alloc_flags, self.nr_free_pages)

    def zone_watermark_ok_safe(self, order: int, mark: int, highest_zoneidx: int) -> bool:
        """As `zone_watermark_ok`, but exact when the zone is low (``zone_watermark_ok_safe()``)."""
        return self._watermark_ok(order, mark, highest_zoneidx, 0, self.drift_free_pages())

    def _watermark_ok(self, order: int, mark: int, highest_zoneidx: int, alloc_flags: int, free: int) -> bool:
        # Policies ask too, and nothing in compiled code looks at what they ask; once for each decision, so short.
        if not (type(order) is int and 0 <= order < MAX_ORDER):
            order = _checked("order", order)
        if not (type(mark) is int and 0 <= mark <= _MAX_PAGES):
            mark = _checked("mark", mark)
        if not (type(highest_zoneidx) is int and 0 <= highest_zoneidx < MAX_NR_ZONES):
            highest_zoneidx = _checked("highest_zoneidx", highest_zoneidx)
        if not (type(alloc_flags) is int and 0 <= alloc_flags < 1 << 31):
            alloc_flags = _checked("alloc_flags", alloc_flags)
        memory = self.memory
        return bool(
            zone_watermark_ok_free(
                memory.page, memory.S, self.index, order, mark, highest_zoneidx, alloc_flags, free
            )
        )


def min_wmark_pages(zone: Zone) -> int:
    """The zone's min watermark, boost included (mmzone.h)."""
    return zone.wmark_pages(pg.ALLOC_WMARK_MIN)


def low_wmark_pages(zone: Zone) -> int:
    """The zone's low watermark, boost included: below it kswapd is woken (mmzone.h)."""
    return zone.wmark_pages(pg.ALLOC_WMARK_LOW)


def high_wmark_pages(zone: Zone) -> int:
    """The zone's high watermark, boost included: at it kswapd may sleep (mmzone.h)."""
    return zone.wmark_pages(pg.ALLOC_WMARK_HIGH)


class PglistData:
    """One node (``pg_data_t``): its zones, and what wakers tell kswapd.

    Attributes
    ----------
    node_zones : tuple of Zone
        All `MAX_NR_ZONES`, unpopulated ones with no managed pages.
    kswapd_order, kswapd_highest_zoneidx : int
        The request of the wakers so far; ``MAX_NR_ZONES`` means none.
    kswapd_min_free_pages : int
        Free pages beyond the high watermark that they asked for besides; mainline asks for none.
    kswapd_failures : int
        Passes in a row that reclaimed nothing; at 16 the node is hopeless.
    under_writeback, many_dirty, congested : bool
        PGDAT_WRITEBACK, PGDAT_DIRTY, LRUVEC_CONGESTED: what kswapd met; cleared when the node is balanced.
    kcompactd_max_order, kcompactd_highest_zoneidx : int
        The request to kcompactd; order 0 means none.
    """

    def __init__(self, memory: Memory, nid: int = 0) -> None:
        self.memory = memory
        self.node_id = nid
        self.node_zones = tuple(Zone(memory, self, i) for i in range(MAX_NR_ZONES))
        self.kswapd_order = 0
        self.kswapd_highest_zoneidx = MAX_NR_ZONES
        self.kswapd_min_free_pages = 0
        self.kswapd_failures = 0
        self.under_writeback = False
        self.many_dirty = False
        self.congested = False
        self.kcompactd_max_order = 0
        self.kcompactd_highest_zoneidx = MAX_NR_ZONES
        self.attached: Attachments | None = None
        managed = (zone for zone in self.node_zones if zone.managed_pages)
        self._free_counters = np.array(
            [at for zone in managed for at in zone.free_counters()], dtype=np.int64
        )

    @property
    def nr_zones(self) -> int:
        """Index of the highest zone with memory, plus one."""
        return 1 + max(zone.index for zone in self.node_zones if zone.present_pages)

    def managed_zones(self, highest_zoneidx: int) -> Iterator[Zone]:
        """Managed zones up to an index, ascending."""
        for zone in self.node_zones[: highest_zoneidx + 1]:
            if zone.managed_pages:
                yield zone

    def free_pages_snapshot(self) -> int:
        """Free pages of all zones with every CPU's delta (``global_zone_page_state_snapshot(NR_FREE_PAGES)``)."""
        return int(np.add.reduce(self.memory.S[self._free_counters]))

    def pgdat_watermark_boosted(self, highest_zoneidx: int) -> bool:
        """Whether a zone up to an index has a boosted watermark (``pgdat_watermark_boosted()``)."""
        return any(zone.watermark_boost for zone in self.managed_zones(highest_zoneidx))

    def pgdat_balanced(self, order: int, highest_zoneidx: int, beyond: int = 0) -> bool:
        """Whether some zone up to an index has an order at its high watermark (``pgdat_balanced()``).

        A policy may ask for pages `beyond` it. True if no zone up to that index has pages at all.
        """
        # Each zone that is asked checks its question; none may be.
        if not (type(highest_zoneidx) is int and 0 <= highest_zoneidx < MAX_NR_ZONES):
            highest_zoneidx = _checked("highest_zoneidx", highest_zoneidx)
        any_managed = False
        for zone in self.managed_zones(highest_zoneidx):
            any_managed = True
            if zone.zone_watermark_ok_safe(order, high_wmark_pages(zone) + beyond, highest_zoneidx):
                return True
        return not any_managed
