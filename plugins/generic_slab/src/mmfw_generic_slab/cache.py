"""A cache with a shrinker: a FIFO of objects, some of which get a second chance and some of which are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, hookimpl
from mmfw.gfp import FS
from mmfw_generic_slab.backing import Ints, backing_for
from mmfw_generic_slab.spec import CacheSpec

if TYPE_CHECKING:
    from mmfw import Mm

Scalar = TypeVar("Scalar", bound=np.generic)

NONE: Final = -1
NEVER: Final = -1
PAGE_SIZE: Final = 4096


def _grown(array: NDArray[Scalar], size: int, fill: int) -> NDArray[Scalar]:
    if size <= len(array):
        return array
    longer = np.full(max(size, 2 * len(array)), fill, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


class ShrinkableCache:
    """Objects of one kind, their LRU, and the shrinker that frees the oldest.

    Users ask for keys, 0 to ``nr_keys - 1``; a key has an object or has not. An object goes to the LRU's young end when
    it is made. Using it marks it, which spares it once if the cache gives a second chance, and otherwise changes nothing.

    Parameters
    ----------
    mm : Mm
        Its machine.
    spec : CacheSpec
        What it is.
    nr_keys : int
        Keys.

    Attributes
    ----------
    spec, nr_keys
        As given.
    seeks, batch : int
        The shrinker's.
    nr_objects : int
        Objects there are.
    nr_hits, nr_misses : int
        Keys asked for that had an object, or had none.
    nr_evicted, nr_pages_freed : int
        What the shrinker freed, and pages that came free with it.
    nr_enomem : int
        Objects not made for want of memory.
    """

    def __init__(self, mm: Mm, spec: CacheSpec, nr_keys: int) -> None:
        self.spec = spec
        self.seeks = spec.seeks
        self.batch = spec.batch
        self.nr_keys = nr_keys
        self.nr_objects = 0
        self.nr_hits = self.nr_misses = self.nr_evicted = self.nr_pages_freed = self.nr_enomem = 0
        self._mm = mm
        self._backing = backing_for(mm, spec)
        self._lru = mm.slab.list_lru()
        self._at = np.full(nr_keys, NONE, dtype=np.int32)
        self._evicted_at = np.full(nr_keys, NEVER, dtype=np.int64)
        self._key = np.full(0, NONE, dtype=np.int32)
        self._used = np.zeros(0, dtype=np.bool_)
        self._carry = 0
        mm.ledger.hold(spec.name, lambda: self._backing.nr_pages)

    @property
    def nr_pages(self) -> int:
        """Pages that it holds."""
        return self._backing.nr_pages

    @property
    def nr_on_lru(self) -> int:
        """Objects that the shrinker can see."""
        return len(self._lru)

    def is_cached(self, keys: Ints) -> NDArray[np.bool_]:
        """Which keys have an object."""
        cached: NDArray[np.bool_] = self._at[keys] != NONE
        return cached

    # --- making objects ---------------------------------------------------------------------------

    def fill(self, *, resident: bool) -> None:
        """Make the objects of all keys, before time starts; the pinned ones are spread by chance.

        Parameters
        ----------
        resident : bool
            Whether they lie in pages that the initial state holds allocated.
        """
        keys = np.arange(self.nr_keys, dtype=np.int64)
        places = self._backing.adopt(self.nr_keys) if resident else self._backing.alloc(self.nr_keys)
        self._fit()
        spare, places = places[self.nr_keys :], places[: self.nr_keys]
        self._bind(keys[: len(places)], places)
        if len(spare):
            self._backing.free(spare)
        chance = round(self.spec.pinned_percent * 1_000)
        pinned = self._mm.rng(f"{self.spec.name} pinned").below(100_000, len(places)) < chance
        self._lru.remove(places[pinned])

    def touch(self, keys: Ints) -> int:
        """Use the objects of keys, making those that are not there; objects made.

        Parameters
        ----------
        keys : int64[n]
            May repeat; a key that is made and asked for again is used once more.
        """
        hit = self.is_cached(keys)
        self._used[self._at[keys[hit]]] = True
        self.nr_hits += int(hit.sum())
        missing = keys[~hit]
        if not len(missing):
            return 0
        _, first = np.unique(missing, return_index=True)
        wanted = missing[np.sort(first)]
        self.nr_misses += len(wanted)
        self.nr_hits += len(missing) - len(wanted)
        places = self._backing.alloc(len(wanted))
        self._fit()
        # Another user may have made some meanwhile.
        wanted = wanted[~self.is_cached(wanted)]
        self.nr_enomem += max(0, len(wanted) - len(places))
        made, spare = places[: len(wanted)], places[len(wanted) :]
        self._bind(wanted[: len(made)], made)
        again = np.delete(missing, first)
        again = again[self.is_cached(again)]
        self._used[self._at[again]] = True
        if len(spare):
            self._backing.free(spare)
        return len(made)

    def _fit(self) -> None:
        self._key = _grown(self._key, self._backing.nr_places, NONE)
        self._used = _grown(self._used, self._backing.nr_places, 0)

    def _bind(self, keys: Ints, places: Ints) -> None:
        self._at[keys] = places
        self._key[places] = keys
        self._used[places] = False
        self._lru.add(places)
        self.nr_objects += len(keys)
        since = self._evicted_at[keys]
        ages = self._mm.sched.now - since[since != NEVER]
        self._evicted_at[keys] = NEVER
        for age, nr in zip(*np.unique(ages, return_counts=True), strict=True):
            self._carry += int(nr) * self.spec.bytes_per_object
            nr_pages, self._carry = divmod(self._carry, PAGE_SIZE)
            self._mm.ledger.recreated(self.spec.name, nr_objects=int(nr), nr_pages=nr_pages, age_ns=int(age))

    # --- the shrinker -----------------------------------------------------------------------------

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Objects on the LRU, whatever the order or the mask."""
        del sc
        return len(self._lru) or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Walk the LRU from its old end; objects freed."""
        if self.spec.needs_fs and not sc.gfp_mask & FS:
            return SHRINK_STOP
        left = sc.nr_to_scan
        victims: list[Ints] = []
        while left and len(places := self._lru.oldest(left)):
            left -= len(places)
            spared = self._used[places] if self.spec.second_chance else np.zeros(len(places), dtype=np.bool_)
            self._used[places[spared]] = False
            self._lru.remove(places[~spared])
            self._lru.rotate(places[spared])
            victims.append(places[~spared])
        freed = np.concatenate(victims) if victims else np.empty(0, dtype=np.int64)
        if len(freed):
            self._evict(freed)
        self._mm.charge((sc.nr_to_scan - left) * self._mm.costs.scan_object, "generic shrinker")
        return len(freed)

    def _evict(self, places: Ints) -> None:
        keys = self._key[places]
        self._at[keys] = NONE
        self._key[places] = NONE
        self._evicted_at[keys] = self._mm.sched.now
        self.nr_objects -= len(places)
        self.nr_evicted += len(places)
        pfns = self._backing.free(places)
        self.nr_pages_freed += len(pfns)
        self._mm.ledger.evicted(self.spec.name, nr_objects=len(places), nr_pages=len(pfns), pfns=pfns)

    def destroy(self) -> None:
        """Free everything."""
        places = np.flatnonzero(self._key != NONE)
        self._lru.remove(places)
        self._at[:] = NONE
        self._key[places] = NONE
        self.nr_objects = 0
        if len(places):
            self._backing.free(places)
        self._backing.destroy()
