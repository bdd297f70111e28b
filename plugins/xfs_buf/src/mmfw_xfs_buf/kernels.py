"""What XFS does otherwise in later kernels, as named switches (fs/xfs/xfs_buf.c, fs/xfs/xfs_qm.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmfw import gfp


@dataclass(frozen=True, slots=True)
class XfsKernel:
    """Rules of one kernel.

    Attributes
    ----------
    folio_buffers : bool
        A buffer of several pages is one folio if there is one, else vmalloc'ed (6.15 and later). Before it is an array of
        single pages, mapped by ``vm_map_ram()``.
    overcounts_progress : bool
        What a freed buffer of a page or more credits to reclaim is its size in units of 12 bytes: 6.15 and later pass the
        page *shift* to ``howmany()``. Before it is the number of pages.
    lru_holds_reference : bool
        A buffer on the LRU has a reference of the LRU's, so a scan treats a buffer in use like any other. Without it a
        scan takes a buffer in use off the list, and counts that as freed (series "buffer cache simplification", January
        2026; which release has it is not verified, taken to be in both 7.x profiles).
    dirty_dquot_holds_buffer : bool
        A dquot keeps the buffer it will be written to from when it is dirtied (6.13 and later), so the shrinker never
        reads one in to write a dquot.
    alloc_gfp : int
        Mask of what a buffer is made of, without what the cases below add.
    inode_gfp : int
        Mask of an inode.
    """

    folio_buffers: bool
    overcounts_progress: bool
    lru_holds_reference: bool
    dirty_dquot_holds_buffer: bool
    alloc_gfp: int
    inode_gfp: int


_LATER: Final = XfsKernel(
    folio_buffers=True,
    overcounts_progress=True,
    lru_holds_reference=False,
    dirty_dquot_holds_buffer=True,
    alloc_gfp=gfp.GFP_KERNEL | gfp.NOWARN,
    inode_gfp=gfp.GFP_KERNEL | gfp.NOFAIL,
)
#: By `mmfw.kernels.KernelProfile.name`.
XFS_KERNELS: Final = {
    "6.1": XfsKernel(
        folio_buffers=False,
        overcounts_progress=False,
        lru_holds_reference=True,
        dirty_dquot_holds_buffer=False,
        alloc_gfp=gfp.GFP_NOFS | gfp.NOWARN,
        inode_gfp=gfp.GFP_KERNEL | gfp.NOFAIL,
    ),
    "7.1": _LATER,
    "7.2": _LATER,
}
