"""Loads: programs that fault much anonymous memory in, over and over; programs that read memory they never wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw.jit.page import PB_PAGES
from mmfw_thp.huge_zero_page import HugeZeroPage
from mmfw_thp.settings import ThpParams

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.memory import Vma

NSEC_PER_MSEC: Final = 1_000_000


@dataclass(slots=True)
class Storm:
    """What all storms of a machine have done; attached to the `Mm`.

    Attributes
    ----------
    settings : ThpParams
        Of the machine.
    pages_faulted : int
        Pages written for the first time since they were mapped.
    rounds : int
        Times that a storm had all of its memory.
    """

    settings: ThpParams
    pages_faulted: int = 0
    rounds: int = 0


class FaultStormParams(BaseModel):
    """A program that writes fresh memory, uses it, gives it back, and begins again."""

    megabytes: int = Field(1024, ge=2, description="MiB mapped in each round")
    madvised: bool = Field(False, description="with MADV_HUGEPAGE")
    user_us_per_2m: int = Field(100, ge=0, description="its own work for each 2 MiB, microseconds")
    hold_ms: int = Field(500, ge=0, description="ms it keeps them")
    pause_ms: int = Field(100, ge=0, description="ms until the next round")
    rounds: int = Field(0, ge=0, description="rounds until it ends; 0: until it is killed")


class ZeroReaderParams(BaseModel):
    """A program that reads 2 MiB it never wrote, and ends."""

    hold_ms: int = Field(100, ge=1, description="ms it lives after that")
    pause_ms: int = Field(1000, ge=1, description="ms until another one does the same")
    rounds: int = Field(0, ge=0, description="programs, one after another; 0: until it is killed")


def thp_fault_storm(mm: Mm, params: FaultStormParams) -> None:
    """Map, write all of it in ascending order, hold, unmap, pause, and again."""
    storm = mm.attached.get(Storm)
    assert storm is not None
    thp = storm.settings.allows(madvised=params.madvised)
    vma = mm.mmap_anonymous(params.megabytes * 256, thp=thp, madvised=params.madvised)
    left = params.rounds or -1
    try:
        while True:
            _write_all(mm, vma, storm, params.user_us_per_2m * 1000)
            mm.sched.nanosleep(params.hold_ms * NSEC_PER_MSEC)
            vma.munmap()
            storm.rounds += 1
            left -= 1
            if not left:
                return
            mm.sched.nanosleep(params.pause_ms * NSEC_PER_MSEC)
            # The same addresses again, so that a long run does not use up the slot table.
            mm.memory.mmap_again(vma)
    finally:
        vma.munmap()


def _write_all(mm: Mm, vma: Vma, storm: Storm, user_ns: int) -> None:
    position = 0
    while position < vma.nr_pages:
        # A fault that finds no memory is taken again, as after pagefault_out_of_memory().
        got = vma.touch(position, PB_PAGES)
        position += got
        storm.pages_faulted += got
        # Never 0, for a killed task ends in user mode.
        mm.sched.charge_user(max(user_ns, 1000), "user")


def thp_zero_reader(mm: Mm, params: ZeroReaderParams) -> None:
    """Map the huge zero page for a while, again and again."""
    page = mm.attached.get(HugeZeroPage)
    assert page is not None
    left = params.rounds or -1
    while True:
        if page.get():
            try:
                mm.sched.nanosleep(params.hold_ms * NSEC_PER_MSEC)
            finally:
                page.put()
        left -= 1
        if not left:
            return
        mm.sched.nanosleep(params.pause_ms * NSEC_PER_MSEC)
