"""Programs that leave huge pages half used: unmapped in part, or never written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mmfw.jit.page import PB_PAGES
from mmfw_deferred_split.zeroes import zero_filled

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.memory import Vma

NSEC_PER_SEC: Final = 1_000_000_000


class PartialUnmapParams(BaseModel):
    """A heap in huge pages, of which part was given back."""

    huge_pages: int = Field(2000, ge=1, description="huge pages mapped, each of 512 pages")
    pattern: Literal["alternate", "contiguous"] = Field(
        "alternate",
        description="what is unmapped in each: every other page, one madvise() each, or the first unmapped_pages",
    )
    unmapped_pages: int = Field(256, ge=1, le=511, description="pages unmapped in each if contiguous")
    madvised: bool = Field(False, description="with MADV_HUGEPAGE")


class UnderusedParams(BaseModel):
    """A heap in huge pages, of which only part was ever written."""

    huge_pages: int = Field(500, ge=1, description="huge pages mapped, each of 512 pages")
    written_pages: int = Field(
        64, ge=1, le=512, description="pages written at the begin of each; the others stay zero-filled"
    )


def thp_partial_unmap(mm: Mm, params: PartialUnmapParams) -> None:
    """Fault huge pages in, unmap part of each, and keep the rest until killed.

    Where no huge page is to be had single pages are faulted in, and unmapped likewise.
    """
    vma = mm.mmap_anonymous(params.huge_pages * PB_PAGES, thp=True, madvised=params.madvised)
    dropped = np.arange(0, PB_PAGES, 2) if params.pattern == "alternate" else np.arange(params.unmapped_pages)
    try:
        _touch_all(mm, vma)
        for first in range(0, vma.nr_pages, PB_PAGES):
            vma.madvise_dontneed(first + dropped)
            # A killed task ends in user mode only.
            mm.sched.charge_user(mm.costs.syscall, "user")
        _until_killed(mm)
    finally:
        vma.munmap()


def thp_underused(mm: Mm, params: UnderusedParams) -> None:
    """Fault huge pages in by writing the begin of each, and keep them until killed."""
    vma = mm.mmap_anonymous(params.huge_pages * PB_PAGES, thp=True)
    unwritten: NDArray[np.int64] = np.arange(params.written_pages, PB_PAGES)
    zeroes = zero_filled(mm)
    try:
        for first in range(0, vma.nr_pages, PB_PAGES):
            zeroes.mark(vma, first + unwritten)
            vma.touch(first, params.written_pages)
            mm.sched.charge_user(mm.costs.syscall, "user")
        _until_killed(mm)
    finally:
        vma.munmap()
        zeroes.forget(vma)


def _touch_all(mm: Mm, vma: Vma) -> None:
    position = 0
    while position < vma.nr_pages:
        # A fault that finds no memory is taken again, as after pagefault_out_of_memory().
        position += vma.touch(position, PB_PAGES)
        mm.sched.charge_user(mm.costs.syscall, "user")


def _until_killed(mm: Mm) -> None:
    while True:
        mm.sched.nanosleep(NSEC_PER_SEC)
