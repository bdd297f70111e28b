"""Reclaim directed at slab pages: free all objects of a slab, or none (proposals of Lameter and Harding, 2007 to 2019).

The kernel's proposals ("Slab Movable Objects") had each cache name two callbacks: one that takes references of the
objects of a slab, one that frees them. What cannot be freed there is what here is `may_free` False.

Simplified: which slabs are sparse is found by looking at the whole cache at once, for nothing; the proposals walk the
partial lists, which hold the same slabs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw_dcache.objects import NONE, Bools, CachedObjects, Ints

if TYPE_CHECKING:
    from mmfw_dcache.superblock import SuperBlock

#: Slabs looked at together.
_CHUNK: Final = 16
#: Objects that must have gone before sparse slabs are looked for again: so many, and a 32nd of the cache.
_SEARCH_AGAIN: Final = 4096
_SEARCH_SHIFT: Final = 5
#: Slabs that one call of compaction looks at; the next call goes on behind them.
_RANGE_SLABS: Final = 1024


class SlabPages:
    """The slabs of one cache, as reclaim that is directed at them sees them.

    Parameters
    ----------
    objects : CachedObjects
        The cache.
    may_free : callable
        ``may_free(names)`` says of each object whether it can go now; asked of bound ones only.
    free : callable
        Frees names' objects that may go.
    percent : int
        A slab is sparse if at most this share of its objects is in use.
    skip_referenced : bool
        Whether a referenced object keeps its slab.
    """

    def __init__(
        self,
        objects: CachedObjects,
        may_free: Callable[[Ints], Bools],
        free: Callable[[Ints], None],
        percent: int,
        skip_referenced: bool,
        charge_scan: Callable[[int], None],
    ) -> None:
        self._objects = objects
        self._may_free = may_free
        self._free = free
        self._percent = percent
        self._skip_referenced = skip_referenced
        self._charge_scan = charge_scan
        self._queue = np.empty(0, dtype=np.int64)
        self._search_from = 0
        self._next_pfn = 0

    @classmethod
    def of_dentries(cls, sb: SuperBlock, percent: int, skip_referenced: bool) -> SlabPages:
        """Of dentries, which go if nobody uses them."""
        dentries = sb.dentries

        def may_free(names: Ints) -> Bools:
            idle: Bools = dentries.count[names] == 0
            return idle

        def free(names: Ints) -> None:
            dentries.lru.remove(names)
            sb.kill_dentries(names)

        return cls(dentries, may_free, free, percent, skip_referenced, _charger(sb))

    @classmethod
    def of_inodes(cls, sb: SuperBlock, percent: int, skip_referenced: bool) -> SlabPages:
        """Of inodes, which go if nobody uses them but their dentry, and nobody that."""
        inodes, dentries = sb.inodes, sb.dentries

        def may_free(names: Ints) -> Bools:
            unused_alias = sb.dentry_is_cached(names) & (dentries.count[names] == 0)
            idle: Bools = (inodes.count[names] == 0) | ((inodes.count[names] == 1) & unused_alias)
            return idle

        return cls(inodes, may_free, sb.kick_inodes, percent, skip_referenced, _charger(sb))

    def scan(self, nr_to_scan: int) -> int:
        """Look at so many objects of sparse slabs, the sparsest slab first, and empty those that can be; objects freed.

        Once all sparse slabs have been looked at, they are looked for again when a share of the cache has gone, for only
        that makes new ones.
        """
        freed = looked_at = 0
        while looked_at < nr_to_scan:
            if not len(self._queue):
                if self._objects.nr_evicted < self._search_from:
                    break
                self._search_from = self._objects.nr_evicted + max(
                    _SEARCH_AGAIN, self._objects.nr_objects >> _SEARCH_SHIFT
                )
                self._queue = self._sparse()
                if not len(self._queue):
                    break
            chunk, self._queue = self._queue[:_CHUNK], self._queue[_CHUNK:]
            gone, looked = self._empty(chunk, self._skip_referenced)
            freed += gone
            looked_at += looked
        return freed

    def free_range(self, pfn_lo: int, pfn_hi: int, nr_pages: int, *, sparse_only: bool) -> tuple[int, int]:
        """Empty slabs that begin in a range until so many pages have gone; pages freed, and objects looked at.

        One call looks at 1024 slabs at most; the next begins where it stopped.
        """
        pfns = self._objects.cache.slabs_in(pfn_lo, pfn_hi)
        pfns = np.roll(pfns, -int(np.searchsorted(pfns, self._next_pfn)))[:_RANGE_SLABS]
        if sparse_only:
            sparse = self._sparse()
        before = self._objects.nr_pages_freed
        looked_at = 0
        for at in range(0, len(pfns), _CHUNK):
            if self._objects.nr_pages_freed - before >= nr_pages:
                break
            chunk = pfns[at : at + _CHUNK]
            self._next_pfn = int(chunk[-1]) + 1
            if sparse_only:
                chunk = chunk[np.isin(chunk, sparse)]
            looked_at += self._empty(chunk, sparse_only and self._skip_referenced)[1]
        return self._objects.nr_pages_freed - before, looked_at

    def _sparse(self) -> Ints:
        """Slabs that are sparse and that no CPU holds, the sparsest first."""
        table = self._objects.cache.slabs()
        sparse = (table.inuse > 0) & (table.inuse * 100 <= self._percent * table.objects) & ~table.frozen
        order = np.argsort(table.inuse[sparse], kind="stable")
        return table.pfn[sparse][order]

    def _empty(self, pfns: Ints, skip_referenced: bool) -> tuple[int, int]:
        """Free the objects of those slabs of which all may go; objects freed, and looked at."""
        cache = self._objects.cache
        objects = cache.objects_of_slabs(pfns)
        if not len(objects):
            return 0, 0
        places = cache.place_of(objects)
        begins = np.diff(places // cache.geometry.oo.objects, prepend=-1) != 0
        slab = np.cumsum(begins) - 1
        names = self._objects.names_of(places)
        stays = names == NONE  # allocated, but not bound yet
        stays[~stays] = ~self._may_free(names[~stays])
        if skip_referenced:
            stays |= (names != NONE) & self._objects.referenced[names]
        goes = ~np.isin(slab, slab[stays])
        self._charge_scan(len(places))
        # Time has passed: somebody may use one of them now.
        chosen = self._objects.names_of(places[goes])
        chosen = chosen[chosen != NONE]
        chosen = chosen[self._may_free(chosen)]
        if len(chosen):
            self._free(chosen)
        return len(chosen), len(places)


def _charger(sb: SuperBlock) -> Callable[[int], None]:
    def charge(nr_objects: int) -> None:
        sb.mm.charge(nr_objects * sb.mm.costs.scan_object, "sb shrinker")

    return charge
