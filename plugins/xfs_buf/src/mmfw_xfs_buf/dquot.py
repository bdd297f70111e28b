"""Dquots: usage and limits of a user, cached by XFS itself (fs/xfs/xfs_dquot.c, fs/xfs/xfs_qm.c).

A dquot that nobody uses waits on a list of its own. The shrinker frees a clean one, and writes a dirty one first: for
that it needs the buffer of its block, which 6.1 may have to read in from the device, in reclaim.

Simplified: one kind of quota; no limits, so no inode is throttled near one; no dquot is locked while time passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp, hookimpl
from mmfw.sched import WaitQueue
from mmfw_xfs_buf.slabshare import SlabShare
from mmfw_xfs_buf.types import BBSIZE, BufType

if TYPE_CHECKING:
    from mmfw import Mm, ShrinkControl
    from mmfw_xfs_buf.buftarg import XfsBuftarg
    from mmfw_xfs_buf.disk import MetaDisk

#: ``sizeof(struct xfs_dquot)``, about: an assumption within some words.
DQUOT_BYTES: Final = 496
#: ``XFS_DQUOT_CLUSTER_SIZE_FSB``, one block of 4096 bytes, and the ``struct xfs_dqblk`` of 136 bytes in it.
DQUOT_BLOCK_BYTES: Final = 4096
DQUOTS_PER_BLOCK: Final = 30
_RECLAIM: Final = gfp.FS | gfp.DIRECT_RECLAIM


@dataclass(slots=True)
class DquotStats:
    """Counters (``xs_qm``): cache hits and misses, dquots reclaimed, scanned in vain, wanted again, and written."""

    hits: int = 0
    misses: int = 0
    reclaims: int = 0
    reclaim_misses: int = 0
    wants: int = 0
    written: int = 0


class XfsDquots:
    """Dquots of one mount; ``mm.attached.get(XfsDquots)``.

    Parameters
    ----------
    mm : Mm
        Whose memory.
    buftarg, disk
        Where their blocks are.
    nr_dquots : int
        Ids are 0 to ``nr_dquots - 1``.
    first_daddr : int
        Where their blocks begin.

    Attributes
    ----------
    lru : ListLru
        ``qi_lru``, by id: dquots without users, and some that have found one since.
    dirty : bool[n]
        Changed and not written.
    stats : DquotStats
        Counters.
    """

    def __init__(
        self, mm: Mm, buftarg: XfsBuftarg, disk: MetaDisk, *, nr_dquots: int, first_daddr: int
    ) -> None:
        self.lru = mm.slab.list_lru()
        self.stats = DquotStats()
        self.dirty: NDArray[np.bool_] = np.zeros(nr_dquots, dtype=np.bool_)
        self._mm = mm
        self._buftarg = buftarg
        self._disk = disk
        self._first_daddr = first_daddr
        self._obj: NDArray[np.int64] = np.full(nr_dquots, -1, dtype=np.int64)
        self._nrefs: NDArray[np.int32] = np.zeros(nr_dquots, dtype=np.int32)
        self._flushing: NDArray[np.bool_] = np.zeros(nr_dquots, dtype=np.bool_)
        # Buffer that a dirty dquot holds, since 6.13.
        self._held: NDArray[np.int64] = np.full(nr_dquots, -1, dtype=np.int64)
        self._evicted_at: NDArray[np.int64] = np.full(nr_dquots, -1, dtype=np.int64)
        self._io_done = WaitQueue(mm.sched, "xfs_qm delwri")
        self._cache = mm.slab.kmem_cache_create("xfs_dquot", DQUOT_BYTES)
        self._share = SlabShare(mm, "xfs_dquot", self._cache)

    @property
    def nr_cached(self) -> int:
        """Dquots in memory."""
        return int((self._obj >= 0).sum())

    def _read_block(self, dqid: int) -> int:
        daddr = self._first_daddr + dqid // DQUOTS_PER_BLOCK * (DQUOT_BLOCK_BYTES // BBSIZE)
        slot = self._buftarg.read(daddr, DQUOT_BLOCK_BYTES, BufType.DQUOT)
        self._buftarg.set_ref(slot)
        return slot

    def dqget(self, dqid: int) -> None:
        """Find or read a dquot, and use it (``xfs_qm_dqget()``). One that is on the list stays there for now."""
        while self._obj[dqid] < 0:
            self._buftarg.rele(self._read_block(dqid))
            obj = self._cache.kmem_cache_alloc(gfp.GFP_KERNEL | gfp.NOFAIL)
            if obj < 0 or self._obj[dqid] >= 0:
                if obj >= 0:
                    self._cache.kmem_cache_free(obj)
                continue
            self.stats.misses += 1
            self._obj[dqid] = obj
            self._nrefs[dqid] = 1
            if self._evicted_at[dqid] >= 0:
                self._share.recreated(self._mm.sched.now - int(self._evicted_at[dqid]))
                self._evicted_at[dqid] = -1
            return
        self.stats.hits += 1
        self._nrefs[dqid] += 1

    def dqput(self, dqid: int) -> None:
        """Drop a use (``xfs_qm_dqput()``); the last one puts it on the list."""
        self._nrefs[dqid] -= 1
        if self._nrefs[dqid] == 0:
            self.lru.add(np.array([dqid]))

    def set_dirty(self, dqid: int) -> None:
        """Change a dquot in use (``xfs_trans_log_dquot()``); since 6.13 it holds its buffer from then on."""
        if self._buftarg.kernel.dirty_dquot_holds_buffer and self._held[dqid] < 0:
            slot = self._read_block(dqid)
            if self._held[dqid] >= 0:
                self._buftarg.rele(slot)
            else:
                self._held[dqid] = slot
        self.dirty[dqid] = True

    def shrink(self, nr_to_scan: int) -> int:
        """Walk the list (``xfs_qm_shrink_scan()``, ``xfs_qm_dquot_isolate()``); dquots taken off it.

        A dirty dquot is written, and the walk begins anew, for the list's lock was dropped; what it passes again counts
        again. When the writes are done it is clean, for the next scan.
        """
        dispose: list[int] = []  # objects
        writes: list[tuple[int, int]] = []
        isolated, at = 0, 0
        items = self._listed()
        while nr_to_scan and at < len(items):
            nr_to_scan -= 1
            dqid = items[at]
            if self._nrefs[dqid]:
                self.stats.wants += 1
            elif self._flushing[dqid]:
                self.stats.reclaim_misses += 1
                at += 1
                continue
            elif self.dirty[dqid]:
                self.stats.reclaim_misses += 1
                self._flushing[dqid] = True
                writes.append((dqid, self._begin_write(dqid)))
                items, at = self._listed(), 0
                continue
            else:
                # From here on a lookup does not find it (XFS_DQFLAG_FREEING).
                dispose.append(int(self._obj[dqid]))
                self._obj[dqid] = -1
                self._evicted_at[dqid] = self._mm.sched.now
                self.stats.reclaims += 1
            isolated += 1
            self.lru.remove(np.array([dqid]))
            del items[at]
        self._write(writes)
        if dispose:
            self._share.free_evicted(np.array(dispose, dtype=np.int64))
        return isolated

    def _listed(self) -> list[int]:
        listed: list[int] = self.lru.oldest(len(self.lru)).tolist()
        return listed

    def _begin_write(self, dqid: int) -> int:
        """``xfs_qm_dqflush()``: copy it to its buffer, which it then holds."""
        slot = int(self._held[dqid])
        if slot < 0:
            slot = self._read_block(dqid)
        self._held[dqid] = -1
        self.dirty[dqid] = False
        return slot

    def _write(self, writes: list[tuple[int, int]]) -> None:
        """Write the buffers and wait (``xfs_buf_delwri_submit()``)."""
        pending = {slot: None for _, slot in writes}

        def done(slot: int) -> None:
            self._buftarg.write_end(slot)
            del pending[slot]
            self._io_done.wake_up_all()

        for slot in tuple(pending):
            self._buftarg.write_begin(slot)
            self._disk.write(DQUOT_BLOCK_BYTES, partial(done, slot))
        if writes:
            self._io_done.wait_event(lambda: not pending)
        for dqid, slot in writes:
            self._flushing[dqid] = False
            self.stats.written += 1
            self._buftarg.rele(slot)

    def destroy(self) -> None:
        """Free every dquot, at unmount."""
        there = np.flatnonzero(self._obj >= 0)
        self._cache.kmem_cache_free_bulk(self._obj[there])
        self._obj[there] = -1
        self._mm.slab.kmem_cache_destroy(self._cache)


class XfsQmShrinker:
    """The shrinker "xfs-qm:<device>"."""

    seeks = 2
    batch = 0

    def __init__(self, mm: Mm, dquots: XfsDquots) -> None:
        self._mm = mm
        self._dquots = dquots

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Dquots on the list."""
        return len(self._dquots.lru)

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Look at ``nr_to_scan`` dquots; 0 unless the mask has ``__GFP_FS`` and ``__GFP_DIRECT_RECLAIM``."""
        if sc.gfp_mask & _RECLAIM != _RECLAIM:
            return 0
        self._mm.charge(sc.nr_to_scan * self._mm.costs.scan_object, "xfs-qm walk")
        return self._dquots.shrink(sc.nr_to_scan)
