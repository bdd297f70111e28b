"""A DRM driver whose shrinker drops whole buffer objects and looks at nothing else.

It stands for the one driver that does not do as all the others do: its objects are idle and declared dispensable between
two uses, as those in user space's cache of buffers are, and it gives them to every shrinker call in full, whatever the
order, the hint or the caller. It has no ``compaction_scan``. Modelled after ``drm_gem_shmem_purge()`` and panfrost's
shrinker (drivers/gpu/drm/panfrost/panfrost_gem_shrinker.c), but with memory from a plain ladder of orders in place
of shmem's single pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, Field

from mmfw import SHRINK_EMPTY, SHRINK_STOP, InputError, ShrinkControl, gfp, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_SEC: Final = 1_000_000_000
SUBSYSTEM: Final = "drm-purger"
#: Above order 0 the ladder does not insist, and does not look for better than what is there.
LADDER_GFP: Final = gfp.GFP_HIGHUSER | gfp.NORETRY | gfp.NOWARN | gfp.COMP


@dataclass(eq=False, slots=True)
class PurgeBo:
    """One object.

    Attributes
    ----------
    nr_pages : int
        Its size.
    blocks : list of (int, int)
        First pfn and order of its memory; empty if it has none.
    purged_at : int or None
        When the shrinker took its memory, ns; None if it has not since it was last made.
    """

    nr_pages: int
    blocks: list[tuple[int, int]] = field(default_factory=list)
    purged_at: int | None = None


class PurgingDriver:
    """Objects, least recently used first, and their shrinker.

    Parameters
    ----------
    mm : Mm
        Its machine.
    max_order : int
        Where the ladder begins.

    Attributes
    ----------
    nr_purges, nr_purged_pages : int
        Objects dropped, and their pages.
    nr_remade_pages : int
        Pages of objects made again after that.
    nr_uses : int
        Uses of objects.
    nr_enomem : int
        Uses that failed for want of memory.
    """

    seeks = 2
    batch = 0

    def __init__(self, mm: Mm, max_order: int) -> None:
        self.nr_purges = self.nr_purged_pages = self.nr_remade_pages = self.nr_uses = self.nr_enomem = 0
        self._mm = mm
        self._max_order = max_order
        self._idle: dict[PurgeBo, None] = {}
        self._idle_pages = 0
        self._resident_pages = 0
        mm.ledger.hold(SUBSYSTEM, lambda: self._resident_pages)

    @property
    def resident_pages(self) -> int:
        """Pages of all objects."""
        return self._resident_pages

    @property
    def idle_pages(self) -> int:
        """Pages of those that the shrinker may drop."""
        return self._idle_pages

    # --- use ----------------------------------------------------------------------------------------

    def begin_use(self, bo: PurgeBo) -> bool:
        """Take an object off the list (WILLNEED), making it if it has no memory; False if there is none."""
        if bo in self._idle:
            del self._idle[bo]
            self._idle_pages -= bo.nr_pages
        self.nr_uses += 1
        if bo.blocks:
            return True
        purged_at = bo.purged_at
        if not self._populate(bo):
            self.nr_enomem += 1
            return False
        if purged_at is not None:
            bo.purged_at = None
            self.nr_remade_pages += bo.nr_pages
            age = self._mm.sched.now - purged_at
            self._mm.ledger.recreated(SUBSYSTEM, nr_objects=1, nr_pages=bo.nr_pages, age_ns=age)
        return True

    def end_use(self, bo: PurgeBo) -> None:
        """Declare an object dispensable again (DONTNEED), the youngest."""
        if bo.blocks:
            self._idle[bo] = None
            self._idle_pages += bo.nr_pages

    def destroy(self, bo: PurgeBo) -> None:
        """Free an object for good."""
        if self._idle.pop(bo, False) is None:
            self._idle_pages -= bo.nr_pages
        self._release(bo)

    def _populate(self, bo: PurgeBo) -> bool:
        """Fill an object block by block: from the largest order that fits, a step down at each failure."""
        mm = self._mm
        blocks: list[tuple[int, int]] = []
        left, order = bo.nr_pages, self._max_order
        while left:
            order = min(order, left.bit_length() - 1)
            pfn = mm.alloc_pages(LADDER_GFP if order else gfp.GFP_HIGHUSER, order)
            if pfn >= 0:
                blocks.append((pfn, order))
                left -= 1 << order
            elif order:
                order -= 1
            else:
                for first, each in blocks:
                    mm.free_pages(first, each)
                return False
        bo.blocks = blocks
        self._resident_pages += bo.nr_pages
        mm.charge(bo.nr_pages * mm.costs.zero_page, "clear object")
        return True

    def _release(self, bo: PurgeBo) -> None:
        blocks, bo.blocks = bo.blocks, []
        self._resident_pages -= bo.nr_pages if blocks else 0
        for pfn, order in blocks:
            self._mm.free_pages(pfn, order)

    # --- the shrinker -------------------------------------------------------------------------------

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Pages of idle objects."""
        del sc
        return self._idle_pages or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Drop the oldest idle objects until at least `sc.nr_to_scan` pages have gone; pages freed."""
        freed = 0
        while self._idle and freed < sc.nr_to_scan:
            bo = next(iter(self._idle))
            del self._idle[bo]
            self._idle_pages -= bo.nr_pages
            pfns = np.concatenate([np.arange(pfn, pfn + (1 << order)) for pfn, order in bo.blocks])
            bo.purged_at = self._mm.sched.now
            freed += bo.nr_pages
            self.nr_purges += 1
            self.nr_purged_pages += bo.nr_pages
            self._mm.charge(self._mm.costs.bind_bo, "unbind")
            self._release(bo)
            self._mm.ledger.evicted(SUBSYSTEM, nr_objects=1, nr_pages=bo.nr_pages, pfns=pfns)
        return freed or SHRINK_STOP


class ClientParams(BaseModel):
    """A client of the driver."""

    objects: int = Field(64, ge=1, description="objects it uses in turn")
    pages_per_object: int = Field(512, ge=1, description="pages of each; 512 is 2 MiB")
    uses_per_second: int = Field(120, ge=1, description="pace")


def drm_purger_client(mm: Mm, params: ClientParams) -> None:
    """Use objects in turn until the run ends: WILLNEED, make if purged, work, DONTNEED."""
    driver = mm.attached.get(PurgingDriver)
    if driver is None:
        raise InputError("workload drm-purger-client: there is no device; load plugin drm-purger")
    objects = [PurgeBo(params.pages_per_object) for _ in range(params.objects)]
    period = NSEC_PER_SEC // params.uses_per_second
    due, at = mm.sched.now, 0
    try:
        while True:
            bo = objects[at % len(objects)]
            at += 1
            if driver.begin_use(bo):
                mm.charge(mm.costs.bind_bo, "use object")
                driver.end_use(bo)
            due = max(due + period, mm.sched.now)
            mm.sched.nanosleep(max(due - mm.sched.now, 1))
    finally:
        for bo in objects:
            driver.destroy(bo)
