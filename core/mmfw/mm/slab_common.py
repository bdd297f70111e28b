"""All slab caches of a machine: creating and destroying them, and kmalloc's (mm/slab_common.c of 6.1).

Caches are not merged (``slab_nomerge``): each plugin's objects lie by themselves. The caches behind caches, of
``struct kmem_cache`` and ``struct kmem_cache_node``, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.jit import page as pg
from mmfw.jit import slab_lists as jit
from mmfw.mm.list_lru import ListLru
from mmfw.mm.sanitize import CorruptMemory
from mmfw.mm.slab import KmemCache
from mmfw.mm.slab_check import check_store
from mmfw.mm.slab_sizes import (
    KMALLOC_MAX_SIZE,
    PAGE_SIZE,
    SLAB_ACCOUNT,
    SLAB_CACHE_DMA,
    SLAB_HWCACHE_ALIGN,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
    SlubParams,
    calculate_sizes,
    get_order,
)

if TYPE_CHECKING:
    from mmfw.mm.slab_host import SlabHost
    from mmfw.mm.slab_store import SlabInfo
    from mmfw.rawrandom import Rng

#: Largest size that has a cache; what is larger goes to the page allocator.
KMALLOC_MAX_CACHE_SIZE: Final = 2 * PAGE_SIZE
#: Sizes of kmalloc's caches.
KMALLOC_SIZES: Final = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


class SlabAllocator:
    """The slab caches of one machine.

    Parameters
    ----------
    host : SlabHost
        Pages, clock and costs.
    rng : callable
        ``rng(name)`` gives a random stream.
    params : SlubParams, optional
        Boot parameters.

    Attributes
    ----------
    SLAB_RECLAIM_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_ACCOUNT, SLAB_TYPESAFE_BY_RCU, SLAB_CACHE_DMA : int
        Flags of a cache.
    """

    SLAB_RECLAIM_ACCOUNT: Final = SLAB_RECLAIM_ACCOUNT
    SLAB_HWCACHE_ALIGN: Final = SLAB_HWCACHE_ALIGN
    SLAB_ACCOUNT: Final = SLAB_ACCOUNT
    SLAB_TYPESAFE_BY_RCU: Final = SLAB_TYPESAFE_BY_RCU
    SLAB_CACHE_DMA: Final = SLAB_CACHE_DMA

    def __init__(self, host: SlabHost, rng: Callable[[str], Rng], params: SlubParams | None = None) -> None:
        self._host = host
        self._rng = rng
        self._params = params
        self._memory = host.freelist.memory
        self._caches: dict[str, KmemCache] = {}
        self._names: dict[int, str] = {}
        self._kmalloc: set[str] = set()
        self._nr_large_pages = 0

    @property
    def caches(self) -> tuple[KmemCache, ...]:
        """Caches that exist, in order of creation."""
        return tuple(self._caches.values())

    def kmem_cache_create(
        self, name: str, size: int, align: int = 0, flags: int = 0, *, ctor: bool = False
    ) -> KmemCache:
        """Make a cache (``kmem_cache_create()``).

        Parameters
        ----------
        name : str
            As /proc/slabinfo is to show it.
        size : int
            Bytes of an object.
        align : int
            Alignment, 0 for none.
        flags : int
            ``SLAB_*`` bits; `SLAB_RECLAIM_ACCOUNT` for what a shrinker frees.
        ctor : bool
            Whether its objects have a constructor; that makes each a word larger.

        Raises
        ------
        CallerError
            There is a cache of that name, or none can be like this.
        """
        if name in self._caches:
            raise CallerError(f"kmem_cache_create(): there is a cache {name!r} already")
        geometry = calculate_sizes(
            size, align=align, flags=flags, ctor=ctor, nr_cpus=self._memory.nr_cpus, params=self._params
        )
        cache_id = len(self._names) + 1
        self._names[cache_id] = name
        cache = KmemCache(self._host, self._names, cache_id, geometry, flags, self._rng(f"slab {name}"))
        self._caches[name] = cache
        return cache

    def kmem_cache_destroy(self, cache: KmemCache) -> None:
        """Free a cache's slabs and forget it (``kmem_cache_destroy()``).

        Raises
        ------
        CallerError
            Objects of it are in use; then the cache stays.
        """
        if self._caches.get(cache.name) is not cache:
            raise CallerError(f"kmem_cache_destroy() of {cache.name}, which was destroyed")
        if not cache.shutdown():
            raise CallerError(
                f"kmem_cache_destroy() of {cache.name}: Slab cache still has objects, {cache.nr_objects} of them"
            )
        del self._caches[cache.name]

    def list_lru(self) -> ListLru:
        """An LRU for the objects of a cache, by their places (``list_lru_init()``)."""
        return ListLru()

    def slabinfo(self) -> tuple[SlabInfo, ...]:
        """/proc/slabinfo; the newest cache first, as there."""
        return tuple(cache.slabinfo() for cache in reversed(self.caches))

    def cache_of(self, pfn: int) -> KmemCache | None:
        """The cache whose slab a page heads (``folio_slab(folio)->slab_cache``), or None."""
        return next((cache for cache in self.caches if cache.store.slot_of_pfn(pfn)), None)

    def validate(self) -> None:
        """Check every cache, and the node's counters of slab pages.

        Raises
        ------
        CorruptMemory
            Something is broken; says what.
        """
        pages = {pg.NS_SLAB_RECLAIMABLE: 0, pg.NS_SLAB_UNRECLAIMABLE: self._nr_large_pages}
        for cache in self.caches:
            pages[int(cache.store.C[jit.K_NODE_STAT])] += check_store(cache.name, cache.store, self._memory)
        for item, expected in pages.items():
            counted = int(self._memory.S[pg.S_NODE_STAT + item])
            if counted != expected:
                raise CorruptMemory(f"node counter {item}: {counted} slab pages, the caches hold {expected}")

    # --- kmalloc --------------------------------------------------------------------------------------

    def kmalloc_slab(self, size: int, gfp_mask: int) -> KmemCache:
        """The cache that serves a size and mask (``kmalloc_slab()``); made at its first use.

        Raises
        ------
        CallerError
            The size is 0 or above KMALLOC_MAX_CACHE_SIZE.
        """
        if not 0 < size <= KMALLOC_MAX_CACHE_SIZE:
            raise CallerError(f"kmalloc caches hold 1 to {KMALLOC_MAX_CACHE_SIZE} bytes, not {size}")
        size = next(each for each in KMALLOC_SIZES if each >= size)
        kind, flags = _kmalloc_type(gfp_mask)
        text = f"{size // 1024}k" if size >= 1024 else str(size)
        name = f"{kind}-{text}"
        cache = self._caches.get(name)
        if cache is None:
            # A power of two is aligned to itself.
            cache = self.kmem_cache_create(name, size, 0 if size & (size - 1) else size, flags)
            self._kmalloc.add(name)
        return cache

    def shrink_kmalloc_caches(self) -> None:
        """Shrink kmalloc's caches, which nobody destroys; a take-down then finds only what was not freed."""
        for cache in self.caches:
            if cache.name in self._kmalloc:
                cache.kmem_cache_shrink()

    def kmalloc_large(self, size: int, gfp_mask: int) -> int:
        """Pages for a size that no cache holds (``kmalloc_large()``).

        Returns
        -------
        int
            First pfn, or -1.

        Raises
        ------
        CallerError
            The size is 0 or larger than a block.
        """
        if not 0 < size <= KMALLOC_MAX_SIZE:
            raise CallerError(f"kmalloc() of {size} bytes; 1 to {KMALLOC_MAX_SIZE} are possible")
        order = get_order(size)
        pfn = self._host.allocator.alloc_pages(gfp_mask | gfp.COMP, order)
        if pfn >= 0:
            self._account_large(1 << order)
        return pfn

    def free_large_kmalloc(self, pfn: int, size: int) -> None:
        """Free what `kmalloc_large` gave (``free_large_kmalloc()``)."""
        order = get_order(size)
        self._host.allocator.free_pages(pfn, order)
        self._account_large(-(1 << order))

    def _account_large(self, nr_pages: int) -> None:
        self._nr_large_pages += nr_pages
        self._memory.S[pg.S_NODE_STAT + pg.NS_SLAB_UNRECLAIMABLE] += nr_pages


def _kmalloc_type(gfp_mask: int) -> tuple[str, int]:
    """Name and flags of the caches that serve a mask (``kmalloc_type()``, ``new_kmalloc_cache()``)."""
    if gfp_mask & gfp.DMA:
        return "dma-kmalloc", SLAB_CACHE_DMA
    if gfp_mask & gfp.RECLAIMABLE:
        return "kmalloc-rcl", SLAB_RECLAIM_ACCOUNT
    if gfp_mask & gfp.ACCOUNT:
        return "kmalloc-cg", SLAB_ACCOUNT
    return "kmalloc", 0
