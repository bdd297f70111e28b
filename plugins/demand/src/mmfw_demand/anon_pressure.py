"""Workload ``anon-pressure``: a process whose anonymous memory grows, stays, and shrinks again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, Field

from mmfw_demand.loads import demand_loads
from mmfw_demand.pace import Pace

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.memory import Vma

NSEC_PER_MSEC = 1_000_000
#: Turns a second of a load with a rate: each touches that part of a second's pages.
TURNS_PER_SECOND: Final = 250
#: Pages of a turn back to back.
BACK_TO_BACK_PAGES: Final = 512


class AnonPressureParams(BaseModel):
    """Growth of one process."""

    percent_of_ram: int = Field(
        50, ge=1, le=1000, description="size, percent of managed pages; above 100 it swaps"
    )
    pages_per_second: int = Field(0, ge=0, description="pages first touched a second; 0: as fast as it goes")
    hold_ms: int = Field(-1, ge=-1, description="ms it stays that large; -1: until it is killed")
    retouch_pages_per_second: int = Field(
        0, ge=0, description="pages touched again a second while it stays, at random; swapped ones come back"
    )
    shrink_pages_per_second: int = Field(
        0, ge=0, description="pages given back a second after that, first touched first; 0: all at once"
    )
    thp: bool = Field(False, description="aligned 2 MiB may be huge pages")
    madvised: bool = Field(False, description="with MADV_HUGEPAGE, so that a huge page's fault may compact")
    oom_score_adj: int = Field(0, ge=-1000, le=1000, description="for the OOM killer")


def anon_pressure(mm: Mm, params: AnonPressureParams) -> None:
    """Grow, stay, shrink; returns when all is given back, or the OOM killer took it."""
    name = demand_loads(mm).start("anon-pressure")
    managed = sum(zone.managed_pages for zone in mm.pgdat.node_zones)
    nr_pages = managed * params.percent_of_ram // 100
    vma = mm.mmap_anonymous(
        nr_pages, thp=params.thp, madvised=params.madvised, oom_score_adj=params.oom_score_adj
    )
    try:
        _grow(mm, vma, params.pages_per_second)
        _stay(mm, vma, params, name)
        if params.shrink_pages_per_second:
            _shrink(mm, vma, params.shrink_pages_per_second)
    finally:
        vma.munmap()


def _turn(mm: Mm, per_second: int) -> tuple[Pace, int]:
    """Beat of a rate of pages, and pages of a turn."""
    if per_second == 0:
        return Pace(mm, 0), BACK_TO_BACK_PAGES
    pages = -(-per_second // TURNS_PER_SECOND)
    return Pace(mm, per_second / pages), pages


def _grow(mm: Mm, vma: Vma, per_second: int) -> None:
    pace, pages = _turn(mm, per_second)
    position = 0
    while position < vma.nr_pages:
        pace.turn_begins()
        # A fault that finds no memory is taken again, as after pagefault_out_of_memory().
        position += vma.touch(position, pages)
        pace.wait()


def _stay(mm: Mm, vma: Vma, params: AnonPressureParams, name: str) -> None:
    sched = mm.sched
    end = (1 << 62) if params.hold_ms == -1 else sched.now + params.hold_ms * NSEC_PER_MSEC
    if not params.retouch_pages_per_second:
        while sched.now < end:
            sched.nanosleep(min(end - sched.now, 1_000 * NSEC_PER_MSEC))
        return
    rng = mm.rng(name)
    pace, pages = _turn(mm, params.retouch_pages_per_second)
    while sched.now < end:
        pace.turn_begins()
        for index in rng.below(vma.nr_pages, pages).tolist():
            vma.touch(index, 1)
        pace.wait(end)


def _shrink(mm: Mm, vma: Vma, per_second: int) -> None:
    pace, pages = _turn(mm, per_second)
    for first in range(0, vma.nr_pages, pages):
        pace.turn_begins()
        vma.madvise_dontneed(np.arange(first, min(first + pages, vma.nr_pages), dtype=np.int64))
        pace.wait()
