"""One mounted filesystem: its device, caches, threads and shrinkers (``struct xfs_mount``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import SHRINK_EMPTY, SHRINK_STOP, InputError, gfp, hookimpl
from mmfw_xfs_buf.ail import ReclaimWorker, Xfsaild
from mmfw_xfs_buf.buftarg import LEDGER, XfsBuftarg
from mmfw_xfs_buf.disk import MetaDisk
from mmfw_xfs_buf.dquot import DQUOT_BLOCK_BYTES, DQUOTS_PER_BLOCK, XfsDquots, XfsQmShrinker
from mmfw_xfs_buf.inode import CLUSTER_BYTES, INODES_PER_CLUSTER, XfsInodeCache
from mmfw_xfs_buf.inodegc import XfsInodegc, XfsInodegcShrinker
from mmfw_xfs_buf.kernels import XFS_KERNELS
from mmfw_xfs_buf.params import XfsParams
from mmfw_xfs_buf.shrinker import XfsBufShrinker
from mmfw_xfs_buf.types import BBSIZE

if TYPE_CHECKING:
    from mmfw import Mm, ShrinkControl
    from mmfw.mm.shrinker import Shrinker


class XfsSuperShrinker:
    """XFS's part of the shrinker "sb-xfs:<device>" (``super_cache_scan()``, fs/super.c): no dentries, no VFS inodes.

    Parameters
    ----------
    inodes : XfsInodeCache
        Whose inodes.
    vfs_cache_pressure : int
        ``vm.vfs_cache_pressure``, percent.
    """

    seeks = 2
    batch = 1024

    def __init__(self, inodes: XfsInodeCache, vfs_cache_pressure: int) -> None:
        self._inodes = inodes
        self._pressure = vfs_cache_pressure

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Reclaimable inodes, by the pressure."""
        nr_objects = self._inodes.nr_cached_objects()
        return nr_objects * self._pressure // 100 if nr_objects else SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Have inodes freed; SHRINK_STOP without ``__GFP_FS``, else 0, for XFS never says how many went."""
        if not sc.gfp_mask & gfp.FS:
            return SHRINK_STOP
        fs_objects = self._inodes.nr_cached_objects()
        share = sc.nr_to_scan * fs_objects // (fs_objects + 1)
        if share:
            self._inodes.free_cached_objects(share + 1)
        return 0


class XfsMount:
    """The filesystem; ``mm.attached.get(XfsMount)``.

    Parameters
    ----------
    mm : Mm
        Whose memory.
    params : XfsParams
        What the user set.

    Raises
    ------
    InputError
        Another plugin models the inodes of XFS.

    Attributes
    ----------
    disk : MetaDisk
        Its device.
    buftarg : XfsBuftarg
        Its buffers.
    dquots : XfsDquots
        Its dquots.
    inodes : XfsInodeCache
        Its inodes.
    inodegc : XfsInodegc
        What inactivates unlinked ones.
    ail : Xfsaild
        What writes dirty ones.
    nr_ags : int
        Allocation groups.
    """

    def __init__(self, mm: Mm, params: XfsParams) -> None:
        kernel = XFS_KERNELS[mm.kernel]
        if any(cache.name == "xfs_inode" for cache in mm.slab.caches):
            raise InputError(
                'plugin xfs: another plugin has XFS inodes already (dcache does with dcache.fs = "xfs"); '
                "give it another filesystem, or leave one of the two out"
            )
        self._mm = mm
        self._next_daddr = 0
        self.nr_ags = params.nr_ags
        self.disk = MetaDisk(
            mm,
            latency_ns=params.disk_latency_us * 1_000,
            page_ns=mm.costs.writeback_page,
            channels=params.disk_channels,
        )
        self.buftarg = XfsBuftarg(
            mm,
            kernel,
            self.disk,
            overcounts_progress=params.overcount_progress,
            flat_lru_ref=params.flat_lru_ref,
        )
        clusters = -(-params.nr_inodes // INODES_PER_CLUSTER)
        blocks = -(-params.nr_dquots // DQUOTS_PER_BLOCK)
        self.dquots = XfsDquots(
            mm,
            self.buftarg,
            self.disk,
            nr_dquots=params.nr_dquots,
            first_daddr=self.lay_out(blocks, DQUOT_BLOCK_BYTES),
        )
        self.inodes = XfsInodeCache(
            mm,
            self.buftarg,
            self.dquots,
            nr_inodes=params.nr_inodes,
            nr_ags=params.nr_ags,
            first_daddr=self.lay_out(clusters, CLUSTER_BYTES),
        )
        self.inodegc = XfsInodegc(mm, self.inodes)
        self.ail = Xfsaild(mm, self.buftarg, self.disk, self.inodes)
        self.inodes.need_inactive = self.inodegc.queue
        self.inodes.push_ail = self.ail.push_all
        device = params.device
        for thread, name in (
            (self.ail.run, f"xfsaild/{device}"),
            (self.inodegc.run, f"xfs-inodegc/{device}"),
            (ReclaimWorker(mm, self.inodes).run, f"xfs-reclaim/{device}"),
        ):
            mm.kthread_run(thread, name)
        mm.ledger.hold(LEDGER, lambda: self.buftarg.nr_pages)
        self._sb: Shrinker | None = None
        self._shrinkers: list[Shrinker] = []
        # In the order of xfs_fs_fill_super(): sget_fc(), xfs_open_devices(), xfs_mountfs().
        if params.sb_shrinker:
            sb = XfsSuperShrinker(self.inodes, params.vfs_cache_pressure)
            self._sb = mm.register_shrinker(sb, f"sb-xfs:{device}")
        for shrinker, name in (
            (XfsBufShrinker(mm, self.buftarg), "xfs-buf"),
            (XfsInodegcShrinker(self.inodegc), "xfs-inodegc"),
            (XfsQmShrinker(mm, self.dquots), "xfs-qm"),
        ):
            self._shrinkers.append(mm.register_shrinker(shrinker, f"{name}:{device}"))

    def lay_out(self, count: int, nr_bytes: int) -> int:
        """Set blocks of the device aside, one behind the other; the daddr of the first."""
        first = -(-self._next_daddr // (nr_bytes // BBSIZE)) * (nr_bytes // BBSIZE)
        self._next_daddr = first + count * (nr_bytes // BBSIZE)
        return first

    def adopt_superblock(self) -> XfsInodeCache:
        """Leave the superblock's shrinker to a plugin that has its dentries and VFS inodes too.

        Ours goes; the caller asks ``nr_cached_objects()`` and ``free_cached_objects()`` of what is returned, calls
        ``mark_reclaimable()`` where it evicts an inode, and sees to it that nobody calls ``irele()`` behind its back.
        """
        if self._sb is not None:
            self._mm.unregister_shrinker(self._sb)
            self._sb = None
        return self.inodes

    def unmount(self) -> None:
        """Free everything (``xfs_unmountfs()``)."""
        self.adopt_superblock()
        for shrinker in self._shrinkers:
            self._mm.unregister_shrinker(shrinker)
        self._shrinkers.clear()
        self.inodes.destroy()
        self.dquots.destroy()
        self.buftarg.drain()
