"""The memory hog: anonymous memory, holes punched into it, and page cache read in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw import gfp
from mmfw.sched import WaitQueue
from mmfw_probe.guest import MSEC
from mmfw_probe.shell import NR_GREP_PAGES

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.filemap import AddressSpace
    from mmfw.sched import Task
    from mmfw_probe.shell import Shell

MIB_PAGES: Final = 256
#: What ``hogwait`` writes to /proc/PID/oom_score_adj.
_OOM_SCORE_ADJ: Final = 900
#: read(2) of 64 KiB under emulation beside its pages, ns: 256M-r1, 21 us for a page of 16, less the page's own costs.
READ_SYSCALL_NS: Final = 23_000


def open_disk(mm: Mm, data_mb: int) -> AddressSpace:
    """The raw data disk: its page cache is GFP_USER, so not movable by type (``bdev_alloc()``, block/bdev.c)."""
    return mm.page_cache.open(data_mb * MIB_PAGES, gfp_mask=gfp.GFP_USER, name="vdb")


def read_all(mm: Mm, file: AddressSpace, chunk_pages: int = 16) -> None:
    """Read a file once from start to end, 64 KiB at a time, with a return to user mode after each.

    What a system call takes besides its pages varies evenly from nothing to twice its average: without that, who reads
    and who sleeps for a millisecond beside it fall into step, as no real run does.
    """
    rng = mm.rng("probe read")
    drawn: list[int] = []
    buf = mm.mmap_anonymous(chunk_pages)
    try:
        for start in range(0, file.nr_pages, chunk_pages):
            if not drawn:
                drawn = rng.below(2 * READ_SYSCALL_NS + 1, 1024).tolist()
            file.read(start, chunk_pages)
            buf.touch(0, chunk_pages)
            mm.sched.charge_user(drawn.pop(), "read")
    finally:
        buf.munmap()


class Hog:
    """One hog process, with the shell that waits for it (``hogwait``).

    Parameters
    ----------
    mm : Mm
        Where it runs.
    shell : Shell
        Who starts it.
    """

    def __init__(self, mm: Mm, shell: Shell) -> None:
        self._mm = mm
        self._shell = shell
        self._killed = False
        self._pause = WaitQueue(mm.sched, "pause")
        self._task: Task | None = None
        self._disk: AddressSpace | None = None
        self._ready = False

    def start_and_wait(self, mode: str, mb: int, n: int, disk: AddressSpace | None = None) -> None:
        """Start the hog and poll for its being ready, every 200 ms, with a command of the shell each time.

        Parameters
        ----------
        mode : {"anon", "punch", "keep", "mixed"}
            What it does: touch only; then MADV_DONTNEED of every n-th page, or of all but those; ``mixed`` reads
            1 MiB of the disk after each MiB.
        mb : int
            Its size.
        n : int
            See above; 0 leaves all pages.
        disk : AddressSpace, optional
            For ``mixed``.
        """
        self._disk = disk
        self._shell.run()  # rm
        self._task = self._shell.start(
            lambda: self._main(mode, mb, n), comm="hog", daemon=True, oom_score_adj=_OOM_SCORE_ADJ
        )
        while True:
            self._shell.run(nr_pages=NR_GREP_PAGES)
            if self._ready:
                return
            self._shell.sleep(200 * MSEC)

    def _main(self, mode: str, mb: int, n: int) -> None:
        mm = self._mm
        nr_pages = mb * MIB_PAGES
        vma = mm.mmap_anonymous(nr_pages, oom_score_adj=_OOM_SCORE_ADJ)
        buf = mm.mmap_anonymous(MIB_PAGES, oom_score_adj=_OOM_SCORE_ADJ)
        position = 0
        for start in range(0, nr_pages, MIB_PAGES):
            if self._disk is not None:
                # The page of a MiB's start is touched before the MiB of the disk is read.
                vma.touch(start, 1)
                if position < self._disk.nr_pages:
                    position += self._disk.read(position, MIB_PAGES)
                    buf.touch(0, MIB_PAGES)
            vma.touch(start, MIB_PAGES)
        if n:
            index = np.arange(nr_pages, dtype=np.int64)
            hit = index % n == 0
            index = index[~hit] if mode == "keep" else index[hit]
            for at in range(0, len(index), 512):
                vma.madvise_dontneed(index[at : at + 512])
        self._shell.write(1)
        self._ready = True
        while not self._killed:
            self._pause.wait()
        vma.munmap()
        buf.munmap()

    def kill(self) -> None:
        """Kill the hog and wait for it: its memory goes, and the disk is closed, so its page cache too."""
        self._killed = True
        self._pause.wake_up()
        if self._task is not None:
            self._mm.sched.join(self._task)
            self._task = None
        if self._disk is not None:
            self._disk.truncate()
