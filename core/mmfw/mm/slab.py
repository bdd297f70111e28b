"""A slab cache: objects that pin their pages (mm/slub.c of 6.1).

An object's page goes back to the buddy when the last object of its slab is freed, and then only if enough partial slabs
are kept already. So 90% of the objects can go and no page with them.

Where a slab is, and where it goes, is the kernel's: each CPU allocates from one slab and keeps a list of partial ones,
the node has a list too, full slabs are on none. What is done for one object is compiled (`mmfw.jit.slab`).

Simplified:

* Memory from the reserves is not kept for those who may use the reserves (``pfmemalloc``): a slab that reclaim allocated
  serves everybody, and a task that would have allocated a slab may find that one.
* ``SLAB_TYPESAFE_BY_RCU``: a slab is freed at once and credited to the reclaimer, not after a grace period.
* The kernel's random stream is another one, so new slabs are threaded in another order than on a real machine.
* No debugging, no memcg (``SLAB_ACCOUNT`` is accepted and does nothing), no NUMA, no contention on the list lock.
* Flushing other CPUs' slabs is immediate: a real ``kmem_cache_shrink()`` waits for a work item on each.
* A bulk call costs as much as the loop; what refilling and freeing a slab adds to an object's cost is in the average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.jit import alloc as jit_alloc
from mmfw.jit import page as pg
from mmfw.jit import slab as jit
from mmfw.jit import slab_lists as lists
from mmfw.mm.slab_sizes import SLAB_RECLAIM_ACCOUNT, SlabGeometry, slab_gfp
from mmfw.mm.slab_store import SlabInfo, SlabStore, SlabTable

if TYPE_CHECKING:
    from mmfw.mm.freelist import Request
    from mmfw.mm.slab_host import SlabHost
    from mmfw.rawrandom import Rng

Objects = NDArray[np.int64]
Pfns = NDArray[np.int64]

#: Objects between two points at which time passes.
_BATCH: Final = 4096


class BadObject(CallerError):
    """A number was given for an object of a cache that is none: free already, never handed out, or another cache's."""


class KmemCache:
    """One cache (``struct kmem_cache``); made by `mmfw.mm.slab_common.SlabAllocator.kmem_cache_create`.

    An object is a number that only its cache understands. `place_of` turns it into a small one, for arrays.

    Attributes
    ----------
    name : str
        As /proc/slabinfo shows it.
    flags : int
        ``SLAB_*`` bits.
    geometry : SlabGeometry
        Sizes.
    store : SlabStore
        Its arrays.
    order_fallbacks : int
        Slabs of the smallest order, for want of the wanted one (``ORDER_FALLBACK``).
    """

    def __init__(
        self,
        host: SlabHost,
        names: dict[int, str],
        cache_id: int,
        geometry: SlabGeometry,
        flags: int,
        rng: Rng,
    ) -> None:
        self.name = names[cache_id]
        self.flags = flags
        self.geometry = geometry
        self.order_fallbacks = 0
        self._host = host
        self._names = names
        self._memory = host.freelist.memory
        stat = pg.NS_SLAB_RECLAIMABLE if flags & SLAB_RECLAIM_ACCOUNT else pg.NS_SLAB_UNRECLAIMABLE
        self.store = SlabStore(self._memory, cache_id, geometry, stat, rng)
        self._masks: dict[int, tuple[int, int]] = {}
        self._page_out = np.zeros(1, dtype=np.int64)
        self._destroyed = False

    def __repr__(self) -> str:
        return f"<KmemCache {self.name}: {self.nr_objects} objects in {self.nr_slabs} slabs>"

    # --- allocation ---------------------------------------------------------------------------------

    def kmem_cache_alloc(self, gfp_mask: int) -> int:
        """One object, or -1 where the kernel returns NULL (``kmem_cache_alloc()``).

        Raises
        ------
        CallerError
            The mask has a bit that no slab may have, or the cache was destroyed.
        """
        out = np.empty(1, dtype=np.int64)
        return int(out[0]) if self._alloc(gfp_mask, out) else -1

    def kmem_cache_alloc_bulk(self, gfp_mask: int, nr: int) -> Objects:
        """Many objects, as a loop of `kmem_cache_alloc` gets them.

        The kernel's function of this name gives all back if one is not to be had; this one keeps what it got.

        Returns
        -------
        int64[n]
            In the order of allocation; fewer than ``nr`` if a slab was not to be had.
        """
        out = np.empty(nr, dtype=np.int64)
        return out[: self._alloc(gfp_mask, out)]

    def _alloc(self, gfp_mask: int, out: Objects) -> int:
        if self._destroyed:
            raise CallerError(f"kmem_cache_alloc() from {self.name}, which was destroyed")
        if gfp_mask not in self._masks:
            self._masks[gfp_mask] = slab_gfp(gfp_mask, self.geometry)
        first_try, flags = self._masks[gfp_mask]
        context, memory, store = self._host.context, self._memory, self.store
        freelist = self._host.freelist
        request = freelist.request(first_try, self.geometry.oo.order)
        got = 0
        while got < len(out):
            if gfp_mask & gfp.DIRECT_RECLAIM:
                context.might_sleep()  # might_alloc()
            status, upto = jit.slab_alloc_batch(
                memory.page,
                memory.pb,
                memory.S,
                store.C,
                store.slabs,
                store.chain,
                context.cpu,
                freelist.node_row,
                request.gfp_mask,
                request.migratetype,
                request.highest_zoneidx,
                request.fast_flags,
                self._page_out,
                out[: got + _BATCH],
                got,
            )
            handed, got = upto - got, upto
            if status == jit_alloc.BATCH_BOOST_WAKE:
                freelist.wake_for_boost()
            elif status == jit_alloc.BATCH_TRACE_FULL:
                memory.flush_trace()
            elif status == jit.SLAB_NO_SLOT:
                store.reserve(1)
            self._host.settle(store, self.geometry, allocated=handed)
            if status == jit_alloc.BATCH_SLOWPATH and not self._new_slab(flags, request):
                break
        return got

    def _new_slab(self, flags: int, first_try: Request) -> bool:
        """Get a slab whose first attempt missed the free lists (the rest of ``allocate_slab()``).

        Nothing is locked meanwhile: another task may allocate and free here, and this one may wake on another CPU.
        """
        geometry, memory = self.geometry, self._memory
        order, objects = geometry.oo
        pfn = self._host.allocator.alloc_pages_slowpath(first_try.gfp_mask, order)
        S = memory.S
        if S[pg.S_TRACE_MASK] & (1 << pg.TR_PAGE_ALLOC):
            pg.trace(S, pg.TR_PAGE_ALLOC, pfn, order, first_try.migratetype, first_try.gfp_mask, 0)
        self._host.charge_alloc(1, order)
        if pfn < 0:
            order, objects = geometry.min
            pfn = self._host.allocator.alloc_pages(flags, order)
            if pfn < 0:
                return False
            self.order_fallbacks += 1
        store = self.store
        store.reserve(1)
        jit.new_slab(
            memory.page,
            memory.pb,
            S,
            store.C,
            store.slabs,
            store.chain,
            self._host.context.cpu,
            pfn,
            order,
            objects,
        )
        return True

    def adopt(self, pfns: Pfns) -> Objects:
        """Fill order-0 pages that somebody owns with objects, all of them in use: the state a run starts from.

        Parameters
        ----------
        pfns : int64[n]
            From ``mm.claim_resident()``, or allocated as single pages; they are the cache's from here on.

        Raises
        ------
        CallerError
            An object does not fit a page, or one of these is no such page, or is given twice.
        """
        memory, store, geometry = self._memory, self.store, self.geometry
        if geometry.min.order or self._destroyed:
            raise CallerError(f"{self.name} cannot adopt pages: an object of {geometry.size} bytes fits none")
        pfns = np.ascontiguousarray(pfns, dtype=np.int64)
        words = memory.page[4 * pfns + pg.WORD] & ~np.uint32(pg.PCPMT_MASK)
        wrong = pfns[(words != pg.T_ALLOC) | (memory.page[4 * pfns + pg.RMAP] != 0)]
        ascending = np.sort(pfns)
        twice = ascending[1:][ascending[1:] == ascending[:-1]]
        if len(wrong) or len(twice):
            pfn = int(wrong[0] if len(wrong) else twice[0])
            raise CallerError(
                f"{self.name} cannot adopt pfn {pfn:#x}: it is no single page that the caller has"
            )
        store.reserve(len(pfns))
        out = np.empty(len(pfns) * geometry.min.objects, dtype=np.int64)
        jit.adopt_slabs(
            memory.page, memory.S, store.C, store.slabs, store.chain, pfns, geometry.min.objects, out
        )
        return out

    # --- freeing ------------------------------------------------------------------------------------

    def kmem_cache_free(self, obj: object) -> None:
        """Free an object (``kmem_cache_free()``).

        Raises
        ------
        BadObject
            It is none of this cache's, or free already.
        """
        if not isinstance(obj, (int, np.integer)) or not 0 <= obj < 1 << 63:
            raise BadObject(f"kmem_cache_free() to {self.name}: {obj!r} is no object")
        self.kmem_cache_free_bulk(np.array([obj], dtype=np.int64))

    def kmem_cache_free_bulk(self, objects: Objects) -> None:
        """Free many objects, as a loop of `kmem_cache_free` in the order given would.

        The kernel's function of this name begins at the end and frees neighbours of one slab together.

        Raises
        ------
        BadObject
            One is none of this cache's, or free already; those before it have been freed.
        """
        memory, store, context = self._memory, self.store, self._host.context
        objects = np.ascontiguousarray(objects, dtype=np.int64)
        done = 0
        while done < len(objects):
            status, upto = jit.slab_free_batch(
                memory.page,
                memory.pb,
                memory.S,
                store.C,
                store.slabs,
                store.chain,
                context.cpu,
                objects[: done + _BATCH],
                done,
            )
            freed, done = upto - done, upto
            if status == jit_alloc.BATCH_TRACE_FULL:
                memory.flush_trace()
            self._host.settle(store, self.geometry, freed=freed)
            if status == jit.SLAB_BAD_OBJECT:
                self._refuse(int(objects[upto]))

    def kmem_cache_free_reclaimed(self, objects: Objects) -> Pfns:
        """Free objects as `kmem_cache_free_bulk`, and say which pages that gave back: what a shrinker reports.

        Returns
        -------
        int64[n]
            Every page of the slabs that went. A slab that was empty before may be among them; one that is empty now
            may be kept.
        """
        pages_gone = self.store.watch(self.place_of(np.asarray(objects, dtype=np.int64)))
        self.kmem_cache_free_bulk(objects)
        return pages_gone()

    def _refuse(self, obj: int) -> None:
        cache_id = obj >> lists.ID_SHIFT
        what = "nobody's"
        if cache_id == self.store.C[lists.K_ID]:
            what = "free already" if obj & lists.PLACE_MASK < self.nr_places else what
        elif cache_id in self._names:
            what = f"one of {self._names[cache_id]}"
        raise BadObject(f"kmem_cache_free() to {self.name}: object {obj:#x} is {what}")

    # --- giving slabs back ----------------------------------------------------------------------------

    def kmem_cache_shrink(self) -> int:
        """Free the empty slabs, and bring the fullest to the front (``kmem_cache_shrink()``); 0 if no slab is left."""
        self._flush_all()
        self._discard(self.store.take_empty(promote=True))
        return int(self.nr_slabs != 0)

    def shutdown(self) -> bool:
        """Free the empty slabs for good (``__kmem_cache_shutdown()``); False if objects are left in others."""
        self._flush_all()
        self._discard(self.store.take_empty(promote=False))
        self._destroyed = self.nr_slabs == 0
        return self._destroyed

    def _flush_all(self) -> None:
        memory, store = self._memory, self.store
        for cpu in range(store.nr_cpus):
            lists.flush_cpu_slab(memory.page, memory.pb, memory.S, store.C, store.slabs, store.chain, cpu)
        self._host.settle(store, self.geometry)

    def _discard(self, slots: Objects) -> None:
        memory, store = self._memory, self.store
        done = 0
        while done < len(slots):
            done = lists.discard_batch(
                memory.page, memory.pb, memory.S, store.C, store.slabs, self._host.context.cpu, slots, done
            )
            if done < len(slots):
                memory.flush_trace()
            self._host.settle(store, self.geometry)

    # --- what lies where ------------------------------------------------------------------------------

    def place_of(self, objects: Objects) -> Objects:
        """A number below `nr_places` for each object, its own while it is in use: index of an owner's arrays."""
        return objects & lists.PLACE_MASK

    def object_at(self, places: Objects) -> Objects:
        """The objects of places: the inverse of `place_of`."""
        return places + (int(self.store.C[lists.K_ID]) << lists.ID_SHIFT)

    @property
    def nr_places(self) -> int:
        """Bound of `place_of`; it grows with the cache, by doubling, and never shrinks."""
        return len(self.store.chain)

    def slab_of(self, objects: Objects) -> Pfns:
        """First page of the slab of each object (``virt_to_slab()``).

        Raises
        ------
        BadObject
            One is none of this cache's, or free.
        """
        live = self.store.live(objects)
        if not live.all():
            raise BadObject(f"slab_of() of {self.name}: {int(objects[~live][0]):#x} is no object in use")
        return self.store.field(lists.SL_PFN)[self.place_of(objects) // self.geometry.oo.objects]

    def slabs(self) -> SlabTable:
        """All slabs by ascending pfn, with the objects in use in each."""
        return self.store.table()

    def objects_of(self, pfn: int) -> Objects:
        """Objects in use of the slab that a page heads; empty if it heads none of this cache's."""
        slot = self.store.slot_of_pfn(pfn)
        return self.store.objects_of(slot) if slot else np.empty(0, dtype=np.int64)

    def slabs_in(self, pfn_lo: int, pfn_hi: int) -> Pfns:
        """First pages of the slabs that begin in a range, ascending."""
        return self.store.field(lists.SL_PFN)[self.store.slots_in(pfn_lo, pfn_hi)]

    def objects_of_slabs(self, pfns: Pfns) -> Objects:
        """Objects in use of many slabs, by the pages that head them; pages that head none add nothing."""
        slots = self.store.slots_of_pfns(np.asarray(pfns, dtype=np.int64))
        return self.store.objects_of_slots(slots[slots != 0])

    def inuse(self, pfn: int) -> int:
        """Number of objects in use of the slab that a page heads; 0 if it heads none of this cache's."""
        return len(self.objects_of(pfn))

    @property
    def nr_slabs(self) -> int:
        """Slabs."""
        return int(self.store.C[lists.K_NR_SLABS])

    @property
    def nr_pages(self) -> int:
        """Pages of all slabs."""
        return self.store.nr_pages()

    @property
    def nr_objects(self) -> int:
        """Objects in use."""
        return int(self.store.inuse().sum())

    def slabinfo(self) -> SlabInfo:
        """Its line of /proc/slabinfo."""
        return self.store.slabinfo(self.name)
