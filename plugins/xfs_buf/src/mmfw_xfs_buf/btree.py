"""Shapes of XFS's B-trees: how many blocks each level has, and which blocks a lookup reads.

Records per block follow from the formats in fs/xfs/libxfs/xfs_format.h and xfs_da_format.h (version 5, with checksums). A
block is taken to be 69% full, as random insertion leaves a B-tree (ln 2; A. Yao, "On random 2-3 trees", 1978).

Simplified: a tree does not change, every level is filled alike, and a level's blocks lie side by side on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw_xfs_buf.stats import Level
from mmfw_xfs_buf.types import BBSIZE, BufType

#: Percent of a block that is in use.
FILL_PERCENT: Final = 69
#: Sector of a header (AGF, AGI), bytes.
HEADER_BYTES: Final = 512


class Role(IntEnum):
    """Place of a block in a path."""

    HEADER = 0
    ROOT = 1
    INNER = 2
    LEAF = 3


@dataclass(frozen=True, slots=True)
class BtreeFormat:
    """Format of one kind of tree.

    Attributes
    ----------
    buf_type : BufType
        Kind of its blocks.
    header : BufType or None
        Header of the AG that a lookup reads first; None for a tree of a file.
    block_header_bytes, record_bytes, key_ptr_bytes : int
        Bytes before the records, of a record, and of a key with its pointer (two keys where they overlap).
    inode_root_ptrs : int
        Pointers that the root in the inode holds, so that no block is the root; 0 for a tree whose root is a block.
    transaction : bool
        Whether lookups run inside a transaction, so without ``__GFP_FS``.
    """

    buf_type: BufType
    header: BufType | None
    block_header_bytes: int
    record_bytes: int
    key_ptr_bytes: int
    inode_root_ptrs: int
    transaction: bool


INOBT: Final = BtreeFormat(BufType.INO_BTREE, BufType.AGI, 56, 16, 8, 0, True)
BNOBT: Final = BtreeFormat(BufType.ALLOC_BTREE, BufType.AGF, 56, 8, 12, 0, True)
RMAPBT: Final = BtreeFormat(BufType.RMAP_BTREE, BufType.AGF, 56, 24, 44, 0, True)
#: Inode of 512 bytes: 336 for the data fork less its header, 16 a pointer.
BMBT: Final = BtreeFormat(BufType.BMAP_BTREE, None, 72, 16, 16, 20, False)
#: Hash entries of a directory and the nodes above them; the block of names is `Btree.nr_data`.
DABTREE: Final = BtreeFormat(BufType.DIR_BTREE, None, 64, 8, 8, 0, False)


def per_block(nr_bytes: int, header_bytes: int, item_bytes: int) -> int:
    """Items in an average block.

    Examples
    --------
    >>> per_block(4096, 56, 16), per_block(65536, 64, 8)
    (173, 5645)
    """
    return max(2, (nr_bytes - header_bytes) // item_bytes * FILL_PERCENT // 100)


def level_counts(nr_records: int, leaf_records: int, node_ptrs: int, root_ptrs: int = 1) -> list[int]:
    """Blocks of each level from the top down; the top has at most `root_ptrs`.

    Examples
    --------
    >>> level_counts(1_000_000, 173, 341)
    [1, 17, 5781]
    """
    counts = [-(-nr_records // leaf_records)]
    while counts[0] > root_ptrs:
        counts.insert(0, -(-counts[0] // node_ptrs))
    return counts


class Btree:
    """Trees of one kind, one for each AG, or one of a file or directory.

    Parameters
    ----------
    fmt : BtreeFormat
        Format.
    nr_bytes : int
        Size of a block.
    nr_records : int
        Records of all trees.
    nr_trees : int
        AGs.
    lay_out : callable
        ``lay_out(count, nr_bytes)`` sets blocks aside on the device and returns the first daddr.
    record_data_bytes : int
        Bytes of data that a record points to, in blocks of the same size that a lookup reads last (a directory's names).

    Attributes
    ----------
    levels : tuple of Level
        Size and kind of the block at each place of a path.
    roles : int64[h]
        `Role` of each place.
    nr_leaves : int
        Leaves of all trees: what a lookup chooses among.
    nr_blocks : int
        Blocks of all trees, headers and data included.
    """

    def __init__(
        self,
        fmt: BtreeFormat,
        nr_bytes: int,
        nr_records: int,
        nr_trees: int,
        lay_out: Callable[[int, int], int],
        record_data_bytes: int = 0,
    ) -> None:
        self.fmt = fmt
        self._ptrs = per_block(nr_bytes, fmt.block_header_bytes, fmt.key_ptr_bytes)
        leaf_records = per_block(nr_bytes, fmt.block_header_bytes, fmt.record_bytes)
        records = -(-nr_records // nr_trees)
        self._counts = level_counts(records, leaf_records, self._ptrs, fmt.inode_root_ptrs or 1)
        self._nr_trees = nr_trees
        self._step = nr_bytes // BBSIZE
        self._bases = [lay_out(count * nr_trees, nr_bytes) for count in self._counts]
        self._header_base = lay_out(nr_trees, HEADER_BYTES) if fmt.header is not None else -1
        self.nr_leaves = self._counts[-1] * nr_trees
        self.nr_data = -(-nr_records * record_data_bytes * 100 // (nr_bytes * FILL_PERCENT))
        self._data_base = lay_out(self.nr_data, nr_bytes) if self.nr_data else -1
        self.nr_blocks = sum(self._counts) * nr_trees + self.nr_data
        block = Level(nr_bytes, fmt.buf_type)
        top = Role.INNER if fmt.inode_root_ptrs else Role.ROOT
        roles = (
            [top] + [Role.INNER] * (len(self._counts) - 2) + [Role.LEAF]
            if len(self._counts) > 1
            else [Role.LEAF]
        )
        levels = [block] * len(self._counts)
        if fmt.header is not None:
            roles, levels = [Role.HEADER, *roles], [Level(HEADER_BYTES, fmt.header), *levels]
            self.nr_blocks += nr_trees
        if self.nr_data:
            roles, levels = [*roles, Role.LEAF], [*levels, block]
        self.levels = tuple(levels)
        self.roles: NDArray[np.int64] = np.array(roles, dtype=np.int64)

    def paths(self, leaves: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Blocks that lookups read.

        Parameters
        ----------
        leaves : int64[n]
            Leaf that each ends at, counted over all trees.
        draws : int64[n]
            Any numbers >= 0: which of its leaf's data blocks each reads.

        Returns
        -------
        int64[n, h]
            daddrs, in the order of `levels`.
        """
        tree, index = np.divmod(leaves, self._counts[-1])
        columns: list[NDArray[np.int64]] = []
        for count, base in zip(reversed(self._counts), reversed(self._bases), strict=True):
            columns.insert(0, base + (tree * count + index) * self._step)
            index = index // self._ptrs
        if self._header_base >= 0:
            columns.insert(0, self._header_base + tree)
        if self.nr_data:
            # Names lie in the order in which they were made: a leaf's are spread over its share of the blocks.
            share = -(-self.nr_data // self.nr_leaves)
            data = (leaves + draws % share * self.nr_leaves) % self.nr_data
            columns.append(self._data_base + data * self._step)
        return np.stack(columns, axis=1)
