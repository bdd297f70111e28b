"""vmalloc for sizes below 2 MiB: single pages, and what describes them (mm/vmalloc.c of 6.1).

Not modelled: huge mappings, which need 2 MiB; the ``vmap_area`` objects and the page tables of the vmalloc range, which
the kernel hardly ever frees (a page for 2 MiB of addresses); lazy unmapping, whose TLB flushes come in batches. What
mapping and unmapping cost is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import gfp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfw import Mm
    from mmfw.mm.slab import KmemCache

PAGE_SIZE: Final = 4096
#: Below this nothing is mapped by huge pages (``PMD_SIZE``).
PMD_SIZE: Final = 2 << 20
#: ``sizeof(struct vm_struct)`` of 6.1 on 64 bits, and of a pointer to a page.
VM_STRUCT_BYTES: Final = 72
_POINTER_BYTES: Final = 8
#: Finding and freeing a range of addresses, and the entry of one page; ns. Estimates: a microbenchmark in the kernel's
#: tree (lib/test_vmalloc.c) gives 1 to 3 us for a small area on present-day x86.
VMAP_AREA_NS: Final = 1_500
VMAP_PAGE_NS: Final = 30


@dataclass(frozen=True, slots=True)
class VmStruct:
    """An area of vmalloc's (``struct vm_struct``).

    Attributes
    ----------
    pfns : int64[]
        Its pages, by address.
    objects : tuple of (KmemCache, int)
        The struct itself and its array of page pointers, with their caches.
    """

    pfns: NDArray[np.int64]
    objects: tuple[tuple[KmemCache, int], ...]


class Vmalloc:
    """vmalloc of one machine.

    Parameters
    ----------
    mm : Mm
        Where pages come from.

    Attributes
    ----------
    nr_pages : int
        Pages of all areas (``nr_vmalloc_pages``).
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self.nr_pages = 0

    def vmalloc(self, size: int, gfp_mask: int) -> VmStruct | None:
        """An area of so many bytes (``__vmalloc_node_range()``), or None where the kernel returns NULL.

        Parameters
        ----------
        size : int
            1 to 2 MiB - 1.
        gfp_mask : int
            The caller's; pages are asked for with it one by one, from anywhere (``__GFP_HIGHMEM``), without a warning.
        """
        assert 0 < size < PMD_SIZE, f"{size} bytes would be mapped by huge pages"
        nr_pages = -(-size // PAGE_SIZE)
        mm = self._mm
        mm.charge(VMAP_AREA_NS, "vmalloc")
        nested = (gfp_mask & gfp.GFP_RECLAIM_MASK) | gfp.ZERO
        objects: list[tuple[KmemCache, int]] = []
        for nr_bytes, mask in ((VM_STRUCT_BYTES, nested), (nr_pages * _POINTER_BYTES, nested)):
            cache = mm.slab.kmalloc_slab(nr_bytes, mask)
            found = cache.kmem_cache_alloc(mask)
            if found < 0:
                return self._undo(objects)
            objects.append((cache, found))
        page_mask = gfp_mask | gfp.NOWARN
        if not page_mask & (gfp.DMA | gfp.DMA32):
            page_mask |= gfp.HIGHMEM
        pfns = mm.alloc_pages_batch(page_mask, 0, nr_pages)
        if len(pfns) < nr_pages:
            mm.free_pages_batch(pfns, 0)
            return self._undo(objects)
        mm.charge(nr_pages * VMAP_PAGE_NS, "vmalloc")
        self.nr_pages += nr_pages
        return VmStruct(pfns, tuple(objects))

    def vfree(self, area: VmStruct) -> None:
        """Unmap an area and free its pages one by one (``vfree()``)."""
        self._mm.charge(VMAP_AREA_NS + len(area.pfns) * VMAP_PAGE_NS, "vmalloc")
        self._mm.free_pages_batch(area.pfns, 0)
        self.nr_pages -= len(area.pfns)
        self._undo(area.objects)

    @staticmethod
    def _undo(objects: list[tuple[KmemCache, int]] | tuple[tuple[KmemCache, int], ...]) -> None:
        for cache, found in reversed(objects):
            cache.kmem_cache_free(found)
