"""The guest's shell: what its commands take and give back, page by page.

A shell's command is two processes' work: the shell forks (page tables, and copies of the pages that it writes next), the
child copies some pages, executes the command (new tables, new pages; the old ones go) and exits. Such pages come
between those of a load that runs beside the shell, and an odd number of them shifts where the load's next pages lie.
Two of a command's pages are taken or not, by chance: what the shell holds differs by a page from one command to the next.
The cause is most likely where its stack lies (``randomize_stack_top()``, mm/util.c); that was not looked into.

Numbers of pages are those of boots of the captures' kernel with their init and busybox, traced by
``kmem:mm_page_alloc`` and ``mm_page_free``. Times are estimates: such boots' by ``sched_switch``, on an emulator two to
three times as slow, brought to the captures' pace by what the load takes in either.

Not there: slab, and the pages of ftrace's own readers and of pipes (unmovable, one or two at a time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw import gfp

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mmfw import Mm
    from mmfw.sched import Task

USEC: Final = 1_000
#: What a page table and a page directory (two pages, for page-table isolation) are taken with.
_TABLE_GFP: Final = gfp.GFP_KERNEL | gfp.ZERO | gfp.ACCOUNT
#: Page tables of a process beside the one that `Vma` takes: before it executes a command and behind that.
NR_TABLES_FORKED: Final = 7
NR_TABLES_EXECED: Final = 7
#: Pages that the shell copies for itself after a fork, and the child before it executes the command.
NR_SHELL_COPIES: Final = 3
NR_CHILD_COPIES: Final = 7
#: Pages of the command's own: arguments; what it starts with; what it takes as it works. One more of each of the first
#: two is taken by chance: ``sleep`` and ``cat`` had 12, 13 and 14 pages in 39, 46 and 15 of a hundred.
NR_ARG_PAGES: Final = 1
NR_START_PAGES: Final = 6
NR_WORK_PAGES: Final = 5
CHANCE_PERCENT: Final = 38
#: What grep takes as it works, and gzip (tables, buffers).
NR_GREP_PAGES: Final = 7
NR_GZIP_PAGES: Final = 85
#: Files of /proc in a snapshot, and pages of /out that they take.
NR_SNAP_FILES: Final = 5
NR_SNAP_PAGES: Final = 3
#: Processor time of forking, of the shell after that, of executing, and of the command until its exit. It was measured
#: with the faults, which are charged on top: some 0.3 ms a command too many.
FORK_NS: Final = 700 * USEC
COPY_NS: Final = 150 * USEC
EXEC_NS: Final = 1400 * USEC
EXIT_NS: Final = 1400 * USEC
#: Forks of a shell that may be under way at once.
_NR_FORKS: Final = 16
#: Room of /out and of a command, pages.
_OUT_PAGES: Final = 4096
_MAPPED_PAGES: Final = 256


class Shell:
    """``init``: runs commands one after another, and keeps what they write to /out.

    Parameters
    ----------
    mm : Mm
        Where it runs.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._out = mm.mmap_anonymous(_OUT_PAGES, oom_score_adj=-1000)
        self._nr_out = 0
        self._own = mm.mmap_anonymous(_NR_FORKS * NR_SHELL_COPIES, oom_score_adj=-1000)
        self._nr_forked = 0
        self._rng = mm.rng("probe shell")

    # --- commands ---------------------------------------------------------------------------------------

    def run(self, work: Callable[[], object] | None = None, *, nr_pages: int = NR_WORK_PAGES) -> None:
        """One command, from fork to exit; the shell waits for it.

        Parameters
        ----------
        work : callable, optional
            What it does once it has its pages, besides.
        nr_pages : int
            Pages that it takes as it works.
        """
        self._mm.sched.join(self.start(work, nr_pages))

    def sleep(self, duration_ns: int) -> None:
        """``sleep``: a process that holds its pages for as long."""
        self.run(lambda: self._mm.sched.sleep(duration_ns))

    def snap(self) -> None:
        """``snap``: five files of /proc, one ``cat`` each."""
        for number in range(NR_SNAP_FILES):
            self.run((lambda: self.write(1)) if number < NR_SNAP_PAGES else None)

    def gzip(self, nr_pages: int, duration_ns: int) -> None:
        """``cat trace | gzip > /out/...``: two processes side by side.

        Parameters
        ----------
        nr_pages : int
            Size of the output.
        duration_ns : int
            Processor time of both, of which reading takes a fifth.
        """

        def work() -> None:
            self._mm.charge(duration_ns * 4 // 5, "process")
            self.write(nr_pages)

        reader = self.start(lambda: self._mm.charge(duration_ns // 5, "process"))
        writer = self.start(work, NR_GZIP_PAGES)
        self._mm.sched.join(reader)
        self._mm.sched.join(writer)

    def write(self, nr_pages: int) -> None:
        """Pages written to /out, which is a tmpfs: movable, never dropped. What has no room there is not written."""
        self._nr_out += max(0, self._out.touch(self._nr_out, nr_pages))

    def start(
        self,
        work: Callable[[], object] | None = None,
        nr_pages: int = NR_WORK_PAGES,
        *,
        comm: str = "busybox",
        daemon: bool = False,
        oom_score_adj: int = 0,
    ) -> Task:
        """Start a command; see `run`. One that is a `daemon` need not end for the run to end.

        All mappings of its process have the same `oom_score_adj`, as the kernel has one for a process.
        """
        mm = self._mm
        mm.charge(FORK_NS, "process")
        directory = mm.alloc_pages(_TABLE_GFP, 1)
        tables = mm.alloc_pages_batch(_TABLE_GFP, 0, NR_TABLES_FORKED)
        # The shell's pages from now on; its former ones are the child's until that executes the command.
        former = self._copies()
        self._nr_forked += 1
        first, second = (self._rng.below(100, 2) < CHANCE_PERCENT).tolist()
        nr_args, nr_start = NR_ARG_PAGES + first, NR_START_PAGES + second

        def child() -> None:
            forked = mm.mmap_anonymous(NR_CHILD_COPIES, oom_score_adj=oom_score_adj)
            forked.touch(0, NR_CHILD_COPIES)
            mm.charge(EXEC_NS * 3 // 4, "process")
            new_directory = mm.alloc_pages(_TABLE_GFP, 1)
            new_tables = mm.alloc_pages_batch(_TABLE_GFP, 0, NR_TABLES_EXECED)
            vma = mm.mmap_anonymous(_MAPPED_PAGES, oom_score_adj=oom_score_adj)
            try:
                vma.touch(0, nr_args)
                mm.free_pages_batch(tables, 0)
                self._own.madvise_dontneed(former)
                forked.munmap()
                if directory >= 0:
                    mm.free_pages(directory, 1)
                mm.charge(EXEC_NS // 4, "process")
                vma.touch(nr_args, nr_start)
                mm.charge(EXIT_NS // 2, "process")
                vma.touch(nr_args + nr_start, nr_pages)
                if work is not None:
                    work()
                mm.charge(EXIT_NS // 2, "process")
            finally:
                # A killed command ends in its work, which is where it is in user mode.
                mm.free_pages_batch(new_tables, 0)
                vma.munmap()
                if new_directory >= 0:
                    mm.free_pages(new_directory, 1)

        task = mm.sched.spawn(child, name=comm, daemon=daemon)
        self._own.touch(int(self._copies()[0]), NR_SHELL_COPIES)
        mm.charge(COPY_NS, "process")
        return task

    def exit(self) -> None:
        """Give back the shell's own pages, and what was written to /out."""
        self._own.munmap()
        self._out.munmap()

    def _copies(self) -> NDArray[np.int64]:
        """Where the pages lie that the shell has copied since its last fork."""
        return np.arange(NR_SHELL_COPIES, dtype=np.int64) + NR_SHELL_COPIES * (self._nr_forked % _NR_FORKS)
