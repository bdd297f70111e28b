"""The guest around the loads: the shell that starts them, and the shrinkers every idle guest has.

A shell's command is a process: it faults in some dozens of pages and gives them back when it ends. Their number is
an estimate (`PROCESS_PAGES`); what matters is that such pages come between those of a load that runs beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_STOP, ShrinkControl, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm

#: Anonymous pages of a busybox process: stack, data, heap.
PROCESS_PAGES: Final = 37
MSEC: Final = 1_000_000


class CountedObjects:
    """A shrinker over a number of objects that hold no page (``kfree_rcu_shrink_scan``, ``super_cache_scan``)."""

    batch = 0

    def __init__(self, nr: int, seeks: int) -> None:
        self.nr = nr
        self.seeks = seeks

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Objects left."""
        return self.nr

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free what is asked."""
        freed = min(sc.nr_to_scan, self.nr)
        self.nr -= freed
        return freed if freed else SHRINK_STOP


def register_system_shrinkers(mm: Mm, *, kernfs_objects: int = 9) -> None:
    """The two shrinkers that have objects on an idle guest, in order of registration.

    Counts and seeks are those of the captures' mm_shrink_slab_start events: kfree_rcu 6 objects with seeks 2, a
    kernfs superblock 8 to 11 with seeks 0.
    """
    mm.register_shrinker(CountedObjects(6, 2), "rcu-kfree")
    mm.register_shrinker(CountedObjects(kernfs_objects, 0), "sb-sysfs")


def run_process(mm: Mm, duration_ns: int = 2 * MSEC, nr_pages: int = PROCESS_PAGES) -> None:
    """One command of the shell, from fork to exit."""
    vma = mm.mmap_anonymous(nr_pages)
    vma.touch(0, nr_pages)
    mm.sched.sleep(duration_ns)
    vma.munmap()
