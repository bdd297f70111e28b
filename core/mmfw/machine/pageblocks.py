"""Where a zone lies, which of its pages are present, and the migratetype of each of its pageblocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError
from mmfw.rawrandom import Rng
from mmfw.state import (
    MIGRATE_TYPES,
    PAGEBLOCK_ABSENT,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    ZONE_NAMES,
    MigrateType,
)

#: Pages of a memory section (``PAGES_PER_SECTION``, x86-64): memory exists in the page map by sections.
PAGES_PER_SECTION: Final = 1 << 15
#: First pfn past the PC's hole for video memory and BIOS, 640 KiB..1 MiB.
_ISA_HOLE_END: Final = 0x100


@dataclass(frozen=True, slots=True)
class ZoneSpan:
    """Where a zone lies (``struct zone``); pages and pfns.

    Attributes
    ----------
    zone : int
        Index, a `mmfw.state.ZoneType`.
    start_pfn, spanned, present, managed : int
        As in the kernel.
    """

    zone: int
    start_pfn: int
    spanned: int
    present: int
    managed: int

    @property
    def name(self) -> str:
        """Zone name as /proc prints it."""
        return ZONE_NAMES[self.zone]

    @property
    def first_block_pfn(self) -> int:
        """First pfn of the pageblock that holds `start_pfn`."""
        return self.start_pfn & -PAGEBLOCK_NR_PAGES

    @property
    def nr_span_blocks(self) -> int:
        """Pageblocks the span touches."""
        return -(-(self.start_pfn + self.spanned - self.first_block_pfn) // PAGEBLOCK_NR_PAGES)

    def present_ranges(self) -> tuple[tuple[int, int], ...]:
        """Present pfns as half-open ranges.

        /proc tells how many pages a zone lacks, not where. In a zone that starts below 1 MiB the hole is
        the PC's, which ends at 1 MiB; in any other it is taken to be at the end, as below the PCI hole.
        """
        end = self.start_pfn + self.spanned
        hole = self.spanned - self.present
        if hole and self.start_pfn < _ISA_HOLE_END - hole and end > _ISA_HOLE_END:
            return ((self.start_pfn, _ISA_HOLE_END - hole), (_ISA_HOLE_END, end))
        return ((self.start_pfn, end - hole),) if self.present else ()


def pageblock_types(
    span: ZoneSpan,
    blocks: Sequence[int] | None,
    rng: Rng,
    *,
    file: str | None = None,
    line: int | None = None,
) -> NDArray[np.uint8]:
    """Give each pageblock of a zone a migratetype.

    Without counts it is boot's (``memmap_init_range()``, mm/page_alloc.c): Movable where the block's
    first pfn is present, else Unmovable. With counts, blocks whose first pfn is absent take Unmovable
    first; the rest is dealt out at random in pairs that an order-10 block can cover.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    blocks : sequence of int, optional
        Pageblocks by migratetype.
    rng : Rng
        Source of chance.
    file, line
        Where the counts stand, for messages.

    Raises
    ------
    InputError
        More blocks than the span has, or fewer than the present pages need.
    """
    total = span.nr_span_blocks
    types = np.full(total, PAGEBLOCK_ABSENT, dtype=np.uint8)
    ranges = span.present_ranges()
    end = ranges[-1][1] if ranges else span.start_pfn
    base = span.first_block_pfn
    needed = -(-(end - base) // PAGEBLOCK_NR_PAGES)
    sections_end = -(-end // PAGES_PER_SECTION) * PAGES_PER_SECTION
    present = np.zeros(total, dtype=np.bool_)
    for low, high in ranges:
        present[-(-(low - base) // PAGEBLOCK_NR_PAGES) : -(-(high - base) // PAGEBLOCK_NR_PAGES)] = True
    if blocks is None:
        known = min(total, (sections_end - base) // PAGEBLOCK_NR_PAGES) if ranges else 0
        types[:known] = np.where(present[:known], MigrateType.MOVABLE, MigrateType.UNMOVABLE)
        return types
    known = sum(blocks)
    if not needed <= known <= total:
        raise InputError(
            f"zone {span.name} has {known} pageblocks by type, but its span has {total} and its present"
            f" pages need at least {needed}",
            file=file,
            line=line,
        )
    left = list(blocks)
    absent = np.flatnonzero(~present[:known])[: left[MigrateType.UNMOVABLE]]
    types[absent] = MigrateType.UNMOVABLE
    left[MigrateType.UNMOVABLE] -= len(absent)
    open_blocks = types[:known] == PAGEBLOCK_ABSENT
    parity = (base >> PAGEBLOCK_ORDER) & 1
    lower = np.arange(parity, known - 1, 2, dtype=np.int64)
    lower = lower[open_blocks[lower] & open_blocks[lower + 1]]
    whole = rng.shuffled(np.repeat(np.arange(MIGRATE_TYPES, dtype=np.int64), [n // 2 for n in left]))
    whole = whole[: len(lower)]
    lower = rng.shuffled(lower)
    types[lower[: len(whole)]] = whole
    types[lower[: len(whole)] + 1] = whole
    rest = np.asarray(left, dtype=np.int64) - 2 * np.bincount(whole, minlength=MIGRATE_TYPES)
    singles = np.flatnonzero(types[:known] == PAGEBLOCK_ABSENT)
    types[singles] = rng.shuffled(np.repeat(np.arange(MIGRATE_TYPES, dtype=np.int64), rest))
    return types
