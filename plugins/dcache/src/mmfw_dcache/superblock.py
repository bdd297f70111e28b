"""A mounted filesystem: its names, and which of them have a dentry and an inode in memory (fs/dcache.c, fs/inode.c).

A name is a number. Name 0 is the root directory, whose dentry the mount holds. A name that exists has an inode of the
same number; one that does not has a negative dentry. A cached dentry holds a reference of its inode, and of its parent's
dentry. So a directory stays while anything below it is cached, and an inode goes after its dentry.

Simplified: no hard links, renames or deletions; inodes are clean and have no page cache, so nothing but a dentry or an
open file keeps one; ``s_umount`` is never taken for writing; what RCU frees after a grace period goes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.gfp import GFP_KERNEL
from mmfw_dcache.filesystems import DENTRY_SIZE, FILESYSTEMS, FsName
from mmfw_dcache.objects import NONE, Bools, CachedObjects, Ints, grown

if TYPE_CHECKING:
    from mmfw import Mm, ShrinkControl

ROOT: Final = 0


@dataclass(slots=True)
class Counters:
    """What the loads asked for.

    Attributes
    ----------
    nr_lookups : int
        Names looked up.
    nr_dentry_misses, nr_inode_misses : int
        ... of which had no dentry; and of those, whose inode had to be read.
    nr_created : int
        Files and directories created.
    nr_enomem : int
        Lookups and creations that failed for want of memory.
    """

    nr_lookups: int = 0
    nr_dentry_misses: int = 0
    nr_inode_misses: int = 0
    nr_created: int = 0
    nr_enomem: int = 0


@dataclass(frozen=True, slots=True)
class CachedFsObjects:
    """The filesystem's own part of the shrinker (``struct super_operations``).

    Attributes
    ----------
    nr_cached_objects, free_cached_objects : callable
        Each is given the `ShrinkControl`; the second frees about ``sc.nr_to_scan`` and returns what it says it freed.
    """

    nr_cached_objects: Callable[[ShrinkControl], int]
    free_cached_objects: Callable[[ShrinkControl], int]


class SuperBlock:
    """One mounted filesystem (``struct super_block``).

    Parameters
    ----------
    mm : Mm
        Its memory.
    fs : {"ext4", "xfs", "generic"}
        Its type.

    Attributes
    ----------
    dentries, inodes : CachedObjects
        What is cached.
    nr_names : int
        Names that lookups can ask for; they are numbered from 0.
    counters : Counters
        What was asked.
    cached_fs_objects : CachedFsObjects or None
        A filesystem's plugin may put its own here.
    """

    def __init__(self, mm: Mm, fs: FsName) -> None:
        kind = FILESYSTEMS[fs]
        create, flags = mm.slab.kmem_cache_create, mm.slab.SLAB_RECLAIM_ACCOUNT
        dentry_cache = create("dentry", DENTRY_SIZE, flags=flags)
        align = mm.slab.SLAB_HWCACHE_ALIGN if kind.hwcache_align else 0
        inode_cache = create(kind.inode_cache, kind.inode_size, flags=flags | align)
        self.mm = mm
        self.dentries = CachedObjects(mm, dentry_cache, "dentry", GFP_KERNEL)
        self.inodes = CachedObjects(mm, inode_cache, "inode", kind.gfp_mask)
        self.nr_names = 0
        self.counters = Counters()
        self.cached_fs_objects: CachedFsObjects | None = None
        self._parent = np.zeros(0, dtype=np.int32)
        self._exists = np.zeros(0, dtype=np.bool_)
        root = self.add_names(np.array([ROOT]), exists=True)
        # The mount's own references: these two cannot go.
        self._instantiate(root)

    # --- names --------------------------------------------------------------------------------------

    def add_names(self, parents: Ints, *, exists: bool | Bools) -> Ints:
        """New names below directories; nothing of them is cached.

        Parameters
        ----------
        parents : int64[n]
            Their directories.
        exists : bool or bool[n]
            Whether there is a file or directory of the name; a lookup of the others makes a negative dentry.
        """
        names = np.arange(self.nr_names, self.nr_names + len(parents), dtype=np.int64)
        self.nr_names += len(parents)
        self._parent = grown(self._parent, self.nr_names, ROOT)
        self._exists = grown(self._exists, self.nr_names, 0)
        self._parent[names] = parents
        self._exists[names] = exists
        self.dentries.fit_names(self.nr_names)
        self.inodes.fit_names(self.nr_names)
        return names

    def parents_of(self, names: Ints) -> Ints:
        """Their directories; the root's is the root."""
        return self._parent[names].astype(np.int64)

    def exist(self, names: Ints) -> Bools:
        """Which names there is a file or directory of."""
        return self._exists[names].astype(np.bool_)

    def dentry_is_cached(self, names: Ints) -> Bools:
        """Which names have a dentry."""
        cached: Bools = self.dentries.at[names] != NONE
        return cached

    # --- system calls, many at once -------------------------------------------------------------------

    def create(self, parents: Ints) -> Ints:
        """Create and open a file in each of these directories (``open(O_CREAT)``); a directory is made alike.

        Returns
        -------
        int64[n]
            The new names, each with one reference that `close` drops; fewer than asked for if memory is short.
        """
        held = self._hold_directories(parents)
        if held is None:
            self.counters.nr_enomem += len(parents)
            return np.empty(0, dtype=np.int64)
        names = self.add_names(parents, exists=True)
        made = self._instantiate(names)
        self.close(held)
        self.counters.nr_created += len(made)
        return made

    def open(self, names: Ints) -> Ints:
        """Look distinct names up and hold them.

        Returns
        -------
        int64[n]
            Those that are held; the others failed for want of memory.
        """
        self.counters.nr_lookups += len(names)
        hit = self.dentry_is_cached(names)
        self.dentries.count[names[hit]] += 1
        if hit.all():
            return names
        missing = names[~hit]
        self.counters.nr_dentry_misses += len(missing)
        found = self._look_up_slowly(missing)
        return np.concatenate([names[hit], found])

    def close(self, names: Ints) -> None:
        """Drop a reference of distinct names (``dput()``)."""
        self.dentries.put(names)

    def stat(self, names: Ints) -> None:
        """Look names up and let go again, in turn; a name may come more than once."""
        _, first, counts = np.unique(names, return_index=True, return_counts=True)
        order = np.argsort(first)
        distinct = names[first[order]]
        self.close(self.open(distinct))
        self.counters.nr_lookups += len(names) - len(distinct)
        again = distinct[counts[order] > 1]
        again = again[self.dentries.at[again] != NONE]
        # What is used a second time is on the LRU, unless somebody else holds it.
        self.dentries.referenced[again[self.dentries.count[again] == 0]] = True

    # --- instantiating ------------------------------------------------------------------------------

    def _hold_directories(self, parents: Ints) -> Ints | None:
        """Take a reference of each directory, looking it up if it is not cached; None if memory is short."""
        wanted = np.unique(parents).astype(np.int64)
        hit = self.dentry_is_cached(wanted)
        self.dentries.count[wanted[hit]] += 1
        found = wanted[hit]
        if not hit.all():
            found = np.concatenate([found, self._look_up_slowly(wanted[~hit])])
        if len(found) == len(wanted):
            return found
        self.close(found)
        return None

    def _look_up_slowly(self, missing: Ints) -> Ints:
        """Read distinct names that have no dentry (``lookup_slow()``); those held then."""
        held = self._hold_directories(self.parents_of(missing))
        if held is None:
            self.counters.nr_enomem += len(missing)
            return np.empty(0, dtype=np.int64)
        found = self._instantiate(missing, reading=True)
        self.close(held)
        return found

    def _instantiate(self, names: Ints, *, reading: bool = False) -> Ints:
        """Give names dentries, and inodes where there are none; their directories are held. Names that are held then.

        Memory comes first and may take time, in which somebody else may instantiate the same names, and reclaim may take
        inodes. Then names are bound without time passing.
        """
        dentries, inodes = self.dentries, self.inodes
        new_dentries = np.empty(0, dtype=np.int64)
        new_inodes = np.empty(0, dtype=np.int64)
        short = False
        while True:
            absent = names[dentries.at[names] == NONE]
            unread = self._exists[absent] & (inodes.at[absent] == NONE)
            nr_dentries, nr_inodes = len(absent) - len(new_dentries), int(unread.sum()) - len(new_inodes)
            if short or (nr_dentries <= 0 and nr_inodes <= 0):
                break
            if nr_dentries > 0:
                new_dentries = np.concatenate([new_dentries, dentries.alloc(nr_dentries)])
            if nr_inodes > 0:
                new_inodes = np.concatenate([new_inodes, inodes.alloc(nr_inodes)])
            short = len(new_dentries) < len(absent) or len(new_inodes) < int(unread.sum())
        found_meanwhile = names[dentries.at[names] != NONE]
        dentries.count[found_meanwhile] += 1
        # As many names, in order, as there is memory for.
        nr = min(len(absent), len(new_dentries))
        nr = min(nr, int(np.searchsorted(np.cumsum(unread), len(new_inodes), side="right")))
        self.counters.nr_enomem += len(absent) - nr
        absent, unread = absent[:nr], unread[:nr]
        if reading:
            self.counters.nr_inode_misses += int(unread.sum())
        self._bind(absent, absent[unread], new_dentries, new_inodes)
        dentries.free_unused(new_dentries[nr:])
        inodes.free_unused(new_inodes[int(unread.sum()) :])
        return np.concatenate([found_meanwhile, absent])

    def _bind(self, absent: Ints, unread: Ints, new_dentries: Ints, new_inodes: Ints) -> None:
        """``d_add()`` of names whose directories are held; no time passes."""
        dentries, inodes = self.dentries, self.inodes
        cached = absent[self._exists[absent] & (inodes.at[absent] != NONE)]
        inodes.count[cached] += 1
        inodes.bind(unread, new_inodes[: len(unread)])
        dentries.bind(absent, new_dentries[: len(absent)])
        below = absent[absent != ROOT]
        parents, nr_children = np.unique(self._parent[below], return_counts=True)
        dentries.count[parents] += nr_children.astype(np.int32)

    # --- the state a run starts from ------------------------------------------------------------------

    def populate(self, parents: Ints, *, exists: bool | Bools) -> Ints:
        """Create names whose dentries and inodes are cached and held, before time starts; see `create`.

        Faster than `create` for millions: it takes the memory of all dentries, then of all inodes.
        """
        names = self.add_names(parents, exists=exists)
        held = self._hold_directories(parents)
        assert held is not None, "memory was enough for the directories a moment ago"
        made = self._instantiate(names)
        self.close(held)
        return made

    def nr_unpinned(self) -> int:
        """Cached dentries and inodes that reclaim could free, in as many rounds as it takes.

        Pinned are a dentry that somebody holds, the directories above it, and their inodes.
        """
        dentries = self.dentries
        cached = np.flatnonzero(dentries.at != NONE)
        below = cached[cached != ROOT]
        held = dentries.count[cached].astype(np.int64)
        children = np.bincount(self._parent[below], minlength=self.nr_names)[cached]
        pinned = np.zeros(self.nr_names, dtype=np.bool_)
        climbing: Ints = cached[held > children]
        while len(climbing):
            pinned[climbing] = True
            parents = np.unique(self._parent[climbing]).astype(np.int64)
            climbing = parents[~pinned[parents]]
        nr_pinned_inodes = int((pinned & self._exists[: self.nr_names]).sum())
        return len(cached) - int(pinned.sum()) + self.inodes.nr_objects - nr_pinned_inodes

    # --- what the shrinker does -----------------------------------------------------------------------

    def prune_dcache(self, nr_to_scan: int) -> tuple[int, int]:
        """``prune_dcache_sb()``: isolated and walked, see `CachedObjects.walk`."""
        return self.dentries.walk(nr_to_scan, self.kill_dentries)

    def prune_icache(self, nr_to_scan: int) -> tuple[int, int]:
        """``prune_icache_sb()``."""
        return self.inodes.walk(nr_to_scan, self.evict_inodes)

    def kill_dentries(self, names: Ints) -> None:
        """Free names' dentries that nobody uses and that are on no list, and the directories that this leaves unused.

        ``shrink_dentry_list()``: a directory whose last child goes is freed with it, whether or not it was referenced.
        """
        if not len(names):
            return
        dentries, inodes = self.dentries, self.inodes
        killed: list[Ints] = []
        while len(names):
            parents, nr_children = np.unique(self.parents_of(names), return_counts=True)
            killed.append(dentries.unbind(names))
            inodes.put(names[self._exists[names]])
            dentries.count[parents] -= nr_children.astype(np.int32)
            names = parents[dentries.count[parents] == 0]
            names = names[np.argsort(dentries.at[names])]
            dentries.lru.remove(names)
        dentries.free(np.concatenate(killed))

    def evict_inodes(self, names: Ints) -> None:
        """Free inodes that nobody uses and that are on no list, the one isolated last first (``dispose_list()``)."""
        if len(names):
            self.inodes.free(self.inodes.unbind(names)[::-1])

    def kick_inodes(self, names: Ints) -> None:
        """Free inodes that nobody uses but, perhaps, an unused dentry, with that (``d_prune_aliases()``, ``iput()``)."""
        aliased = names[self.dentry_is_cached(names)]
        self.dentries.lru.remove(aliased)
        self.kill_dentries(aliased)
        # Freeing dentries lets time pass, in which somebody may use one of the inodes again.
        names = names[self.inodes.at[names] != NONE]
        names = names[self.inodes.count[names] == 0]
        self.inodes.lru.remove(names)
        self.evict_inodes(names)

    def umount(self) -> None:
        """Free everything."""
        self.dentries.destroy()
        self.inodes.destroy()
