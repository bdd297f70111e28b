"""The arrays of a slab cache, and what can be read off them; `mmfw.jit.slab_lists` says what lies where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg
from mmfw.jit import slab_lists as jit
from mmfw.jit.slab_watch import note_slabs, slabs_gone

if TYPE_CHECKING:
    from mmfw.mm.pages import Memory
    from mmfw.mm.slab_sizes import SlabGeometry
    from mmfw.rawrandom import Rng

Ints = NDArray[np.int64]

_FIRST_SLOTS: Final = 32
_SHRINK_PROMOTE_MAX: Final = 32
#: Slabs that the CPUs' partial lists have room for at first, in `SlabStore.watch`.
_CPU_PARTIAL_ROOM: Final = 256


@dataclass(frozen=True, slots=True)
class SlabTable:
    """Slabs of a cache, one entry each, by ascending pfn.

    Attributes
    ----------
    pfn, order : int64[n]
        First page, and order.
    objects, inuse : int64[n]
        Objects that fit, and those that somebody has.
    frozen : bool[n]
        Whether a CPU holds it. Its pages are not freed with its last object, but when the CPU lets go.
    """

    pfn: Ints
    order: Ints
    objects: Ints
    inuse: Ints
    frozen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SlabInfo:
    """A cache's line of /proc/slabinfo (``get_slabinfo()``).

    As in 6.1, ``active_objs`` counts every object of the slabs that CPUs hold, and ``active_slabs`` every slab.
    """

    name: str
    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    active_slabs: int
    num_slabs: int


class SlabStore:
    """State of one cache.

    Parameters
    ----------
    memory : Memory
        Whose pages.
    cache_id : int
        From 1 on; its objects carry it.
    geometry : SlabGeometry
        Sizes.
    node_stat : int
        ``NS_*`` counter that its pages belong to.
    rng : Rng
        Decides in which order new slabs are threaded.

    Attributes
    ----------
    C : int64[]
        Header and CPUs.
    slabs, chain : int64[], int16[]
        Slabs and objects. They are replaced when they grow.
    """

    def __init__(
        self, memory: Memory, cache_id: int, geometry: SlabGeometry, node_stat: int, rng: Rng
    ) -> None:
        self._memory = memory
        self._geometry = geometry
        self.nr_cpus = memory.nr_cpus
        stride = geometry.oo.objects
        seq = jit.K_HEADER + self.nr_cpus * jit.U_SIZE
        self.C: Ints = np.zeros(seq + stride, dtype=np.int64)
        C = self.C
        C[jit.K_ID] = cache_id
        C[jit.K_STRIDE] = stride
        C[jit.K_ORDER] = geometry.oo.order
        C[jit.K_MIN_PARTIAL] = geometry.min_partial
        C[jit.K_CPU_PARTIAL_SLABS] = geometry.cpu_partial_slabs
        C[jit.K_NODE_STAT] = node_stat
        C[jit.K_RANDOM] = 1 + int(rng.below(jit.RANDOM_MODULUS - 1, 1)[0])
        C[jit.K_SEQ] = seq
        C[seq:] = rng.shuffled(np.arange(stride, dtype=np.int64))
        C[jit.K_HEADER + jit.U_FREELIST : seq : jit.U_SIZE] = jit.NONE
        self.slabs: Ints = np.zeros(jit.SL_SIZE, dtype=np.int64)
        self.slabs[jit.SL_PFN] = -1
        self.chain: NDArray[np.int16] = np.full(stride, jit.NONE, dtype=np.int16)

    # --- slots --------------------------------------------------------------------------------------

    @property
    def nr_slots(self) -> int:
        """Slots that exist, slot 0 included."""
        return len(self.slabs) // jit.SL_SIZE

    def reserve(self, nr_slabs: int) -> None:
        """See to it that many slots are unused."""
        C = self.C
        unused = self.nr_slots - 1 - int(C[jit.K_NR_SLABS])
        if unused >= nr_slabs:
            return
        old = self.nr_slots
        # Twice as many while they are few; a stock of a million slabs has an eighth to spare, not another million.
        needed = old + nr_slabs - unused
        new = max(needed + needed // 8, min(2 * old, _FIRST_SLOTS << 10), _FIRST_SLOTS)
        slabs = np.zeros(new * jit.SL_SIZE, dtype=np.int64)
        slabs[: len(self.slabs)] = self.slabs
        added = np.arange(old, new, dtype=np.int64)
        slabs[added * jit.SL_SIZE + jit.SL_PFN] = -1
        slabs[added[:-1] * jit.SL_SIZE + jit.SL_NEXT] = added[1:]
        slabs[(new - 1) * jit.SL_SIZE + jit.SL_NEXT] = C[jit.K_FREE_SLOT]
        C[jit.K_FREE_SLOT] = old
        chain = np.full(new * int(C[jit.K_STRIDE]), jit.NONE, dtype=np.int16)
        chain[: len(self.chain)] = self.chain
        self.slabs, self.chain = slabs, chain

    def field(self, field: int) -> Ints:
        """A field of all slots, as a view."""
        return self.slabs[field :: jit.SL_SIZE]

    def slot_of_pfn(self, pfn: int) -> int:
        """Slot of the slab that a page heads, 0 if it heads none of this cache's."""
        if not 0 <= pfn < self._memory.nr_pfns:
            return 0
        slot = int(self._memory.page[4 * pfn + pg.RMAP])
        return slot if slot < self.nr_slots and self.slabs[slot * jit.SL_SIZE + jit.SL_PFN] == pfn else 0

    def inuse(self) -> Ints:
        """Objects that somebody has, by slot: ``slab->inuse`` less what lies on the CPUs' own lists."""
        inuse = self.field(jit.SL_INUSE).copy()
        inuse[self.field(jit.SL_STATE) == jit.ST_UNUSED] = 0
        for cpu in range(self.nr_cpus):
            u = jit.K_HEADER + cpu * jit.U_SIZE
            inuse[self.C[u + jit.U_SLAB]] -= self.C[u + jit.U_NFREE]
        return inuse

    def table(self) -> SlabTable:
        """All slabs."""
        pfns = self.field(jit.SL_PFN)
        slots = np.flatnonzero(pfns >= 0)
        slots = slots[np.argsort(pfns[slots])]
        return SlabTable(
            pfns[slots],
            self.field(jit.SL_ORDER)[slots],
            self.field(jit.SL_OBJECTS)[slots],
            self.inuse()[slots],
            np.isin(self.field(jit.SL_STATE)[slots], (jit.ST_CPU, jit.ST_CPU_PARTIAL)),
        )

    def slots_in(self, pfn_lo: int, pfn_hi: int) -> Ints:
        """Slots of the slabs whose first page lies in a range, ``pfn_hi`` exclusive, by ascending pfn."""
        pfn_lo, pfn_hi = max(pfn_lo, 0), min(pfn_hi, self._memory.nr_pfns)
        if pfn_lo >= pfn_hi:
            return np.empty(0, dtype=np.int64)
        slots = self._memory.page[4 * pfn_lo + pg.RMAP : 4 * pfn_hi : 4].astype(np.int64)
        pfns = np.arange(pfn_lo, pfn_hi, dtype=np.int64)
        # The word is other owners' too: a slot is one only if it points back.
        known = np.flatnonzero(slots < self.nr_slots)
        found: Ints = slots[known[self.field(jit.SL_PFN)[slots[known]] == pfns[known]]]
        return found

    def slots_of_pfns(self, pfns: Ints) -> Ints:
        """Slot of the slab that each page heads, 0 where it heads none of this cache's."""
        slots = self._memory.page[4 * pfns + pg.RMAP].astype(np.int64)
        slots[slots >= self.nr_slots] = 0
        slots[self.field(jit.SL_PFN)[slots] != pfns] = 0
        return slots

    def watch(self, places: Ints) -> Callable[[], Ints]:
        """Watch the slabs that freeing the objects at these places may free; the CPUs' partial ones may go with them.

        Returns
        -------
        callable
            Gives the pages, ascending, of those that have gone since.
        """
        noted = np.empty(3 * (len(places) + _CPU_PARTIAL_ROOM), dtype=np.int64)
        n = note_slabs(self.C, self.slabs, self.nr_cpus, places, noted)
        if 3 * n > len(noted):
            noted = np.empty(3 * n, dtype=np.int64)
            note_slabs(self.C, self.slabs, self.nr_cpus, places, noted)

        def pages_gone() -> Ints:
            nr_gone = slabs_gone(self.slabs, noted, n)
            if not nr_gone:
                return np.empty(0, dtype=np.int64)
            first, at = np.unique(noted[: 2 * nr_gone : 2], return_index=True)
            length = 1 << noted[1 : 2 * nr_gone : 2][at]
            within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
            pages: Ints = np.repeat(first, length) + within
            return pages

        return pages_gone

    def nr_pages(self) -> int:
        """Pages of all slabs: slabs and objects that fit are counted, and two kinds of slab are solved for."""
        wanted, least = self._geometry.oo, self._geometry.min
        nr_slabs = int(self.C[jit.K_NR_SLABS])
        nr_least = 0
        if wanted.objects != least.objects:
            missing = nr_slabs * wanted.objects - int(self.C[jit.K_TOTAL_OBJECTS])
            nr_least = missing // (wanted.objects - least.objects)
        return (nr_slabs - nr_least << wanted.order) + (nr_least << least.order)

    # --- objects ------------------------------------------------------------------------------------

    def objects_of_slots(self, slots: Ints) -> Ints:
        """Objects that somebody has of many slabs: slab by slab in the order given, each by ascending place."""
        stride = int(self.C[jit.K_STRIDE])
        which, index = np.nonzero(self.chain.reshape(-1, stride)[slots] == jit.LIVE)
        return slots[which] * stride + index + (int(self.C[jit.K_ID]) << jit.ID_SHIFT)

    def live(self, objects: Ints) -> NDArray[np.bool_]:
        """Which of these are objects that somebody has."""
        places = objects & jit.PLACE_MASK
        live: NDArray[np.bool_] = (objects >> jit.ID_SHIFT == self.C[jit.K_ID]) & (places < len(self.chain))
        live[live] = self.chain[places[live]] == jit.LIVE
        return live

    def objects_of(self, slot: int) -> Ints:
        """Objects of a slab that somebody has, by ascending place."""
        stride = int(self.C[jit.K_STRIDE])
        base = slot * stride
        places = base + np.flatnonzero(self.chain[base : base + stride] == jit.LIVE)
        return places + (int(self.C[jit.K_ID]) << jit.ID_SHIFT)

    def slabinfo(self, name: str) -> SlabInfo:
        """The cache's line of /proc/slabinfo."""
        listed = self.field(jit.SL_STATE) == jit.ST_NODE_PARTIAL
        nr_free = int((self.field(jit.SL_OBJECTS)[listed] - self.field(jit.SL_INUSE)[listed]).sum())
        total, nr_slabs = int(self.C[jit.K_TOTAL_OBJECTS]), int(self.C[jit.K_NR_SLABS])
        return SlabInfo(
            name=name,
            active_objs=total - nr_free,
            num_objs=total,
            objsize=self._geometry.size,
            objperslab=self._geometry.oo.objects,
            pagesperslab=1 << self._geometry.oo.order,
            active_slabs=nr_slabs,
            num_slabs=nr_slabs,
        )

    # --- the node's partial list --------------------------------------------------------------------

    def partial(self) -> Ints:
        """Slots of the node's partial list, first to last."""
        out = np.empty(int(self.C[jit.K_NR_PARTIAL]), dtype=np.int64)
        jit.partial_slots(self.slabs, out)
        return out

    def take_empty(self, *, promote: bool) -> Ints:
        """Take the empty slabs off the node's partial list, in the order in which they are to be freed.

        Parameters
        ----------
        promote : bool
            Whether to bring the fullest of the others to the front, as ``__kmem_cache_do_shrink()`` does.
        """
        listed = self.partial()
        free = self.field(jit.SL_OBJECTS)[listed] - self.field(jit.SL_INUSE)[listed]
        empty = free == self.field(jit.SL_OBJECTS)[listed]
        kept, free = listed[~empty], free[~empty]
        if promote:
            # Each move puts a slab before those moved earlier, so slabs with as many free objects turn around.
            few = free <= _SHRINK_PROMOTE_MAX
            moved, order = kept[few][::-1], np.argsort(free[few][::-1], kind="stable")
            kept = np.concatenate([moved[order], kept[~few]])
        ring = np.concatenate([[0], kept, [0]])
        self.field(jit.SL_NEXT)[ring[:-1]] = ring[1:]
        self.field(jit.SL_PREV)[ring[1:]] = ring[:-1]
        self.C[jit.K_NR_PARTIAL] = len(kept)
        emptied: Ints = listed[empty][::-1].copy()
        return emptied
