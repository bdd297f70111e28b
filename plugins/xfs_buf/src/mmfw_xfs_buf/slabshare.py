"""Objects of one slab cache in the ledger: what losing them gave back, and what needing them again cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw_xfs_buf.types import PAGE_SIZE

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.slab import KmemCache


class SlabShare:
    """A subsystem whose objects are a slab cache's.

    Pages evicted are those of slabs that really went. Pages recreated are the objects' bytes, whole pages of them, for
    what slab an object comes to lie in says nothing about it.

    Parameters
    ----------
    mm : Mm
        Whose ledger.
    subsystem : str
        Its name there.
    cache : KmemCache
        The cache.
    """

    def __init__(self, mm: Mm, subsystem: str, cache: KmemCache) -> None:
        self._ledger = mm.ledger
        self._subsystem = subsystem
        self._cache = cache
        self._bytes_recreated = 0
        self._ledger.hold(subsystem, lambda: cache.nr_pages)

    def free_evicted(self, objects: NDArray[np.int64]) -> None:
        """Free objects because memory is wanted."""
        pfns = self._cache.kmem_cache_free_reclaimed(objects)
        self._ledger.evicted(self._subsystem, nr_objects=len(objects), nr_pages=len(pfns), pfns=pfns)

    def recreated(self, age_ns: int) -> None:
        """Say that one object was needed again, `age_ns` after it went."""
        self._bytes_recreated += self._cache.geometry.size
        pages, self._bytes_recreated = divmod(self._bytes_recreated, PAGE_SIZE)
        self._ledger.recreated(self._subsystem, nr_objects=1, nr_pages=pages, age_ns=age_ns)
