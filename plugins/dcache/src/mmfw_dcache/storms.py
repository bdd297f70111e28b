"""Loads on names: creating files, looking names up, opening files."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, Field

from mmfw import InputError
from mmfw_dcache.objects import Ints
from mmfw_dcache.superblock import ROOT
from mmfw_dcache.tree import Tree

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.rawrandom import Rng

NSEC_PER_SEC: Final = 1_000_000_000
#: Names handled between two points at which time passes: of a load at a pace, and of one that goes as fast as it can.
PACED_BATCH: Final = 256
BATCH: Final = 1024
#: Estimates of what a system call adds to entry and exit, ns: a path walk of two components; the filesystem's
#: own work for a new file.
PATH_WALK_NS: Final = 400
CREATE_NS: Final = 2_000
#: How long a load that gets no memory waits before it tries again, ns.
NO_MEMORY_NS: Final = 1_000_000


class CreateParams(BaseModel):
    """A stream of new files."""

    files: int = Field(100_000, ge=1, description="files created")
    pinned_percent: float = Field(
        10, ge=0, le=100, description="files that stay open for the rest of the run; each with this chance"
    )
    files_per_directory: int = Field(100, ge=1, description="files of a directory")
    files_per_second: int = Field(0, ge=0, description="pace; 0 is as fast as it goes")


class StatParams(BaseModel):
    """Lookups of names."""

    lookups_per_second: int = Field(50_000, ge=1, description="pace; a load that misses may not keep it up")
    hot_percent: int = Field(
        70, ge=0, le=100, description="lookups whose name is drawn by Zipf's law; the others are uniform"
    )
    lookups: int = Field(0, ge=0, description="ends after so many; 0 goes on")
    read_us: int = Field(
        100, ge=0, description="reading an inode that is not cached, us; a batch's reads follow one another"
    )


class WalkParams(BaseModel):
    """One look at every name."""

    read_us: int = Field(
        10, ge=0, description="reading an inode that is not cached, us; blocks are read ahead"
    )


class OpenParams(BaseModel):
    """Files opened for a while."""

    opens_per_second: int = Field(10_000, ge=1, description="pace")
    held_open: int = Field(
        1_000, ge=1, description="files open at a time; the oldest is closed for a new one"
    )
    hot_percent: int = Field(70, ge=0, le=100, description="as in stat-storm")
    read_us: int = Field(100, ge=0, description="as in stat-storm")


class Popularity:
    """Draws names: some by Zipf's law with exponent 1 over a random ranking, the others uniformly.

    Parameters
    ----------
    rng : Rng
        Decides.
    names : int64[n]
        From which.
    hot_percent : int
        Share drawn by Zipf's law.
    """

    def __init__(self, rng: Rng, names: Ints, hot_percent: int) -> None:
        self._rng = rng
        self._hot_percent = hot_percent
        self._names = rng.shuffled(names)
        # Divisions and a running sum in order: the same on every machine, which a power is not.
        share = np.cumsum(1.0 / np.arange(1, len(names) + 1))
        self._upto = np.floor(share / share[-1] * 2.0**31).astype(np.int64)

    def draw(self, size: int) -> Ints:
        """Names, in the order in which they are wanted."""
        hot = self._rng.below(100, size) < self._hot_percent
        rank = np.searchsorted(self._upto, self._rng.below(1 << 31, size), side="right")
        cold = self._rng.below(len(self._names), size)
        return self._names[np.where(hot, np.minimum(rank, len(self._names) - 1), cold)]


class Pace:
    """Keeps a load at a rate: sleeps until the next batch is due; a load that is late does not hurry."""

    def __init__(self, mm: Mm, per_second: int) -> None:
        self._sched = mm.sched
        self._per_second = per_second
        self._due = mm.sched.now

    def __call__(self, done: int, user_ns: int) -> None:
        """Spend a batch's user time, and wait for the next; a killed load ends here."""
        sched = self._sched
        sched.charge_user(user_ns, "storm")
        if self._per_second:
            self._due += done * NSEC_PER_SEC // self._per_second
            if sched.now < self._due:
                sched.nanosleep(self._due - sched.now)
            else:
                self._due = sched.now


def tree_of(mm: Mm, load: str) -> Tree:
    """The machine's tree.

    Raises
    ------
    InputError
        There is none: plugin dcache is not set up.
    """
    tree = mm.attached.get(Tree)
    if tree is None:
        raise InputError(f"workload {load}: no superblock is mounted; load plugin dcache")
    return tree


def create_storm(mm: Mm, params: CreateParams) -> None:
    """Create files, some of which a server keeps open; the others are closed at once and not used again."""
    tree = tree_of(mm, "create-storm")
    sb = tree.sb
    rng = mm.rng(f"create-storm {mm.sched.current.pid}")
    pace = Pace(mm, params.files_per_second)
    # A chance of 1/1000 percent is exact enough, and an integer.
    threshold = round(params.pinned_percent * 1_000)
    cost = 2 * mm.costs.syscall + CREATE_NS + PATH_WALK_NS
    left, directory, room = params.files, np.empty(0, dtype=np.int64), 0
    try:
        while left:
            if not room:
                sb.close(directory)
                directory = sb.create(np.array([ROOT], dtype=np.int64))
                room = params.files_per_directory if len(directory) else 0
            nr = min(BATCH, left, room)
            if nr:
                names = sb.create(np.repeat(directory, nr))
                stays = rng.below(100_000, len(names)) < threshold
                sb.close(names[~stays])
                tree.nr_open += int(stays.sum())
                tree.note_files(names)
                mm.charge(nr * cost, "create")
                room -= nr
                left -= nr
                pace(nr, 0)
            else:
                mm.sched.nanosleep(NO_MEMORY_NS)
    finally:
        sb.close(directory)


def _read(mm: Mm, tree: Tree, before: int, read_us: int) -> None:
    """Wait for the inodes that have been read since `before`."""
    nr = tree.sb.counters.nr_inode_misses - before
    if nr and read_us:
        mm.sched.sleep(nr * read_us * 1_000)


def stat_storm(mm: Mm, params: StatParams) -> None:
    """Look names up, some much more often than others."""
    tree = tree_of(mm, "stat-storm")
    popularity = _popularity(mm, tree, "stat-storm", params.hot_percent)
    pace = Pace(mm, params.lookups_per_second)
    left = params.lookups
    while True:
        nr = min(PACED_BATCH, left) if params.lookups else PACED_BATCH
        before = tree.sb.counters.nr_inode_misses
        tree.sb.stat(popularity.draw(nr))
        mm.charge(nr * (mm.costs.syscall + PATH_WALK_NS), "stat")
        _read(mm, tree, before, params.read_us)
        pace(nr, 0)
        left -= nr
        if params.lookups and not left:
            return


def tree_walk(mm: Mm, params: WalkParams) -> None:
    """Look every name up once, in order of creation (``find``, ``updatedb``)."""
    tree = tree_of(mm, "tree-walk")
    names = tree.files
    pace = Pace(mm, 0)
    for at in range(0, len(names), BATCH):
        chunk = names[at : at + BATCH]
        before = tree.sb.counters.nr_inode_misses
        tree.sb.stat(chunk)
        mm.charge(len(chunk) * (mm.costs.syscall + PATH_WALK_NS), "stat")
        _read(mm, tree, before, params.read_us)
        pace(len(chunk), 0)


def open_storm(mm: Mm, params: OpenParams) -> None:
    """Open files and hold a number of them open."""
    tree = tree_of(mm, "open-storm")
    popularity = _popularity(mm, tree, "open-storm", params.hot_percent)
    pace = Pace(mm, params.opens_per_second)
    held: deque[Ints] = deque()
    nr_held = 0
    try:
        while True:
            before = tree.sb.counters.nr_inode_misses
            names = np.unique(popularity.draw(min(PACED_BATCH, params.held_open)))
            opened = tree.sb.open(names)
            held.append(opened)
            nr_held += len(opened)
            while nr_held > params.held_open and len(held) > 1:
                closed = held.popleft()
                tree.sb.close(closed)
                nr_held -= len(closed)
            mm.charge(len(names) * 2 * (mm.costs.syscall + PATH_WALK_NS), "open")
            _read(mm, tree, before, params.read_us)
            pace(len(names), 0)
    finally:
        for opened in held:
            tree.sb.close(opened)


def _popularity(mm: Mm, tree: Tree, load: str, hot_percent: int) -> Popularity:
    if not len(tree.files):
        raise InputError(
            f"workload {load}: there is no name to look up; set params.dcache.initial_files, or create files first"
        )
    return Popularity(mm.rng(f"{load} {mm.sched.current.pid}"), tree.files, hot_percent)
