"""What boot gives back of the kernel's image and of the initrd, and where in memory it lies.

All pfns are those of the reference build (6.1.192, Debian's cloud image, no KASLR), whose image begins at 16 MiB, in
pageblock 0 of zone DMA32. All its allocator traces agree on them, and its log on the sizes: text/rodata gap 2040K,
rodata/data gap 1892K, initmem 2612K, decrypted 2036K, SMP alternatives 36K, initrd 1704K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mmfw.machine.pageblocks import ZoneSpan
from mmfw.rawrandom import IntArray
from mmfw.state import PAGEBLOCK_NR_PAGES

#: Pages that boot frees after it has set watermarks: initrd and unused parts of the image, all in DMA32.
LATE_FREED_PAGES: Final = 2571
#: Blocks that the image and early boot take, and pages that they take of the next one.
LOW_BLOCKS: Final = 20
LOW_REST: Final = 17
#: Parts of the image that boot gives back late: (block, first page, end).
_TEXT_GAP: Final = (7, 2, 512)
_DATA_GAP: Final = (12, 39, 512)
_INITMEM: Final = ((16, 26, 512), (17, 0, 167))
_DECRYPTED: Final = (19, 3, 512)
#: What it gives back first, and so the first pages that the initramfs is unpacked to.
_ALTERNATIVES: Final = (17, 167, 176)
#: Pages at the end of what boot gives back last that the first processes hold, where the initramfs lies there too.
_PROCESS_PAGES: Final = 19
#: The initrd's pages, and present pages above them.
INITRD_PAGES: Final = 426
_ABOVE_INITRD: Final = 13
#: A list too short for all that boot gives back holds the ends of those parts, below 8 or 32 pages each, and what the
#: processes left of the last one: (block, first page, end), the last first. So pagetypeinfo of 256M and 512M, where no
#: free block but these is missing, and the first trace of 256M.
_KEPT: Final = ((12, 480, 512), (12, 39, 40), (7, 2, 8), (17, 160, 167), (16, 26, 32), (19, 3, 8))

PageRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Pages that boot gave back.

    Attributes
    ----------
    free : list of (int, int)
        First pfn and end of the ranges that are free, on the buddy lists or a CPU's, ascending.
    listed : int64[n]
        Those on the first CPU's list, its head first.
    lru : list of (int, int)
        Ranges that are on the LRU: the initramfs's first pages and the first processes'.
    """

    free: list[PageRange]
    listed: IntArray
    lru: list[PageRange]

    @property
    def nr_free(self) -> int:
        """Pages of `free`."""
        return nr_pages(self.free)

    @property
    def in_buddy(self) -> list[PageRange]:
        """Ranges that are free and on no CPU's list, which holds whole ranges, starts and ends of them."""
        held = set(self.listed.tolist())
        left = []
        for low, high in self.free:
            while high > low and low in held:
                low += 1
            while high > low and high - 1 in held:
                high -= 1
            if high > low:
                left.append((low, high))
        return left


def nr_pages(ranges: list[PageRange]) -> int:
    """Pages of ranges given by first pfn and end."""
    return sum(last - first for first, last in ranges)


def initrd(span: ZoneSpan) -> PageRange:
    """First pfn and end of the initrd, which lies at the end of the low memory."""
    end = span.start_pfn + span.present - _ABOVE_INITRD
    return end - INITRD_PAGES, end


def given_back(span: ZoneSpan, pcp_high: int, *, initramfs: bool, initrd_free: bool) -> GivenBack:
    """What boot gave back in DMA32.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    pcp_high : int
        Pages that a CPU's list may hold: it keeps them all if it is that long.
    initramfs : bool
        Whether the zone served boot, so that the initramfs and the first processes took some of the pages again.
    initrd_free : bool
        Whether the initrd's pages are still free.
    """
    base = span.first_block_pfn
    parts = [_pfns(base, part) for part in (_DECRYPTED, *_INITMEM, _TEXT_GAP, _DATA_GAP)]
    # A list's end is what was freed first.
    early = [_pfns(base, _ALTERNATIVES), *([initrd(span)] if initrd_free else [])]
    lru: list[PageRange] = []
    in_use = 0
    if initramfs:
        first, last = parts[-1]
        in_use = _PROCESS_PAGES
        lru = [early.pop(0), (last - in_use, last)]
        parts[-1] = first, last - in_use
    ranges = [*early, *parts]
    kept = ranges[::-1]
    if pcp_high <= LATE_FREED_PAGES:
        kept = [_pfns(base, part) for part in _KEPT]
        kept[0] = kept[0][0], kept[0][1] - in_use
    listed = np.concatenate([np.arange(high - 1, low - 1, -1) for low, high in kept])
    return GivenBack(sorted(ranges), listed, lru)


def _pfns(base: int, part: tuple[int, int, int]) -> PageRange:
    """First pfn and end of a part of the image."""
    at, low, high = part
    return base + at * PAGEBLOCK_NR_PAGES + low, base + at * PAGEBLOCK_NR_PAGES + high
