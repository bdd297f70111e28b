"""What a filesystem lets the page cache do: folio sizes, masks, readahead, by kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from mmfw import gfp

#: Largest folio of a file: 2 MiB (``MAX_PAGECACHE_ORDER`` on x86).
MAX_PAGECACHE_ORDER: Final = 9
#: 128 KiB (``VM_READAHEAD_PAGES``), and 4 MiB, which btrfs asks for at least (``open_ctree()``).
VM_READAHEAD_PAGES: Final = 32
BTRFS_READAHEAD_PAGES: Final = 1024


class Filesystem(Enum):
    """Filesystems of which a profile exists."""

    XFS = "xfs"
    EXT4 = "ext4"
    BTRFS = "btrfs"


@dataclass(frozen=True, slots=True)
class FsProfile:
    """What one filesystem does with a regular file's pages.

    Attributes
    ----------
    gfp_mask : int
        ``mapping_gfp_mask()`` of a file.
    read_max_order, write_max_order : int
        Largest folio of readahead and of buffered writes; 0 without large folios.
    write_nofs : bool
        Whether writes ask without ``__GFP_FS`` whatever the mapping's mask is. Readahead always does.
    ra_pages : int
        Readahead window unless somebody sets another (``/sys/class/bdi/.../read_ahead_kb``).
    """

    gfp_mask: int
    read_max_order: int
    write_max_order: int
    write_nofs: bool
    ra_pages: int


_MOVABLE: Final = gfp.GFP_HIGHUSER_MOVABLE
_NOFS: Final = gfp.GFP_HIGHUSER_MOVABLE & ~gfp.FS

#: 6.1. XFS clears __GFP_FS of every file's mask (``xfs_setup_inode()``), supports large folios in readahead only, and its
#: writes are iomap's, FGP_NOFS and single pages (``iomap_write_begin()``). ext4 and btrfs have no large folios; ext4's
#: writes ask with the mapping's mask (``ext4_da_write_begin()``), btrfs's without FS (``btrfs_alloc_write_mask()``).
_V6_1: Final = {
    Filesystem.XFS: FsProfile(_NOFS, MAX_PAGECACHE_ORDER, 0, True, VM_READAHEAD_PAGES),
    Filesystem.EXT4: FsProfile(_MOVABLE, 0, 0, False, VM_READAHEAD_PAGES),
    Filesystem.BTRFS: FsProfile(_MOVABLE, 0, 0, True, BTRFS_READAHEAD_PAGES),
}
#: 7.x. iomap's writes make large folios since 6.6 (``iomap_get_folio()``); ext4 has them since 6.16, up to 2048 blocks
#: (``EXT4_MAX_PAGECACHE_ORDER``, here the same limit); btrfs since 6.17, as an experimental option at first, up to 64
#: blocks of 4 KiB, which is order 6.
_V7: Final = {
    Filesystem.XFS: FsProfile(_NOFS, MAX_PAGECACHE_ORDER, MAX_PAGECACHE_ORDER, True, VM_READAHEAD_PAGES),
    Filesystem.EXT4: FsProfile(_MOVABLE, MAX_PAGECACHE_ORDER, MAX_PAGECACHE_ORDER, False, VM_READAHEAD_PAGES),
    Filesystem.BTRFS: FsProfile(_MOVABLE, 6, 6, True, BTRFS_READAHEAD_PAGES),
}


def fs_profile(filesystem: Filesystem, kernel: str) -> FsProfile:
    """Profile of a filesystem under a kernel profile (``6.1``, or a later one)."""
    return (_V6_1 if kernel == "6.1" else _V7)[filesystem]
