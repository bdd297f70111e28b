"""Kinds of metadata, and how many scans of the LRU each outlives (fs/xfs/libxfs/xfs_shared.h)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: ``BBSHIFT``: a daddr counts blocks of 512 bytes, whatever the filesystem's block size.
BBSHIFT: Final = 9
BBSIZE: Final = 1 << BBSHIFT
PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
#: ``XFS_MAX_BLOCKSIZE``: largest buffer; larger ones (attributes of 64 KiB over small blocks) are not modelled.
MAX_BUF_BYTES: Final = 65536
MAX_BUF_PAGES: Final = MAX_BUF_BYTES // PAGE_SIZE


class BufType(IntEnum):
    """What a buffer holds; decides the ``b_lru_ref`` that its users set."""

    SB = 0  #: secondary superblock
    ATTR_BTREE = 1  #: extended attributes
    DQUOT = 2  #: a block of dquots
    REFC_BTREE = 3  #: reference counts of shared extents
    ALLOC_BTREE = 4  #: free extents by block and by size
    BMAP_BTREE = 5  #: extents of one file
    RMAP_BTREE = 6  #: owners of blocks
    DIR_BTREE = 7  #: directory blocks
    INODE = 8  #: inode cluster
    AGFL = 9  #: free list of an AG
    INO_BTREE = 10  #: inode chunks
    AGF = 11  #: header of an AG's free space
    AGI = 12  #: header of an AG's inodes


#: ``XFS_*_REF`` by `BufType`: scans that a buffer of the kind outlives after each use.
LRU_REF: Final[NDArray[np.int8]] = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4], dtype=np.int8)
#: Highest of them.
MAX_LRU_REF: Final = 4
#: ``b_lru_ref`` of a buffer whose user sets none.
NEW_LRU_REF: Final = 1
