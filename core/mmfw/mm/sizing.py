"""How the kernel sizes watermarks, reserves and per-CPU lists: each formula a function of integers.

All of them truncate as C does. Sizes are in pages unless a name says KiB. The callers decide *when*
each runs; that order matters, because boot computes some figures before it has freed all memory;
`boot_sizes` runs them in boot's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Final, NamedTuple

from mmfw.state import MAX_NR_ZONES, MIGRATE_PCPTYPES, MIGRATE_TYPES, PAGEBLOCK_NR_PAGES, ZoneType

PAGE_SHIFT: Final = 12
#: KiB in a page, as a shift.
PAGE_KB_SHIFT: Final = PAGE_SHIFT - 10
#: ``sysctl_lowmem_reserve_ratio``, by zone index.
LOWMEM_RESERVE_RATIO: Final = (256, 256, 32, 0, 0)
#: ``watermark_scale_factor``, in ten-thousandths of a zone.
WATERMARK_SCALE_FACTOR: Final = 10
#: Below this, in pages, ``hugepage_init()`` (mm/huge_memory.c) leaves THP and khugepaged off: 512 MiB.
HUGEPAGE_MIN_TOTALRAM_PAGES: Final = 512 << (20 - PAGE_SHIFT)


class Watermarks(NamedTuple):
    """``zone->_watermark[]``: pages, without boost."""

    min: int
    low: int
    high: int
    promo: int


def mult_frac(x: int, numer: int, denom: int) -> int:
    """``mult_frac()`` (include/linux/math.h): x * numer / denom, in the kernel's two steps."""
    return (x // denom) * numer + ((x % denom) * numer) // denom


def fls(x: int) -> int:
    """``fls()``: number of the highest bit set, counted from 1; 0 for 0."""
    return x.bit_length()


def nr_free_buffer_pages(managed: Sequence[int], high: Sequence[int]) -> int:
    """Pages above the high watermark in GFP_USER's zones (``nr_free_zone_pages()``, mm/page_alloc.c).

    Parameters
    ----------
    managed, high : sequence of int
        By zone index: ``managed_pages`` and the high watermark (0 before watermarks are set), in pages.
    """
    zones = zip(managed[: ZoneType.NORMAL + 1], high[: ZoneType.NORMAL + 1], strict=True)
    return sum(size - mark for size, mark in zones if size > mark)


def calculate_min_free_kbytes(
    nr_free_buffer: int, user_min_free_kbytes: int = -1, min_free_kbytes: int = 1024
) -> int:
    """``vm.min_free_kbytes`` in KiB that boot chooses (``calculate_min_free_kbytes()``, mm/page_alloc.c).

    Parameters
    ----------
    nr_free_buffer : int
        `nr_free_buffer_pages`, in pages.
    user_min_free_kbytes : int
        What the administrator wrote, -1 for nothing.
    min_free_kbytes : int
        Present value, kept where the administrator's is larger than the formula's.
    """
    new = isqrt((nr_free_buffer << PAGE_KB_SHIFT) * 16)
    if new <= user_min_free_kbytes:
        return min_free_kbytes
    return min(max(new, 128), 262144)


def set_recommended_min_free_kbytes(
    min_free_kbytes: int, nr_populated_zones: int, nr_free_buffer: int
) -> int:
    """``vm.min_free_kbytes`` in KiB once khugepaged runs (``set_recommended_min_free_kbytes()``).

    Source: mm/khugepaged.c.

    Parameters
    ----------
    min_free_kbytes : int
        Present value; never lowered.
    nr_populated_zones : int
        Populated zones up to Normal.
    nr_free_buffer : int
        `nr_free_buffer_pages` with the high watermarks then in force, in pages.
    """
    recommended = PAGEBLOCK_NR_PAGES * nr_populated_zones * 2
    recommended += PAGEBLOCK_NR_PAGES * nr_populated_zones * MIGRATE_PCPTYPES * MIGRATE_PCPTYPES
    recommended = min(recommended, nr_free_buffer // 20)
    return max(min_free_kbytes, recommended << PAGE_KB_SHIFT)


def setup_per_zone_wmarks(
    min_free_kbytes: int, managed: Sequence[int], watermark_scale_factor: int = WATERMARK_SCALE_FACTOR
) -> tuple[Watermarks, ...]:
    """Watermarks of every zone, by zone index (``__setup_per_zone_wmarks()``, mm/page_alloc.c).

    Parameters
    ----------
    min_free_kbytes : int
        ``vm.min_free_kbytes``.
    managed : sequence of int
        ``managed_pages`` by zone index; x86-64 has no highmem, so that all of them are lowmem.
    watermark_scale_factor : int
        ``vm.watermark_scale_factor``.
    """
    pages_min = min_free_kbytes >> PAGE_KB_SHIFT
    lowmem_pages = sum(managed)
    marks = []
    for size in managed:
        minimum = pages_min * size // lowmem_pages if lowmem_pages else 0
        step = max(minimum >> 2, mult_frac(size, watermark_scale_factor, 10000))
        low = minimum + step
        high = low + step
        marks.append(Watermarks(minimum, low, high, high + step))
    return tuple(marks)


def setup_per_zone_lowmem_reserve(
    managed: Sequence[int], ratio: Sequence[int] = LOWMEM_RESERVE_RATIO
) -> tuple[tuple[int, ...], ...]:
    """``lowmem_reserve[]`` of every zone (``setup_per_zone_lowmem_reserve()``, mm/page_alloc.c).

    Parameters
    ----------
    managed : sequence of int
        ``managed_pages`` by zone index, `MAX_NR_ZONES` values.
    ratio : sequence of int
        ``vm.lowmem_reserve_ratio``.
    """
    rows = []
    for i in range(MAX_NR_ZONES):
        row = [0] * MAX_NR_ZONES
        above = 0
        for j in range(i + 1, MAX_NR_ZONES):
            above += managed[j]
            # The kernel's loop stops before the last zone's own ratio is ever used: it has nothing above it.
            row[j] = above // ratio[i] if ratio[i] >= 1 and managed[i] else 0
        rows.append(tuple(row))
    return tuple(rows)


def calculate_totalreserve_pages(
    managed: Sequence[int], high: Sequence[int], lowmem_reserve: Sequence[Sequence[int]]
) -> int:
    """``totalreserve_pages`` (``calculate_totalreserve_pages()``, mm/page_alloc.c).

    Parameters
    ----------
    managed, high : sequence of int
        By zone: ``managed_pages`` and the high watermark.
    lowmem_reserve : sequence of sequence of int
        By zone: its protection.
    """
    zones = zip(managed, high, lowmem_reserve, strict=True)
    return sum(min(size, max(reserve) + mark) for size, mark, reserve in zones)


def zone_batchsize(managed: int) -> int:
    """``pcp->batch`` of a zone, in pages (``zone_batchsize()``, mm/page_alloc.c, 6.1).

    Examples
    --------
    >>> [zone_batchsize(n) for n in (3840, 51812, 116228, 245060)]
    [1, 15, 31, 63]
    """
    batch = max(min(managed >> 10, (1024 * 1024) >> PAGE_SHIFT) // 4, 1)
    rounded = 1 << (fls(batch + batch // 2) - 1)
    return max(rounded - 1, 1)


def zone_highsize(
    managed: int,
    low_wmark: int,
    batch: int,
    nr_cpus: int,
    percpu_pagelist_high_fraction: int = 0,
) -> int:
    """``pcp->high`` of a zone, in pages (``zone_highsize()``, mm/page_alloc.c, 6.1).

    Parameters
    ----------
    managed : int
        ``managed_pages``.
    low_wmark : int
        Low watermark, boost included.
    batch : int
        `zone_batchsize`.
    nr_cpus : int
        CPUs of the zone's node, or all online CPUs if it has none; inside the CPU-online callback, one more.
    percpu_pagelist_high_fraction : int
        ``vm.percpu_pagelist_high_fraction``.
    """
    fraction = percpu_pagelist_high_fraction
    total = managed // fraction if fraction else low_wmark
    return max(total // nr_cpus, batch << 2)


def calculate_normal_threshold(managed: int, nr_cpus: int) -> int:
    """Size, in pages, at which a per-CPU counter folds (``calculate_normal_threshold()``, mm/vmstat.c).

    Parameters
    ----------
    managed : int
        ``managed_pages``.
    nr_cpus : int
        Online CPUs.
    """
    mem = managed >> (27 - PAGE_SHIFT)
    return min(125, 2 * fls(nr_cpus) * (1 + fls(mem)))


def calculate_pressure_threshold(low_wmark: int, min_wmark: int, nr_cpus: int) -> int:
    """The same while kswapd is awake (``calculate_pressure_threshold()``, mm/vmstat.c).

    Parameters
    ----------
    low_wmark, min_wmark : int
        Watermarks, in pages.
    nr_cpus : int
        Online CPUs.
    """
    return min(125, max(1, (low_wmark - min_wmark) // nr_cpus))


def percpu_drift_mark(marks: Watermarks, threshold: int, nr_cpus: int) -> int:
    """``zone->percpu_drift_mark``, in pages (``refresh_zone_stat_thresholds()``, mm/vmstat.c).

    Below it, a watermark check sums the CPUs' private counts; 0 means that they cannot hide enough to matter.

    Parameters
    ----------
    marks : Watermarks
        The zone's watermarks.
    threshold : int
        `calculate_normal_threshold`.
    nr_cpus : int
        Online CPUs.
    """
    max_drift = nr_cpus * threshold
    return marks.high + max_drift if max_drift > marks.low - marks.min else 0


def page_group_by_mobility_disabled(managed: Sequence[int], high: Sequence[int]) -> bool:
    """Whether too little memory turns mobility grouping off (``build_all_zonelists()``, mm/page_alloc.c).

    Parameters
    ----------
    managed, high : sequence of int
        By zone: ``managed_pages``, and the high watermark, which is 0 when boot asks.
    """
    vm_total_pages = sum(size - mark for size, mark in zip(managed, high, strict=True) if size > mark)
    return vm_total_pages < PAGEBLOCK_NR_PAGES * MIGRATE_TYPES


@dataclass(frozen=True, slots=True)
class ZoneSizes:
    """What boot computes for one zone; pages. Every field carries the kernel's name for it."""

    watermark: Watermarks
    lowmem_reserve: tuple[int, ...]
    pageset_high: int
    pageset_batch: int
    stat_threshold: int
    percpu_drift_mark: int


@dataclass(frozen=True, slots=True)
class NodeSizes:
    """What boot computes for a node: KiB kept free, pages in reserve, and `MAX_NR_ZONES` zones."""

    min_free_kbytes: int
    totalreserve_pages: int
    page_group_by_mobility_disabled: bool
    zones: tuple[ZoneSizes, ...]


def boot_sizes(
    managed: Sequence[int], nr_cpus: int, *, nr_populated_zones: int, transparent_hugepage: bool = True
) -> NodeSizes:
    """Run boot's formulas in boot's order: ``init_per_zone_wmark_min()``, then khugepaged's start.

    Parameters
    ----------
    managed : sequence of int
        ``managed_pages`` by zone index, `MAX_NR_ZONES` values, as they are *before* boot frees the initrd
        and the unused parts of the kernel's image.
    nr_cpus : int
        Online CPUs.
    nr_populated_zones : int
        Zones up to Normal that have present pages.
    transparent_hugepage : bool
        Whether THP is built and not disabled on the command line; under 512 MiB it stays off regardless.
    """
    no_marks = (0,) * len(managed)
    minimum = calculate_min_free_kbytes(nr_free_buffer_pages(managed, no_marks))
    boot_marks = setup_per_zone_wmarks(minimum, managed)
    thresholds = tuple(calculate_normal_threshold(size, nr_cpus) for size in managed)
    # refresh_zone_stat_thresholds() is not run again when khugepaged raises the watermarks.
    drift = tuple(
        percpu_drift_mark(marks, threshold, nr_cpus)
        for marks, threshold in zip(boot_marks, thresholds, strict=True)
    )
    if transparent_hugepage and sum(managed) >= HUGEPAGE_MIN_TOTALRAM_PAGES:
        available = nr_free_buffer_pages(managed, [marks.high for marks in boot_marks])
        minimum = set_recommended_min_free_kbytes(minimum, nr_populated_zones, available)
    marks = setup_per_zone_wmarks(minimum, managed)
    reserve = setup_per_zone_lowmem_reserve(managed)
    zones = []
    for index, size in enumerate(managed):
        batch = zone_batchsize(size)
        high = zone_highsize(size, marks[index].low, batch, nr_cpus)
        zones.append(ZoneSizes(marks[index], reserve[index], high, batch, thresholds[index], drift[index]))
    total = calculate_totalreserve_pages(managed, [mark.high for mark in marks], reserve)
    grouping_off = page_group_by_mobility_disabled(managed, no_marks)
    return NodeSizes(minimum, total, grouping_off, tuple(zones))
