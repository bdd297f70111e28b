"""What filesystems differ in here: size and mask of their inodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mmfw.gfp import GFP_KERNEL, GFP_NOFS, NOFAIL

FsName = Literal["ext4", "xfs", "generic"]


@dataclass(frozen=True, slots=True)
class Filesystem:
    """One type.

    Attributes
    ----------
    sb_type : str
        As the shrinker's name has it, ``sb-<type>``.
    inode_cache : str
        Name of the slab cache.
    inode_size : int
        Bytes of an inode; it depends on the kernel's configuration.
    hwcache_align : bool
        Whether the cache has ``SLAB_HWCACHE_ALIGN``.
    gfp_mask : int
        Mask with which an inode is allocated.
    """

    sb_type: str
    inode_cache: str
    inode_size: int
    hwcache_align: bool
    gfp_mask: int


FILESYSTEMS: Final[dict[FsName, Filesystem]] = {
    # ext4_alloc_inode(), fs/ext4/super.c: GFP_NOFS, so direct reclaim below it gets nothing of the superblocks.
    "ext4": Filesystem("ext4", "ext4_inode_cache", 1096, False, GFP_NOFS),
    # xfs_inode_alloc(), fs/xfs/xfs_icache.c; the cache is made in fs/xfs/xfs_super.c.
    "xfs": Filesystem("xfs", "xfs_inode", 1000, True, GFP_KERNEL | NOFAIL),
    # alloc_inode(), fs/inode.c: filesystems without inodes of their own, as ramfs.
    "generic": Filesystem("generic", "inode_cache", 600, False, GFP_KERNEL),
}
#: ``sizeof(struct dentry)`` on 64 bits.
DENTRY_SIZE: Final = 192
