"""Where objects lie: in a slab cache, or each in a block of its own. Both number them densely, by places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_generic_slab.spec import CacheSpec

Ints = NDArray[np.int64]


class Backing(Protocol):
    """What a cache needs of its memory."""

    @property
    def nr_places(self) -> int:
        """Bound of places; it only grows."""
        ...

    @property
    def nr_pages(self) -> int:
        """Pages held."""
        ...

    def alloc(self, nr: int) -> Ints:
        """Places of new objects, fewer if memory is short. Time may pass."""
        ...

    def adopt(self, nr: int) -> Ints:
        """Places of at least `nr` objects in pages of the initial state."""
        ...

    def free(self, places: Ints) -> Ints:
        """Free objects; the pages that came free, ascending."""
        ...

    def destroy(self) -> None:
        """End, once all objects are freed."""
        ...


class SlabBacking:
    """Objects of a slab cache, reclaimable.

    Parameters
    ----------
    mm : Mm
        Whose slab.
    spec : CacheSpec
        Size and name.
    """

    def __init__(self, mm: Mm, spec: CacheSpec) -> None:
        self._mm = mm
        self._gfp_mask = gfp.GFP_KERNEL if spec.needs_fs is False else gfp.GFP_NOFS
        self.cache = mm.slab.kmem_cache_create(
            spec.slab_cache or spec.name, spec.object_size, flags=mm.slab.SLAB_RECLAIM_ACCOUNT
        )

    @property
    def nr_places(self) -> int:
        """See `Backing`."""
        return self.cache.nr_places

    @property
    def nr_pages(self) -> int:
        """See `Backing`."""
        return self.cache.nr_pages

    def alloc(self, nr: int) -> Ints:
        """See `Backing`."""
        return self.cache.place_of(self.cache.kmem_cache_alloc_bulk(self._gfp_mask, nr))

    def adopt(self, nr: int) -> Ints:
        """See `Backing`; the slabs are single pages, whatever order the cache would choose."""
        nr_pages = -(-nr // self.cache.geometry.min.objects)
        pfns = self._mm.claim_resident(nr_pages, movable=False, what=f"slabs of {self.cache.name}")
        return self.cache.place_of(self.cache.adopt(pfns))

    def free(self, places: Ints) -> Ints:
        """See `Backing`."""
        return self.cache.kmem_cache_free_reclaimed(self.cache.object_at(places))

    def destroy(self) -> None:
        """See `Backing`."""
        self._mm.slab.kmem_cache_destroy(self.cache)


class BlockBacking:
    """Objects that are blocks of one order each, unmovable.

    A block above order 0 is asked for without retries and not replaced by smaller ones: an allocation that fails
    leaves the object unmade.

    Parameters
    ----------
    mm : Mm
        Whose pages.
    spec : CacheSpec
        The order.
    """

    def __init__(self, mm: Mm, spec: CacheSpec) -> None:
        self._mm = mm
        self._order = spec.order
        self._gfp_mask = gfp.GFP_KERNEL if spec.needs_fs is False else gfp.GFP_NOFS
        if spec.order:
            self._gfp_mask |= gfp.NORETRY | gfp.NOWARN | gfp.COMP
        self._pfn = np.zeros(0, dtype=np.int64)
        self._unused = np.zeros(0, dtype=np.int64)
        self._nr_objects = 0

    @property
    def nr_places(self) -> int:
        """See `Backing`."""
        return len(self._pfn)

    @property
    def nr_pages(self) -> int:
        """See `Backing`."""
        return self._nr_objects << self._order

    def alloc(self, nr: int) -> Ints:
        """See `Backing`."""
        return self._place(self._mm.alloc_pages_batch(self._gfp_mask, self._order, nr))

    def adopt(self, nr: int) -> Ints:
        """See `Backing`; blocks above order 0 are allocated, for the initial state's allocated pages are single."""
        if self._order:
            return self.alloc(nr)
        return self._place(self._mm.claim_resident(nr, movable=False, what="blocks of a generic cache"))

    def _place(self, pfns: Ints) -> Ints:
        nr = len(pfns)
        if nr > len(self._unused):
            old = len(self._pfn)
            longer = np.zeros(max(2 * old, old + nr), dtype=np.int64)
            longer[:old] = self._pfn
            self._unused = np.concatenate([np.arange(len(longer) - 1, old - 1, -1), self._unused])
            self._pfn = longer
        keep = len(self._unused) - nr
        places, self._unused = self._unused[keep:][::-1], self._unused[:keep]
        self._pfn[places] = pfns
        self._nr_objects += nr
        return places

    def free(self, places: Ints) -> Ints:
        """See `Backing`."""
        pfns = self._pfn[places]
        self._unused = np.concatenate([self._unused, places[::-1]])
        self._nr_objects -= len(places)
        self._mm.free_pages_batch(pfns, self._order)
        return np.sort((pfns[:, None] + np.arange(1 << self._order)).ravel())

    def destroy(self) -> None:
        """See `Backing`."""
        assert self._nr_objects == 0, "its owner frees all objects first"


def backing_for(mm: Mm, spec: CacheSpec) -> Backing:
    """The memory of a cache."""
    return SlabBacking(mm, spec) if spec.kind == "slab" else BlockBacking(mm, spec)
