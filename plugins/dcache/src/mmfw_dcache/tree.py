"""A directory tree that loads work on, and the one superblock of a machine."""

from __future__ import annotations

import numpy as np

from mmfw_dcache.objects import Ints
from mmfw_dcache.superblock import ROOT, SuperBlock


class Tree:
    """The names that loads look up; attached to the `Mm`.

    Parameters
    ----------
    sb : SuperBlock
        Where they are.

    Attributes
    ----------
    sb : SuperBlock
        As given.
    nr_open : int
        Files that somebody holds open for the rest of the run.
    """

    def __init__(self, sb: SuperBlock) -> None:
        self.sb = sb
        self.nr_open = 0
        self._files: list[Ints] = []

    @property
    def files(self) -> Ints:
        """Names that lookups may ask for, in order of creation; directories are not among them."""
        if len(self._files) > 1:
            self._files = [np.concatenate(self._files)]
        return self._files[0] if self._files else np.empty(0, dtype=np.int64)

    def note_files(self, names: Ints) -> None:
        """Let lookups ask for these too."""
        if len(names):
            self._files.append(names)

    def populate(self, nr_files: int, nr_absent: int, files_per_directory: int, pinned: Ints) -> None:
        """Make a tree of cached files, some held open, and of absent names with negative dentries.

        Absent names are spread evenly between the files, in the same directories. All is made in one stream, in
        which nothing is referenced twice.

        Parameters
        ----------
        nr_files, nr_absent : int
            How many of each.
        files_per_directory : int
            Names of a directory.
        pinned : int64[n]
            Numbers of the files to hold open, below `nr_files`.
        """
        nr_names = nr_files + nr_absent
        if not nr_names:
            return
        nr_dirs = -(-nr_names // files_per_directory)
        dirs = self.sb.populate(np.full(nr_dirs, ROOT), exists=True)
        parents = np.repeat(dirs, files_per_directory)[:nr_names]
        absent = (
            np.arange(1, nr_names + 1) * nr_absent // nr_names > np.arange(nr_names) * nr_absent // nr_names
        )
        names = self.sb.populate(parents, exists=~absent)
        let_go = np.ones(nr_names, dtype=np.bool_)
        let_go[np.flatnonzero(~absent)[pinned]] = False
        self.sb.close(names[let_go])
        self.sb.close(dirs)
        self.nr_open += len(pinned)
        self.note_files(names)
