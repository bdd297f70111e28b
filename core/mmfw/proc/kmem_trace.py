"""What the page allocator's tracepoints print (``TP_printk()`` of include/trace/events/kmem.h, 6.1).

`page` is the ``struct page`` as ``%p`` prints it: 16 hexadecimal digits of a hash, all 0 for NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from mmfw.proc.tracebody import Body


@dataclass(frozen=True, slots=True)
class PageFree(Body):
    """A block is freed."""

    event: ClassVar[str] = "mm_page_free"
    template: ClassVar[str] = "page={page} pfn={hex_pfn} order={order}"
    page: str
    hex_pfn: int
    order: int


@dataclass(frozen=True, slots=True)
class PageFreeBatched(Body):
    """A page of a list of pages is freed."""

    event: ClassVar[str] = "mm_page_free_batched"
    template: ClassVar[str] = "page={page} pfn={hex_pfn} order=0"
    page: str
    hex_pfn: int


@dataclass(frozen=True, slots=True)
class PageAlloc(Body):
    """A request is answered; NULL and pfn 0 if with nothing."""

    event: ClassVar[str] = "mm_page_alloc"
    template: ClassVar[str] = (
        "page={page} pfn={hex_pfn} order={order} migratetype={migratetype} gfp_flags={gfp_flags}"
    )
    page: str
    hex_pfn: int
    order: int
    migratetype: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class PageAllocZoneLocked(Body):
    """A block leaves the buddy lists; `percpu_refill` tells whether per-CPU lists could hold it."""

    event: ClassVar[str] = "mm_page_alloc_zone_locked"
    template: ClassVar[str] = (
        "page={page} pfn={hex_pfn} order={order} migratetype={migratetype} percpu_refill={percpu_refill}"
    )
    page: str
    hex_pfn: int
    order: int
    migratetype: int
    percpu_refill: int


@dataclass(frozen=True, slots=True)
class PagePcpuDrain(Body):
    """A block goes from a per-CPU list to the buddy lists."""

    event: ClassVar[str] = "mm_page_pcpu_drain"
    template: ClassVar[str] = "page={page} pfn={hex_pfn} order={order} migratetype={migratetype}"
    page: str
    hex_pfn: int
    order: int
    migratetype: int


@dataclass(frozen=True, slots=True)
class PageAllocExtfrag(Body):
    """A block is taken from another migratetype's list.

    Attributes
    ----------
    fragmenting : int
        1 if the block is smaller than a pageblock.
    change_ownership : int
        1 if its pageblock is of the wanted type afterwards.
    """

    event: ClassVar[str] = "mm_page_alloc_extfrag"
    template: ClassVar[str] = (
        "page={page} pfn={hex_pfn} alloc_order={alloc_order} fallback_order={fallback_order} "
        "pageblock_order={pageblock_order} alloc_migratetype={alloc_migratetype} "
        "fallback_migratetype={fallback_migratetype} fragmenting={fragmenting} "
        "change_ownership={change_ownership}"
    )
    page: str
    hex_pfn: int
    alloc_order: int
    fallback_order: int
    pageblock_order: int
    alloc_migratetype: int
    fallback_migratetype: int
    fragmenting: int
    change_ownership: int


KMEM_EVENTS: Final[tuple[type[Body], ...]] = (
    PageFree, PageFreeBatched, PageAlloc, PageAllocZoneLocked, PagePcpuDrain, PageAllocExtfrag,
)  # fmt: skip
