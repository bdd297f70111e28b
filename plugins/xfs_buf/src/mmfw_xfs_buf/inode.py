"""The inodes that XFS caches (fs/xfs/xfs_icache.c), and how reclaim gets at them.

An inode that the VFS has dropped stays in memory, tagged reclaimable, until the background worker or a shrinker of the
superblock comes by: both free what is clean in order of inode number and skip the rest. A dirty inode holds the buffer of
its cluster from when it is logged until that has been written; so dirty inodes pin buffers, and reading an inode costs a
buffer of 16 KiB besides the inode.

Simplified:

* Without a plugin that models the VFS, an inode is dropped when its last user is done (no dentries, no ``s_inode_lru``).
* The log is not modelled: a logged inode is in the AIL at once and never pinned; ``struct xfs_inode_log_item``, extent
  lists and the radix trees have no memory.
* No sick inodes, no post-EOF blocks: only unlinked inodes need to be inactivated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.sched import WaitQueue
from mmfw_xfs_buf.slabshare import SlabShare
from mmfw_xfs_buf.types import BBSIZE, BufType

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_xfs_buf.buftarg import XfsBuftarg
    from mmfw_xfs_buf.dquot import XfsDquots

Inos = NDArray[np.int64]

#: ``sizeof(struct xfs_inode)`` with its alignment, as /proc/slabinfo has it: 32 to a slab of order 3.
INODE_BYTES: Final = 1024
#: On-disk inodes of 512 bytes, 32 to a cluster (``XFS_INODE_BIG_CLUSTER_SIZE`` scaled by their size).
CLUSTER_BYTES: Final = 16384
INODES_PER_CLUSTER: Final = 32
#: ``XFS_LOOKUP_BATCH``.
LOOKUP_BATCH: Final = 32
#: What making an inode of its on-disk form, and taking one apart, costs the CPU, ns: assumptions (a checksum of 512
#: bytes, some allocations, a tree insertion; the same backwards).
IGET_NS: Final = 2_000
RECLAIM_INODE_NS: Final = 500

# --- state of an inode --------------------------------------------------------------------------------
ABSENT: Final = 0
ACTIVE: Final = 1
RECLAIMABLE: Final = 2
NEED_INACTIVE: Final = 3
INACTIVATING: Final = 4


@dataclass(slots=True)
class InodeStats:
    """Counters (``xs_ig``).

    Attributes
    ----------
    hits, recycled, misses : int
        Lookups that found an inode in use, one that was reclaimable, or none.
    reclaims : int
        Inodes freed (``xs_ig_reclaims``), by whomever.
    shrunk : int
        Of them, those that a shrinker freed.
    skipped_dirty : int
        Times that reclaim met a dirty one and went on.
    cluster_writes : int
        Clusters written (``xs_icluster_flushcnt``).
    """

    hits: int = 0
    recycled: int = 0
    misses: int = 0
    reclaims: int = 0
    shrunk: int = 0
    skipped_dirty: int = 0
    cluster_writes: int = 0


class XfsInodeCache:
    """Inodes of one mount; ``mm.attached.get(XfsInodeCache)``.

    Parameters
    ----------
    mm : Mm
        Whose memory.
    buftarg : XfsBuftarg
        Where cluster buffers are.
    dquots : XfsDquots
        Whose references an inode drops when the VFS drops it.
    nr_inodes, nr_ags : int
        Size of the filesystem. Inode numbers are 0 to ``nr_inodes - 1``, in equal shares by AG.
    first_daddr : int
        Where their clusters begin on the device.

    Attributes
    ----------
    stats : InodeStats
        Counters.
    nr_reclaimable : int
        Inodes tagged reclaimable (``pag_ici_reclaimable`` of all AGs).
    dirty : bool[n]
        Logged, and nobody has begun to write it.
    need_inactive : callable
        What takes inodes that must be inactivated first (`mmfw_xfs_buf.inodegc`).
    push_ail : callable
        What has dirty inodes written (`mmfw_xfs_buf.ail`).
    """

    def __init__(
        self,
        mm: Mm,
        buftarg: XfsBuftarg,
        dquots: XfsDquots,
        *,
        nr_inodes: int,
        nr_ags: int,
        first_daddr: int,
    ) -> None:
        self.stats = InodeStats()
        self.nr_inodes = nr_inodes
        self.nr_reclaimable = 0
        self.dirty: NDArray[np.bool_] = np.zeros(nr_inodes, dtype=np.bool_)
        self.need_inactive: Callable[[int], None] = lambda ino: self.set_reclaimable(ino)
        self.push_ail: Callable[[], None] = lambda: None
        self._flushing: NDArray[np.bool_] = np.zeros(nr_inodes, dtype=np.bool_)
        self._mm = mm
        self._buftarg = buftarg
        self._dquots = dquots
        self._first_daddr = first_daddr
        self._per_ag = -(-nr_inodes // nr_ags)
        self._state: NDArray[np.uint8] = np.zeros(nr_inodes, dtype=np.uint8)
        self._users: NDArray[np.int32] = np.zeros(nr_inodes, dtype=np.int32)
        self._unlinked: NDArray[np.bool_] = np.zeros(nr_inodes, dtype=np.bool_)
        self._obj: NDArray[np.int64] = np.full(nr_inodes, -1, dtype=np.int64)
        self._evicted_at: NDArray[np.int64] = np.full(nr_inodes, -1, dtype=np.int64)
        self._dqid: NDArray[np.int32] = np.full(nr_inodes, -1, dtype=np.int32)
        self._cursor = [ag * self._per_ag for ag in range(nr_ags)]
        self._changed = WaitQueue(mm.sched, "xfs_inode")
        slab = mm.slab
        self._cache = slab.kmem_cache_create(
            "xfs_inode",
            INODE_BYTES,
            flags=slab.SLAB_HWCACHE_ALIGN | slab.SLAB_RECLAIM_ACCOUNT | slab.SLAB_ACCOUNT,
        )
        self._share = SlabShare(mm, "xfs_inode", self._cache)

    @property
    def nr_cached(self) -> int:
        """Inodes in memory."""
        return int((self._state != ABSENT).sum())

    def state(self, ino: int) -> int:
        """``ABSENT``, ``ACTIVE``, ``RECLAIMABLE``, ``NEED_INACTIVE`` or ``INACTIVATING``."""
        return int(self._state[ino])

    def _cluster_daddr(self, ino: int) -> int:
        return self._first_daddr + ino // INODES_PER_CLUSTER * (CLUSTER_BYTES // BBSIZE)

    def read_cluster(self, ino: int) -> int:
        """The buffer of an inode's cluster, held (``xfs_imap_to_bp()``)."""
        return self._buftarg.read(self._cluster_daddr(ino), CLUSTER_BYTES, BufType.INODE)

    # --- use ----------------------------------------------------------------------------------------

    def iget(self, ino: int) -> bool:
        """Find or read an inode, and use it (``xfs_iget()``); False if it was unlinked (``-ENOENT``).

        Raises
        ------
        ValueError
            The filesystem has no such inode.
        """
        if not 0 <= ino < self.nr_inodes:
            raise ValueError(f"inode {ino}; the filesystem has 0 to {self.nr_inodes - 1}")
        while True:
            state = self._state[ino]
            if state == ACTIVE:
                self.stats.hits += 1
                self._users[ino] += 1
                return True
            if state == RECLAIMABLE:
                # xfs_iget_recycle(): the object is set up again, nothing is read.
                self.stats.recycled += 1
                self.nr_reclaimable -= 1
                self._state[ino] = ACTIVE
                self._users[ino] += 1
                return True
            if state != ABSENT:
                if self._unlinked[ino]:
                    return False
                self._changed.wait_event(lambda: self._state[ino] not in (NEED_INACTIVE, INACTIVATING))
            elif self._iget_miss(ino):
                return True

    def _iget_miss(self, ino: int) -> bool:
        """``xfs_iget_cache_miss()``; False if another task was faster."""
        mask = self._buftarg.kernel.inode_gfp
        while (obj := self._cache.kmem_cache_alloc(mask)) < 0:
            self._mm.sched.sleep(1)
        slot = self.read_cluster(ino)
        self._mm.charge(IGET_NS, "xfs_iget")
        self._buftarg.set_ref(slot)
        self._buftarg.rele(slot)
        if self._state[ino] != ABSENT:
            self._cache.kmem_cache_free(obj)
            return False
        self.stats.misses += 1
        self._obj[ino] = obj
        self._state[ino] = ACTIVE
        self._users[ino] = 1
        if self._evicted_at[ino] >= 0:
            self._share.recreated(self._mm.sched.now - int(self._evicted_at[ino]))
            self._evicted_at[ino] = -1
        return True

    def log(self, ino: int, dqid: int = -1) -> None:
        """Change an inode in use (``xfs_trans_log_inode()``, ``xfs_inode_item_precommit()``).

        Parameters
        ----------
        ino : int
            The inode.
        dqid : int
            Dquot that the change is charged to; the inode keeps a reference to it until the VFS drops it. -1 for none.
        """
        if dqid >= 0 and self._dqid[ino] < 0:
            self._dquots.dqget(dqid)
            self._dqid[ino] = dqid
        if dqid >= 0:
            self._dquots.set_dirty(dqid)
        # A reference is the log item's: it keeps the cluster's buffer until the inode has been written.
        if self._flushing[ino] and not self.dirty[ino]:
            # The item has the buffer still, so it is not waited for although it is being written.
            self._buftarg.hold(int(self._buftarg.lookup(np.array([self._cluster_daddr(ino)]))[0]))
            self.dirty[ino] = True
        elif not self.dirty[ino]:
            slot = self.read_cluster(ino)
            if self.dirty[ino]:
                self._buftarg.rele(slot)
            else:
                self.dirty[ino] = True

    def unlink(self, ino: int) -> None:
        """Remove the last name of an inode in use; it goes when its last user is done."""
        self._unlinked[ino] = True

    def irele(self, ino: int) -> None:
        """Drop a use of an inode (``iput()``, and, for want of a VFS, ``destroy_inode()``)."""
        self._users[ino] -= 1
        if self._users[ino] == 0:
            self.mark_reclaimable(ino)

    def mark_reclaimable(self, ino: int) -> None:
        """The VFS has dropped an inode (``xfs_inode_mark_reclaimable()``)."""
        if self._unlinked[ino]:
            self._state[ino] = NEED_INACTIVE
            self.need_inactive(ino)
        else:
            self.set_reclaimable(ino)

    def set_reclaimable(self, ino: int) -> None:
        """Drop its dquot and tag it (``xfs_inodegc_set_reclaimable()``)."""
        if self._dqid[ino] >= 0:
            self._dquots.dqput(int(self._dqid[ino]))
            self._dqid[ino] = -1
        self._state[ino] = RECLAIMABLE
        self.nr_reclaimable += 1
        self._changed.wake_up_all()

    def inactivate(self, ino: int) -> None:
        """Free an unlinked inode on disk (``xfs_inodegc_inactivate()``): it is logged; then it is reclaimable."""
        self._state[ino] = INACTIVATING
        self.log(ino)
        self._unlinked[ino] = False
        self.set_reclaimable(ino)

    # --- reclaim ------------------------------------------------------------------------------------

    def nr_cached_objects(self) -> int:
        """What a shrinker of the superblock counts beside dentries and inodes (``xfs_fs_nr_cached_objects()``)."""
        return self.nr_reclaimable

    def free_cached_objects(self, nr_to_scan: int) -> int:
        """Have about so many inodes freed (``xfs_fs_free_cached_objects()``); always 0, whatever went.

        Dirty ones are skipped, and what writes them is told to (``xfs_ail_push_all()``).
        """
        self.push_ail()
        before = self.stats.reclaims
        self.icwalk(nr_to_scan, evicting=True)
        self.stats.shrunk += self.stats.reclaims - before
        return 0

    def icwalk(self, scan_limit: int | None, *, evicting: bool) -> None:
        """Walk the reclaimable inodes of every AG in order of number (``xfs_icwalk()``, ``XFS_ICWALK_RECLAIM``).

        Parameters
        ----------
        scan_limit : int or None
            Inodes to look at; it is looked at after each batch of 32, so every AG has one at least. None: all.
        evicting : bool
            Whether memory is wanted, as opposed to the background worker's round.
        """
        left = scan_limit
        for ag in range(len(self._cursor)):
            end = min((ag + 1) * self._per_ag, self.nr_inodes)
            at = self._cursor[ag]
            while True:
                found = self._gang_lookup(at, end)
                if len(found) == 0:
                    at = ag * self._per_ag
                    break
                at = int(found[-1]) + 1
                self._reclaim(found, evicting=evicting)
                self._mm.cond_resched()
                if left is not None:
                    left -= LOOKUP_BATCH
                    if left <= 0:
                        break
            self._cursor[ag] = at

    def _gang_lookup(self, first: int, end: int) -> Inos:
        """Up to 32 reclaimable inodes from a number on (``radix_tree_gang_lookup_tag()``)."""
        span = 16 * LOOKUP_BATCH
        while first < end:
            found = first + np.flatnonzero(self._state[first : min(first + span, end)] == RECLAIMABLE)
            if len(found) >= LOOKUP_BATCH or first + span >= end:
                return found[:LOOKUP_BATCH]
            span *= 4
        return np.empty(0, dtype=np.int64)

    def _reclaim(self, inos: Inos, *, evicting: bool) -> None:
        """Free those that are clean (``xfs_reclaim_inode()``)."""
        clean = inos[~(self.dirty[inos] | self._flushing[inos])]
        self.stats.skipped_dirty += len(inos) - len(clean)
        if len(clean) == 0:
            return
        objects = self._obj[clean]
        self._obj[clean] = -1
        self._state[clean] = ABSENT
        self.nr_reclaimable -= len(clean)
        self.stats.reclaims += len(clean)
        self._mm.charge(len(clean) * RECLAIM_INODE_NS, "xfs_reclaim_inode")
        # What the background worker frees is no loss to reclaim, so the ledger does not hear of it.
        self._evicted_at[clean] = self._mm.sched.now if evicting else -1
        if evicting:
            self._share.free_evicted(objects)
        else:
            self._cache.kmem_cache_free_bulk(objects)

    # --- writing ------------------------------------------------------------------------------------

    def begin_flush(self, ino: int) -> Inos:
        """Copy the dirty inodes of an inode's cluster to its buffer (``xfs_iflush_cluster()``); which they are.

        What is logged from then on has a reference to the buffer of its own and is written by a later flush.
        """
        first = ino // INODES_PER_CLUSTER * INODES_PER_CLUSTER
        inos = first + np.flatnonzero(self.dirty[first : first + INODES_PER_CLUSTER])
        self.dirty[inos] = False
        self._flushing[inos] = True
        return inos

    def end_flush(self, inos: Inos, slot: int) -> None:
        """They are on disk (``xfs_buf_inode_iodone()``): each gives its reference to the buffer back."""
        self.stats.cluster_writes += 1
        self._flushing[inos] = False
        for _ in range(len(inos)):
            self._buftarg.rele(slot)

    def destroy(self) -> None:
        """Free every inode, at unmount."""
        there = np.flatnonzero(self._obj >= 0)
        self._cache.kmem_cache_free_bulk(self._obj[there])
        self._obj[there] = -1
        self._state[:] = ABSENT
        self._mm.slab.kmem_cache_destroy(self._cache)
