"""What slab caches need of the machine, and how what they did is credited and charged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw.jit import slab_lists as jit

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext
    from mmfw.mm.freelist import Freelist
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.slab_sizes import SlabGeometry
    from mmfw.mm.slab_store import SlabStore

#: What one object costs, ns, its share of refilling and placing slabs included. Estimates: alloc and free in turn are
#: published as 11 to 13 ns for the pair while the object stays in the CPU's cache. Objects of a large cache do not,
#: and most of their frees miss the CPU's slab.
ALLOC_OBJECT_NS: Final = 20
FREE_OBJECT_NS: Final = 30


@dataclass(frozen=True, slots=True)
class SlabHost:
    """The machine, as caches see it.

    Attributes
    ----------
    freelist, allocator : Freelist, PageAllocator
        Where pages come from.
    context : ExecContext
        The running task and the clock.
    account_reclaimed_slab : callable
        Told the pages of slabs that are freed.
    charge_alloc, charge_free : callable
        Called with a number of blocks and their order; charge their cost.
    """

    freelist: Freelist
    allocator: PageAllocator
    context: ExecContext
    account_reclaimed_slab: Callable[[int], None]
    charge_alloc: Callable[[int, int], None]
    charge_free: Callable[[int, int], None]

    def settle(self, store: SlabStore, geometry: SlabGeometry, *, allocated: int = 0, freed: int = 0) -> None:
        """Credit and charge what a compiled loop has just done to a cache; time may pass here.

        Parameters
        ----------
        store : SlabStore
            Has counted the slabs that came and went.
        geometry : SlabGeometry
            Their orders.
        allocated, freed : int
            Objects.
        """
        C = store.C
        made, pages, min_pages = C[jit.K_MADE : jit.K_FREED_MIN + 1].tolist()
        C[jit.K_MADE : jit.K_FREED_MIN + 1] = 0
        if pages or min_pages:
            self.account_reclaimed_slab(pages + min_pages)
        if allocated:
            self.context.charge(allocated * ALLOC_OBJECT_NS, "kmem_cache_alloc")
        if freed:
            self.context.charge(freed * FREE_OBJECT_NS, "kmem_cache_free")
        if made:
            self.charge_alloc(made, geometry.oo.order)
        if pages:
            self.charge_free(pages >> geometry.oo.order, geometry.oo.order)
        if min_pages:
            self.charge_free(min_pages >> geometry.min.order, geometry.min.order)
