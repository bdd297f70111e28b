"""``struct ttm_tt``: the pages behind one buffer object, as blocks and as backups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw.mm.swap import Backup

Pfns = NDArray[np.int64]


@cache
def _offsets(order: int) -> Pfns:
    """Pages of a block, counted from its first."""
    return np.arange(1 << order, dtype=np.int64)


class Caching(Enum):
    """``enum ttm_caching`` (include/drm/ttm/ttm_caching.h)."""

    UNCACHED = "uncached"
    WRITE_COMBINED = "write_combined"
    CACHED = "cached"


@dataclass(slots=True, eq=False)
class BlockRun:
    """Blocks of one order that follow one another in a `TtmTt`; nobody changes one.

    Attributes
    ----------
    order : int
        Order of each block.
    pfns : int64[n]
        First pfns.
    """

    order: int
    pfns: Pfns
    _span: tuple[int, int] | None = field(default=None, init=False, repr=False)

    @property
    def span(self) -> tuple[int, int]:
        """Lowest pfn of its blocks, and the one behind the highest; (0, 0) without blocks. Computed once."""
        if self._span is None:
            low, high = (
                (int(self.pfns.min()), int(self.pfns.max())) if len(self.pfns) else (0, -(1 << self.order))
            )
            self._span = low, high + (1 << self.order)
        return self._span

    @property
    def nr_pages(self) -> int:
        """Pages in all blocks."""
        return len(self.pfns) << self.order

    def page_pfns(self) -> Pfns:
        """Pfns of all pages, block by block: int64[nr_pages]."""
        if not self.order:
            return self.pfns
        return (self.pfns[:, np.newaxis] + _offsets(self.order)).reshape(-1)


def nr_pages_of(runs: Sequence[BlockRun]) -> int:
    """Pages in all blocks of some runs."""
    return sum(run.nr_pages for run in runs)


def joined(runs: Sequence[BlockRun]) -> list[BlockRun]:
    """The same blocks in as few runs as their orders allow."""
    return [
        BlockRun(order, np.concatenate([run.pfns for run in group]))
        for order, group in groupby(runs, key=lambda run: run.order)
    ]


def first_blocks_of(runs: Sequence[BlockRun], nr_pages: int) -> Iterator[tuple[int, Pfns]]:
    """Order and first pfns of blocks, run by run, until they hold so many pages; of the last block single pages."""
    for run in runs:
        if nr_pages <= 0:
            return
        whole = min(len(run.pfns), nr_pages >> run.order)
        if whole:
            yield run.order, run.pfns[:whole]
        nr_pages -= whole << run.order
        if whole < len(run.pfns) and nr_pages:
            yield 0, run.pfns[whole] + np.arange(nr_pages, dtype=np.int64)
            return


def page_pfns_of(runs: Sequence[BlockRun]) -> Pfns:
    """Pfns of all pages of some runs, in page order."""
    return np.concatenate([np.empty(0, dtype=np.int64), *(run.page_pfns() for run in runs)])


class TtmTt:
    """The backing pages of one object (``struct ttm_tt``, include/drm/ttm/ttm_tt.h).

    Parameters
    ----------
    num_pages : int
        Size of the object, in pages.
    caching : Caching
        How the CPU maps it; decides which pool, if any, its pages come from and go to.
    dma32 : bool
        Whether the device reaches the lowest 4 GiB only.
    zero_alloc : bool
        ``TTM_TT_FLAG_ZERO_ALLOC``: fresh pages are cleared, as user space's objects need.

    Attributes
    ----------
    runs : list of BlockRun
        Blocks held, in page order. While it is backed up: the last pages, whose backup failed.
    backups : list of Backup
        What was backed up, from the first page on.
    restored : list of BlockRun
        First blocks of a restore that has not been finished (``struct ttm_pool_tt_restore``); their pages are in
        `backups` and `runs` no more.
    """

    __slots__ = ("backups", "caching", "dma32", "num_pages", "restored", "runs", "zero_alloc")

    def __init__(
        self,
        num_pages: int,
        caching: Caching = Caching.CACHED,
        *,
        dma32: bool = False,
        zero_alloc: bool = False,
    ) -> None:
        if num_pages < 1:
            raise ValueError(f"num_pages is {num_pages}; an object has at least one page")
        self.num_pages = num_pages
        self.caching = caching
        self.dma32 = dma32
        self.zero_alloc = zero_alloc
        self.runs: list[BlockRun] = []
        self.backups: list[Backup] = []
        self.restored: list[BlockRun] = []

    @property
    def nr_held(self) -> int:
        """Pages in blocks that it holds now."""
        return nr_pages_of(self.restored) + nr_pages_of(self.runs)

    @property
    def is_backed_up(self) -> bool:
        """Whether some of it is backed up, or only part of it is back (``ttm_tt_is_backed_up()``)."""
        return bool(self.backups or self.restored)

    @property
    def is_populated(self) -> bool:
        """Whether all of it is in memory (``ttm_tt_is_populated()``)."""
        return bool(self.runs) and not self.is_backed_up

    @property
    def max_order(self) -> int:
        """Order of its largest block; -1 if it holds none."""
        return max((run.order for run in self.runs if len(run.pfns)), default=-1)

    def has_block_in(self, pfn_lo: int, pfn_hi: int, min_order: int = 0) -> bool:
        """Whether a block of at least an order begins or lies in a range of pfns, `pfn_hi` exclusive."""
        for run in self.runs:
            low, high = run.span
            if run.order < min_order or high <= pfn_lo or low >= pfn_hi:
                continue
            if low >= pfn_lo or high <= pfn_hi:
                return True
            reaches = run.pfns + (1 << run.order) > pfn_lo
            if bool((reaches & (run.pfns < pfn_hi)).any()):
                return True
        return False

    def adopt(self, pfns: Pfns) -> None:
        """Populate it with order-0 pages that were allocated before the run began.

        Raises
        ------
        ValueError
            It is populated or backed up, or the number is not its size.
        """
        if self.runs or self.is_backed_up or len(pfns) != self.num_pages:
            raise ValueError(f"{len(pfns)} pages for an object of {self.num_pages} that holds {self.nr_held}")
        self.runs = [BlockRun(0, pfns)]

    def adopt_backup(self, backup: Backup) -> None:
        """Let it be backed up, by a backup that was made before the run began.

        Raises
        ------
        ValueError
            It is populated or backed up, or the backup is not of its size.
        """
        if self.runs or self.is_backed_up or backup.nr_pages != self.num_pages:
            raise ValueError(f"a backup of {backup.nr_pages} pages for an object of {self.num_pages}")
        self.backups = [backup]
