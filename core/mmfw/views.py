"""What a hook may read of a zone or a node: Protocols that the structs of `mmfw.mm.mmzone` satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmfw.attachments import Attachments


class ZoneView(Protocol):
    """What a hook may read of ``struct zone`` (include/linux/mmzone.h). Sizes are in pages."""

    attached: Attachments | None

    @property
    def name(self) -> str:
        """Name as /proc prints it."""
        ...

    @property
    def zone_idx(self) -> int:
        """``zone_idx()``, an ``enum zone_type``."""
        ...

    @property
    def node(self) -> int:
        """Node id."""
        ...

    @property
    def zone_start_pfn(self) -> int:
        """First pfn of the span."""
        ...

    @property
    def zone_end_pfn(self) -> int:
        """First pfn past the span."""
        ...

    @property
    def spanned_pages(self) -> int:
        """Pages spanned, holes included."""
        ...

    @property
    def present_pages(self) -> int:
        """Pages that exist."""
        ...

    @property
    def managed_pages(self) -> int:
        """Pages given to the page allocator; 0 in an unpopulated zone."""
        ...

    @property
    def nr_free_pages(self) -> int:
        """``NR_FREE_PAGES`` of the zone, without the CPUs' deltas."""
        ...

    @property
    def vm_stat(self) -> tuple[int, ...]:
        """``vm_stat[]`` by ``enum zone_stat_item``."""
        ...

    @property
    def watermark(self) -> tuple[int, ...]:
        """``_watermark[]`` (min, low, high, promo), without the boost."""
        ...

    @property
    def watermark_boost(self) -> int:
        """Pages by which every watermark is raised for the moment."""
        ...

    @property
    def nr_reserved_highatomic(self) -> int:
        """Pages in MIGRATE_HIGHATOMIC pageblocks."""
        ...

    def nr_free(self, order: int) -> int:
        """``free_area[order].nr_free``."""
        ...

    @property
    def lowmem_reserve(self) -> tuple[int, ...]:
        """Pages kept from requests that could use a higher zone, by their highest zone index."""
        ...

    def wmark_pages(self, which: int) -> int:
        """Watermark by ``enum zone_watermarks`` (0 min, 1 low, 2 high, 3 promo), boost included."""
        ...

    def zone_watermark_ok(self, order: int, mark: int, highest_zoneidx: int, alloc_flags: int = 0) -> bool:
        """Whether an order could be had and `mark` pages stay free (``zone_watermark_ok()``).

        Parameters
        ----------
        order : int
            Order of the request.
        mark : int
            Pages, such as ``wmark_pages(1)``.
        highest_zoneidx : int
            Highest zone index that the request may use; the more it may, the more this zone keeps from it.
        alloc_flags : int
            ``ALLOC_*``; those that may use reserves count them.
        """
        ...

    def zone_watermark_ok_safe(self, order: int, mark: int, highest_zoneidx: int) -> bool:
        """As `zone_watermark_ok` without reserves, the CPUs' deltas added up when the zone is low."""
        ...


class PgdatView(Protocol):
    """What a hook may read of ``pg_data_t`` (include/linux/mmzone.h)."""

    attached: Attachments | None

    @property
    def node_id(self) -> int:
        """Node id."""
        ...

    @property
    def node_zones(self) -> Sequence[ZoneView]:
        """All zones by index; unpopulated ones have no managed pages."""
        ...

    @property
    def kswapd_order(self) -> int:
        """Largest order asked of kswapd since it last took a request."""
        ...

    @property
    def kswapd_highest_zoneidx(self) -> int:
        """Highest zone index asked for; MAX_NR_ZONES while nothing is asked."""
        ...

    @property
    def kswapd_failures(self) -> int:
        """Runs in a row that reclaimed nothing; at MAX_RECLAIM_RETRIES (16) the node counts as hopeless."""
        ...

    @property
    def kcompactd_max_order(self) -> int:
        """Largest order asked of kcompactd since it last took a request."""
        ...

    @property
    def kcompactd_highest_zoneidx(self) -> int:
        """Highest zone index asked of kcompactd; MAX_NR_ZONES while nothing is asked."""
        ...

    def pgdat_balanced(self, order: int, highest_zoneidx: int) -> bool:
        """Whether some zone up to an index has an order at its high watermark, where kswapd would sleep.

        ``pgdat_balanced()``, mm/vmscan.c. With order 0 it tells whether single pages are short.
        """
        ...
