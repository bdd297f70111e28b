"""The object loop: buffers that a shrinker evicts whole and a client restores when it touches them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, gfp, hookimpl
from mmfw.sched import PF_KSWAPD, Mutex

if TYPE_CHECKING:
    from mmfw import Mm

#: Masks of the loop's allocations: high orders, and single pages.
HIGH_GFP: Final = gfp.GFP_HIGHUSER | gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN
LOW_GFP: Final = gfp.GFP_HIGHUSER | gfp.NOWARN
#: Evicting one object, without freeing its pages: 1G-frag16, slab_start to gpu_evict to slab_end of a single block,
#: medians 13 and 2 us.
EVICT_NS: Final = 14_500


@dataclass(slots=True)
class BufferObject:
    """One object: its blocks as (pfn, order), empty while it is evicted."""

    number: int
    blocks: list[tuple[int, int]] = field(default_factory=list)

    @property
    def nr_pages(self) -> int:
        """Pages it holds."""
        return sum(1 << order for _, order in self.blocks)


@dataclass(slots=True)
class LoopCounts:
    """What the loop counted.

    Attributes
    ----------
    evictions, restores : int
        Objects.
    got9, got_mid, got0, fail9, fail_mid : int
        Allocations of order 9 and above, below that, and of single pages.
    nr_free_at_eviction : list of int
        Free pages after each eviction.
    scans_by_priority : dict of int to int
        Calls of the shrinker's scan by kswapd.
    """

    evictions: int = 0
    restores: int = 0
    got9: int = 0
    got_mid: int = 0
    got0: int = 0
    fail9: int = 0
    fail_mid: int = 0
    nr_free_at_eviction: list[int] = field(default_factory=list)
    scans_by_priority: dict[int, int] = field(default_factory=dict)


class ObjectLoop:
    """The objects, least recently used first, and their shrinker.

    Parameters
    ----------
    mm : Mm
        Where they live.
    nr_objects, pages_per_object : int
        How many, how large.
    high_gfp : int
        Mask of orders above 0.
    ladder : str
        ``"940"``: orders 9, 4, 0; ``"all"``: 10 down to 0; ``"0"``: single pages only.
    """

    seeks = 2
    batch = 0

    def __init__(self, mm: Mm, nr_objects: int, pages_per_object: int, high_gfp: int, ladder: str) -> None:
        self._mm = mm
        self._ppo = pages_per_object
        self._high_gfp = high_gfp
        self._ladder = ladder
        self._objects = [BufferObject(i) for i in range(nr_objects)]
        self._lru: OrderedDict[int, BufferObject] = OrderedDict()
        self._lock = Mutex(mm.sched, "gpu.lock")
        self.resident = 0
        self.counts = LoopCounts()

    # --- the shrinker -----------------------------------------------------------------------------------

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Resident pages."""
        return self.resident or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Evict whole objects, least recently used first, until enough pages are free."""
        if not self._lock.trylock():
            return SHRINK_STOP
        counts = self.counts
        if self._mm.sched.current.flags & PF_KSWAPD:
            by = counts.scans_by_priority
            by[sc.priority] = by.get(sc.priority, 0) + 1
        freed = 0
        while freed < sc.nr_to_scan and self._lru:
            _, victim = self._lru.popitem(last=False)
            self._mm.charge(EVICT_NS, "probe")
            n = self._drop(victim)
            freed += n
            self.resident -= n
            counts.evictions += 1
            counts.nr_free_at_eviction.append(self._mm.global_zone_free_pages())
        self._lock.unlock()
        sc.nr_scanned = max(freed, sc.nr_to_scan)
        return freed or SHRINK_STOP

    def _drop(self, victim: BufferObject) -> int:
        n = victim.nr_pages
        for pfn, order in victim.blocks:
            self._mm.free_pages(pfn, order)
        victim.blocks = []
        return n

    # --- the client -------------------------------------------------------------------------------------

    def touch(self, number: int) -> None:
        """Use an object, restoring it if it is evicted."""
        victim = self._objects[number]
        self._lock.lock()
        if victim.blocks:
            self._lru.move_to_end(number)
            self._lock.unlock()
            return
        self._lock.unlock()
        self._restore(victim)

    def _next_order(self, order: int) -> int:
        if self._ladder == "all":
            return order - 1
        return 4 if order > 4 else 0 if order > 0 else -1

    def _restore(self, victim: BufferObject) -> None:
        counts = self.counts
        order = {"0": 0, "all": 10}.get(self._ladder, 9)
        left = self._ppo
        # Blocks go to the list's end and the list in front of the object's, which is empty.
        blocks: list[tuple[int, int]] = []
        while left:
            while order > 0 and 1 << order > left:
                order = self._next_order(order)
            pfn = self._mm.alloc_pages(self._high_gfp if order else LOW_GFP, order)
            if pfn < 0:
                if order >= 9:
                    counts.fail9 += 1
                else:
                    counts.fail_mid += 1
                if order == 0:
                    break
                order = self._next_order(order)
                continue
            blocks.append((pfn, order))
            left -= 1 << order
            if order >= 9:
                counts.got9 += 1
            elif order:
                counts.got_mid += 1
            else:
                counts.got0 += 1
        self._lock.lock()
        victim.blocks = blocks
        if left:
            self._drop(victim)
        else:
            self.resident += self._ppo
            self._lru[victim.number] = victim
            counts.restores += 1
        self._lock.unlock()

    def run(self, steps: int, pick: Callable[[int], int], pause: Callable[[int], None]) -> None:
        """Touch objects, one a step; `pause` is told the step that follows."""
        for step in range(steps):
            self.touch(pick(step))
            pause(step + 1)

    def release(self) -> None:
        """Give everything back."""
        for victim in self._objects:
            self._drop(victim)
        self._lru.clear()
        self.resident = 0
