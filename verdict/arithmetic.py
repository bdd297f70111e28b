"""What one fruitless walk of kswapd asks of a cache (statement S10)."""

from __future__ import annotations

from mmfw import ShrinkControl, gfp, hookimpl
from mmfw.testing import make_mm

OBJECTS = 1 << 20


class _Cache:
    """A cache whose objects are all looked at and none freed."""

    def __init__(self, seeks: int) -> None:
        self.seeks = seeks
        self.asked = 0

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """As many as ever."""
        return OBJECTS

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Note what is asked."""
        self.asked += sc.nr_to_scan
        sc.nr_scanned = sc.nr_to_scan
        return 0


def objects_asked_for(seeks: int) -> float:
    """How often its own size a cache is asked for in one walk from priority 12 to 1."""
    mm = make_mm("256M")
    cache = _Cache(seeks)
    mm.register_shrinker(cache, "cache")
    for priority in range(12, 0, -1):
        mm.shrinkers.shrink_slab(gfp.GFP_KERNEL, mm.pgdat.node_id, priority)
    return cache.asked / OBJECTS
