"""What a dentry cache and an inode cache have in common: slab objects with a count, a bit, an LRU, and a name each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.slab import KmemCache

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Scalar = TypeVar("Scalar", bound=np.generic)

NONE: Final = -1
NEVER: Final = -1
PAGE_SIZE: Final = 4096


def grown(array: NDArray[Scalar], size: int, fill: int) -> NDArray[Scalar]:
    """The array, or one that begins with it and has room to spare if it holds fewer than `size` elements."""
    if size <= len(array):
        return array
    length = max(size + size // 8, min(2 * len(array), 1 << 20))
    # Zeroes come from the system's own, and cost nothing until somebody writes there.
    longer = np.zeros(length, dtype=array.dtype) if fill == 0 else np.empty(length, dtype=array.dtype)
    longer[: len(array)] = array
    if fill:
        longer[len(array) :] = fill
    return longer


class CachedObjects:
    """All cached objects of one kind; each belongs to one name of the filesystem, by which the arrays go.

    They do not go by place: a slab that fell back to a smaller order leaves most of its places unused.

    Parameters
    ----------
    mm : Mm
        Whose slab.
    cache : KmemCache
        Where the objects lie.
    subsystem : str
        Name for ``mm.ledger``.
    gfp_mask : int
        Mask of an allocation.

    Attributes
    ----------
    cache : KmemCache
        As given.
    lru : ListLru
        Names whose objects nobody uses, and some that are in use again (they are taken off by the scan that meets them).
    count : int32[nr_names]
        References (``d_lockref.count``, ``i_count``); 0 of a name that is not cached.
    referenced : bool[nr_names]
        Used again while on the LRU (``DCACHE_REFERENCED``, ``I_REFERENCED``).
    at : int32[nr_names]
        Place of each name's object, -1 if it is not cached: the hash table.
    nr_objects : int
        Cached ones.
    nr_evicted, nr_pages_freed : int
        Objects that reclaim has freed, and the slab pages which that gave back.
    """

    def __init__(self, mm: Mm, cache: KmemCache, subsystem: str, gfp_mask: int) -> None:
        self.cache = cache
        self.lru = mm.slab.list_lru()
        self.count = np.zeros(0, dtype=np.int32)
        self.referenced = np.zeros(0, dtype=np.bool_)
        self.at = np.zeros(0, dtype=np.int32)
        self.nr_objects = 0
        self.nr_evicted = 0
        self.nr_pages_freed = 0
        self._mm = mm
        self._subsystem = subsystem
        self._gfp_mask = gfp_mask
        self._evicted_at = np.zeros(0, dtype=np.int64)
        self._name_of: NDArray[np.int32] | None = None
        self._carry = 0
        self._stock = np.empty(0, dtype=np.int64)
        mm.ledger.hold(subsystem, lambda: cache.nr_pages)

    def fit_names(self, nr_names: int) -> None:
        """Make room for names up to a number."""
        self.at = grown(self.at, nr_names, NONE)
        self.count = grown(self.count, nr_names, 0)
        self.referenced = grown(self.referenced, nr_names, 0)

    # --- coming -------------------------------------------------------------------------------------

    def alloc(self, nr: int) -> Ints:
        """Places of new objects, fewer than `nr` if memory is short. Time may pass, and reclaim may run."""
        stocked, self._stock = self._stock[:nr], self._stock[nr:]
        if len(stocked) == nr:
            return stocked
        objects = self.cache.kmem_cache_alloc_bulk(self._gfp_mask, nr - len(stocked))
        return np.concatenate([stocked, self.cache.place_of(objects)])

    def stock(self, nr: int) -> None:
        """Take over single pages of the initial state, full of at least `nr` objects, from which `alloc` draws first.

        An object that would lie in a slab of a higher order on a machine with free memory lies in one of order 0.
        """
        nr_pages = -(-nr // self.cache.geometry.min.objects)
        pfns = self._mm.claim_resident(nr_pages, movable=False, what=f"slabs of {self.cache.name}")
        self._stock = self.cache.place_of(self.cache.adopt(pfns))

    def release_stock(self) -> None:
        """Free what is left of the stock."""
        rest, self._stock = self._stock, np.empty(0, dtype=np.int64)
        self.free_unused(rest)

    def free_unused(self, places: Ints) -> None:
        """Give back objects that no name was bound to."""
        if len(places):
            self.cache.kmem_cache_free_bulk(self.cache.object_at(places))

    def bind(self, names: Ints, places: Ints) -> None:
        """Make objects the cached ones of names, with one reference each; no time passes.

        Those that reclaim took away before are reported as re-created.
        """
        self.at[names] = places
        self.count[names] = 1
        self.referenced[names] = False
        self.nr_objects += len(places)
        if self._name_of is not None:
            self._name_of = grown(self._name_of, self.cache.nr_places, NONE)
            self._name_of[places] = names
        if len(self._evicted_at):
            self._evicted_at = grown(self._evicted_at, len(self.at), NEVER)
            self._report_recreated(names)

    def _report_recreated(self, names: Ints) -> None:
        again = names[self._evicted_at[names] != NEVER]
        if len(again):
            ages = self._mm.sched.now - self._evicted_at[again]
            self._evicted_at[again] = NEVER
            for age, nr in zip(*np.unique(ages, return_counts=True), strict=True):
                self._mm.ledger.recreated(
                    self._subsystem, nr_objects=int(nr), nr_pages=self._pages(int(nr)), age_ns=int(age)
                )

    def _pages(self, nr_objects: int) -> int:
        """Pages that so many objects fill; what is less than a page is carried over to the next call."""
        filled = nr_objects * self.cache.geometry.size + self._carry
        self._carry = filled % PAGE_SIZE
        return filled // PAGE_SIZE

    def place(self, names: Ints) -> Ints:
        """Places of names' objects, -1 where none is cached."""
        return self.at[names].astype(np.int64)

    def names_of(self, places: Ints) -> Ints:
        """Names of the objects at places, -1 where none is bound: for who begins with a slab."""
        if self._name_of is None:
            self._name_of = np.full(self.cache.nr_places, NONE, dtype=np.int32)
            cached = np.flatnonzero(self.at != NONE)
            self._name_of[self.at[cached]] = cached
        # Places that came since are nobody's yet.
        self._name_of = grown(self._name_of, self.cache.nr_places, NONE)
        return self._name_of[places].astype(np.int64)

    # --- references ---------------------------------------------------------------------------------

    def put(self, names: Ints) -> Ints:
        """Drop a reference of distinct names' objects; those nobody uses any more go to the LRU's young end.

        One that is there already (from before it was used) is only marked as referenced (``retain_dentry()``,
        ``__inode_add_lru()``).

        Returns
        -------
        int64[n]
            Names of those whose count fell to 0.
        """
        self.count[names] -= 1
        idle: Ints = names[self.count[names] == 0]
        added = self.lru.add(idle)
        self.referenced[idle[~added]] = True
        return idle

    # --- going --------------------------------------------------------------------------------------

    def walk(self, nr_to_walk: int, dispose: Callable[[Ints], None]) -> tuple[int, int]:
        """Walk the LRU from its old end (``list_lru_walk_one()``).

        An object in use is taken off the list. One that was referenced loses the mark and goes to the young end, where
        the same walk meets it again if it is that long. The rest is disposed of.

        Parameters
        ----------
        nr_to_walk : int
            Objects to look at.
        dispose : callable
            Given the names whose objects are to be freed, oldest first, once.

        Returns
        -------
        isolated, walked : int
            Objects taken off the list, in use or not, which is what the kernel calls freed; and objects looked at.
        """
        isolated, left = 0, nr_to_walk
        victims: list[Ints] = []
        while left and len(names := self.lru.oldest(left)):
            left -= len(names)
            in_use = self.count[names] > 0
            second_chance = ~in_use & self.referenced[names]
            rotated = names[second_chance]
            self.referenced[rotated] = False
            self.lru.remove(names[~second_chance])
            self.lru.rotate(rotated)
            isolated += len(names) - len(rotated)
            victims.append(names[~in_use & ~second_chance])
        if victims:
            dispose(np.concatenate(victims))
        return isolated, nr_to_walk - left

    def unbind(self, names: Ints) -> Ints:
        """Unhash objects that reclaim frees; no time passes. Their places."""
        places = self.place(names)
        self.at[names] = NONE
        if self._name_of is not None:
            self._name_of[places] = NONE
        self._evicted_at = grown(self._evicted_at, len(self.at), NEVER)
        self._evicted_at[names] = self._mm.sched.now
        self.nr_objects -= len(places)
        return places

    def free(self, places: Ints) -> int:
        """Give back objects that reclaim has unhashed, and report it; pages that this freed."""
        pfns = self.cache.kmem_cache_free_reclaimed(self.cache.object_at(places))
        self.nr_evicted += len(places)
        self.nr_pages_freed += len(pfns)
        self._mm.ledger.evicted(self._subsystem, nr_objects=len(places), nr_pages=len(pfns), pfns=pfns)
        return len(pfns)

    def destroy(self) -> None:
        """Free everything, and the cache."""
        names = np.flatnonzero(self.at != NONE)
        places = np.sort(self.place(names))
        self.lru.remove(names)
        self.at[names] = NONE
        self.count[names] = 0
        self._name_of = None
        self.nr_objects = 0
        self.free_unused(places)
        self._mm.slab.kmem_cache_destroy(self.cache)
