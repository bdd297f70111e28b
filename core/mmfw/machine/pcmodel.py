"""A PC from its RAM size alone: zones, the pages boot keeps, and memory as boot leaves it.

Modelled after the reference build (Linux 6.1.192, x86-64, one node) in a virtual machine:

- Up to 3 GiB of RAM lies below the PCI hole, the rest from 4 GiB on. Zone DMA is pfn 1..0xfff without
  the 97 pages before 1 MiB; DMA32 ends 35 pages (firmware tables) below the end of low memory, so at
  0xbffdd with 3 GiB or more; Normal starts at pfn 0x100000.
- ``managed`` is ``present`` less what boot reserves: in DMA 158 pages below 1 MiB; the kernel's image and
  early data (`RESERVED_LOW`, `RESERVED_HIGH`); a page of ``struct page`` for 64 pages, by whole sections;
  the dentry and inode hash tables (``alloc_large_system_hash()``, mm/page_alloc.c); `PERCPU_PAGES` for each
  CPU after the first; and, if RAM reaches past 4 GiB, 64 MiB of swiotlb with its slots.

The sum is an approximation fitted to that build. Against captures of 256M, 512M, 1G, 2G, 4G, 4G with four
CPUs, 8G and 16G its ``managed`` is exact in every zone but one: Normal at 16G is 2 pages too large.
Watermarks, protections and per-CPU list sizes follow from it by `mmfw.mm.sizing` and are exact in all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from mmfw.errors import InputError
from mmfw.gfp import PAGE_ALLOC_COSTLY_ORDER
from mmfw.machine.booted import DMA_PAGES, booted_dma_zone, booted_zone, zone_beside_boot
from mmfw.machine.image import LATE_FREED_PAGES
from mmfw.machine.layout import fresh_boot_zone
from mmfw.machine.pageblocks import PAGES_PER_SECTION, ZoneSpan
from mmfw.mm.sizing import NodeSizes, ZoneSizes, boot_sizes
from mmfw.rawrandom import IntArray
from mmfw.state import (
    MAX_NR_ZONES,
    MIGRATE_PCPTYPES,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    MigrateType,
    NodeState,
    PcpState,
    ZoneState,
    ZoneType,
)

#: Reserved pages near the kernel's image, and those that memblock takes from the top of memory.
RESERVED_LOW: Final = 7909
RESERVED_HIGH: Final = 564
#: ``pcpu_embed_first_chunk()``: pages of per-CPU data for a CPU.
PERCPU_PAGES: Final = 61
#: 64 MiB of bounce buffers and their slot tables (``swiotlb_init()``, kernel/dma/swiotlb.c).
SWIOTLB_PAGES: Final = 16384 + 194

_LOW_RAM_MAX: Final = 0xC0000
_FIRMWARE_PAGES: Final = 35
_DMA_END: Final = 0x1000
_DMA_FREE_START: Final = 0x100
_DMA32_END: Final = 0x100000
#: What stays of the kernel's image once boot is done, from its load address 16 MiB on.
_IMAGE_PAGES: Final = 5695
#: Pages of RAM of the captured machines, and pages in use of the zone that served boot.
_BOOT_RAM: Final = tuple((128 << 20 >> 12) << i for i in range(1, 8))
_BOOT_PAGES: Final = (7512, 7546, 7638, 7847, 8141, 8846, 9738)
_MIN_RAM: Final = (128 << 20) >> 12
_MAX_RAM: Final = (1 << 32) - _DMA32_END
_SIZE: Final = re.compile(r"([0-9]{1,9}) ?([KMGT])(?:i?B)?", re.ASCII | re.IGNORECASE)
_SHIFT: Final = {"K": 10, "M": 20, "G": 30, "T": 40}


def parse_ram_size(text: str) -> int | None:
    """Pages of a RAM size such as ``512M``, ``3G`` or ``1TiB``; None if the text is no size.

    Raises
    ------
    InputError
        A size that cannot be simulated: below 128 MiB, or not below 16 TiB.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    pages = (int(match[1]) << _SHIFT[match[2].upper()]) >> 12
    if not _MIN_RAM <= pages <= _MAX_RAM:
        raise InputError(f"machine {text!r}: RAM should be 128M..16383G")
    return pages


def _hash_table_pages(npages: int, scale: int) -> int:
    """Pages of one of the VFS hash tables, 8 bytes a bucket (``alloc_large_system_hash()``)."""
    entries = -(-npages // 256) * 256
    adapt = (64 << 30) >> 12
    while adapt < entries:
        scale += 1
        adapt <<= 2
    entries >>= scale - 12
    return (1 << max(entries - 1, 0).bit_length()) * 8 >> 12


def dma_pool_pages(ram_pages: int) -> int:
    """Pages that the atomic DMA pool takes of zone DMA, and of DMA32 if that is not the highest zone.

    128 KiB for each GiB of RAM, at least that, at most a block of order 10 (``dma_atomic_pool_init()``,
    kernel/dma/pool.c).
    """
    return min(max(DMA_PAGES, 1 << max((ram_pages >> 13).bit_length() - 1, 0)), 1 << 10)


def boot_zone_pages(ram_pages: int, nr_cpus: int) -> int:
    """Managed pages of the zone that serves boot in use on an idle system (slab, page tables, network hashes).

    As in the captures of 256M to 16G on one CPU, and between them by interpolation; 346 more for each
    further CPU, as in the one capture with four.
    """
    return int(np.interp(ram_pages, _BOOT_RAM, _BOOT_PAGES)) + 346 * (nr_cpus - 1)


def boot_allocated_pages(ram_pages: int, nr_cpus: int) -> int:
    """Managed pages in use on an idle system right after boot: what a machine from a RAM size lacks."""
    boot = boot_zone_pages(ram_pages, nr_cpus)
    normal = sum(span.managed for span in pc_zones(ram_pages, nr_cpus) if span.zone == ZoneType.NORMAL)
    pools = 2 if _serves_boot(normal, boot) else 1
    return boot + pools * dma_pool_pages(ram_pages)


def _serves_boot(managed_pages: int, boot_pages: int) -> bool:
    """Whether a zone is large enough to hold what boot allocates: the highest such zone does."""
    return boot_pages <= managed_pages // 2


def pc_zones(ram_pages: int, nr_cpus: int) -> tuple[ZoneSpan, ...]:
    """Populated zones of a PC with this much RAM.

    Parameters
    ----------
    ram_pages : int
        RAM, in pages.
    nr_cpus : int
        Online CPUs.
    """
    low = min(ram_pages, _LOW_RAM_MAX)
    high = ram_pages - low
    dma32 = low - _FIRMWARE_PAGES - _DMA_END
    memmap = (-(-low // PAGES_PER_SECTION) + -(-high // PAGES_PER_SECTION)) * (PAGES_PER_SECTION // 64)
    kernel_pages = ram_pages - memmap
    top = RESERVED_HIGH + memmap + PERCPU_PAGES * (nr_cpus - 1)
    top += _hash_table_pages(kernel_pages, 13) + _hash_table_pages(kernel_pages, 14)
    bottom = RESERVED_LOW + (SWIOTLB_PAGES if high else 0)
    in_normal = min(top, high)
    in_dma32 = bottom + top - in_normal
    dma_span = ZoneSpan(ZoneType.DMA, 1, _DMA_END - 1, _DMA_END - 98, _DMA_END - _DMA_FREE_START)
    spans = [dma_span]
    spanned = _DMA32_END - _DMA_END if high else dma32
    spans.append(ZoneSpan(ZoneType.DMA32, _DMA_END, spanned, dma32, max(dma32 - in_dma32, 0)))
    if high:
        spans.append(ZoneSpan(ZoneType.NORMAL, _DMA32_END, high, high, high - in_normal))
    return tuple(spans)


def _by_zone(spans: tuple[ZoneSpan, ...], late_freed: int = 0) -> list[int]:
    managed = [0] * MAX_NR_ZONES
    for span in spans:
        managed[span.zone] = span.managed
    managed[ZoneType.DMA32] -= late_freed
    return managed


@dataclass(frozen=True, slots=True)
class PcModel:
    """A PC described by its RAM size (see the module's text).

    Attributes
    ----------
    ram_pages : int
        RAM, in pages.
    nr_cpus : int
        Online CPUs.
    """

    ram_pages: int
    nr_cpus: int = 1

    @property
    def zones(self) -> tuple[ZoneSpan, ...]:
        """Populated zones."""
        return pc_zones(self.ram_pages, self.nr_cpus)

    @property
    def sizes(self) -> NodeSizes:
        """Watermarks, reserves and per-CPU list sizes as boot computes them."""
        zones = self.zones
        return boot_sizes(_by_zone(zones, LATE_FREED_PAGES), self.nr_cpus, nr_populated_zones=len(zones))

    @property
    def min_free_kbytes(self) -> int:
        """``vm.min_free_kbytes``."""
        return self.sizes.min_free_kbytes

    def node_state(self, seed: int) -> NodeState:
        """State right after boot; the same for every seed.

        `boot_allocated_pages` lie in the highest zone as `mmfw.machine.booted` says. The first CPU's lists
        hold what boot freed last.
        """
        del seed
        sizes = self.sizes
        absent = boot_zone_pages(self.ram_pages, self.nr_cpus)
        pool = dma_pool_pages(self.ram_pages)
        states: list[ZoneState] = []
        none = np.empty(0, dtype=np.int64)
        for span in reversed(self.zones):
            start = _first_managed(span)
            lru = np.empty(0, dtype=np.int64)
            unmovable: dict[int, IntArray] = {}
            taken = 0
            if span.zone == ZoneType.DMA:
                taken = pool
                zone_map = booted_dma_zone(span, start, pool)
            elif absent and _serves_boot(span.managed, absent):
                taken, absent = absent, 0
                booted = booted_zone(span, taken, sizes.zones[span.zone].pageset_high)
                zone_map, lru, unmovable = booted.zone_map, booted.lru_pfns, booted.pcp_unmovable
            elif span.zone == ZoneType.DMA32 and pool < span.managed // 2:
                taken = pool
                booted = zone_beside_boot(span, pool, sizes.zones[span.zone].pageset_high)
                zone_map, unmovable = booted.zone_map, booted.pcp_unmovable
            else:
                zone_map = fresh_boot_zone(span, [(start, start + span.managed)])
            size = sizes.zones[span.zone]
            marks = size.watermark
            states.append(
                ZoneState(
                    zone=int(span.zone),
                    start_pfn=span.start_pfn,
                    spanned=span.spanned,
                    present=span.present,
                    managed=span.managed,
                    watermark=(marks.min, marks.low, marks.high, marks.promo),
                    lowmem_reserve=size.lowmem_reserve,
                    vm_free=span.managed - taken - len(zone_map.pcp_pages) - _nr_pages(unmovable),
                    vm_free_cpu_diff=[0] * self.nr_cpus,
                    stat_threshold=[size.stat_threshold] * self.nr_cpus,
                    percpu_drift_mark=size.percpu_drift_mark,
                    pageset_high=size.pageset_high,
                    pageset_batch=size.pageset_batch,
                    pageblock_mt=zone_map.pageblock_mt,
                    pageblock_lru=_by_pageblock(span, lru),
                    lru_pfns=lru,
                    nr_free=zone_map.nr_free,
                    free_lists=zone_map.free_lists,
                    pcp=[
                        _pcp_state(size, zone_map.pcp_pages, unmovable)
                        if cpu == 0
                        else _pcp_state(size, none, {})
                        for cpu in range(self.nr_cpus)
                    ],
                )
            )
        return NodeState(
            zones=states[::-1],
            nr_cpus=self.nr_cpus,
            totalreserve_pages=sizes.totalreserve_pages,
            min_free_kbytes=sizes.min_free_kbytes,
            page_group_by_mobility_disabled=sizes.page_group_by_mobility_disabled,
        )


def _by_pageblock(span: ZoneSpan, pfns: IntArray) -> IntArray:
    """(block index, pages) of the blocks of a zone that hold these pages."""
    blocks, counts = np.unique((pfns - span.first_block_pfn) // PAGEBLOCK_NR_PAGES, return_counts=True)
    return np.stack([blocks, counts], axis=1).astype(np.int64)


def _nr_pages(blocks: dict[int, IntArray]) -> int:
    """Pages of blocks listed by order."""
    return sum(len(pfns) << order for order, pfns in blocks.items())


def _pcp_state(size: ZoneSizes, movable: IntArray, unmovable: dict[int, IntArray]) -> PcpState:
    """A CPU's lists with single Movable pages and Unmovable blocks on them, list head first."""
    count = len(movable) + _nr_pages(unmovable)
    pcp = PcpState(count=count, high=size.pageset_high, batch=size.pageset_batch)
    pcp.lists[MigrateType.MOVABLE] = (movable, np.full(len(movable), MigrateType.MOVABLE, dtype=np.int64))
    for order, pfns in unmovable.items():
        kinds = np.full(len(pfns), MigrateType.UNMOVABLE, dtype=np.int64)
        # order_to_pindex(): a pageblock's lists follow those of orders 0 to PAGE_ALLOC_COSTLY_ORDER.
        row = PAGE_ALLOC_COSTLY_ORDER + 1 if order == PAGEBLOCK_ORDER else order
        at = MIGRATE_PCPTYPES * row + MigrateType.UNMOVABLE
        pcp.lists[at] = (pfns, kinds)
    return pcp


def _first_managed(span: ZoneSpan) -> int:
    """First managed pfn of a zone, whose managed pages are taken to be one range."""
    if span.zone == ZoneType.DMA:
        return _DMA_FREE_START
    if span.zone == ZoneType.DMA32:
        return span.start_pfn + min(_IMAGE_PAGES, span.present - span.managed)
    return span.start_pfn
