"""What a request could be given at once, without anybody being asked to reclaim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw import Mm

#: ``enum zone_watermarks`` (include/linux/mmzone.h).
WMARK_LOW: Final = 1
_NR_PAGE_ORDERS: Final = 11


def nr_free_blocks(mm: Mm, order: int, flags: int) -> int:
    """Blocks of an order, larger ones split, that the zones have for a mask, each keeping its low watermark.

    Blocks on the CPUs' own lists are not seen.
    """
    highest = gfp.gfp_zone(flags)
    found = 0
    for zone in mm.pgdat.managed_zones(highest):
        spare = (zone.nr_free_pages - zone.wmark_pages(WMARK_LOW) - zone.lowmem_reserve[highest]) >> order
        if spare > 0:
            there = sum(zone.nr_free(at) << (at - order) for at in range(order, _NR_PAGE_ORDERS))
            found += min(spare, there)
    return found
