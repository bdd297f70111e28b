"""The load "xfs-btree-walk": lookups in the B-trees of a filesystem."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mmfw_xfs_buf.btree import BMBT, BNOBT, DABTREE, INOBT, RMAPBT, Btree
from mmfw_xfs_buf.mount import XfsMount
from mmfw_xfs_buf.paths import read_paths
from mmfw_xfs_buf.popularity import Popularity

if TYPE_CHECKING:
    from mmfw import Mm

#: CPU time of one block of a lookup, ns: an assumption (hash, lock, binary search over some cache misses).
LEVEL_NS: Final = 250
#: Inodes of a record of the inode tree (``XFS_INODES_PER_CHUNK``).
_INODES_PER_CHUNK: Final = 64
#: Bytes of a name in a directory's data block: an assumption, a name of some 15 letters (12 bytes and padding beside it).
_DIRENT_BYTES: Final = 32


@dataclass(slots=True)
class Walks:
    """What all loads of this plugin have done on one machine; attached to the `Mm`.

    Attributes
    ----------
    lookups : int
        Keys looked up.
    reads : int64[4]
        Blocks that lookups had to read, by `mmfw_xfs_buf.btree.Role`.
    opens : int
        Inodes used.
    nr_walkers : int
        Walkers started, for their names.
    trees : list of Btree, optional
        The filesystem's trees; the first walker lays them out, so all walk the same.
    """

    lookups: int = 0
    reads: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    opens: int = 0
    nr_walkers: int = 0
    trees: list[Btree] | None = None


class BtreeWalkParams(BaseModel):
    """One walker, and, if it is the first, the filesystem it walks."""

    model_config = ConfigDict(extra="forbid")

    lookups_per_second: int = Field(
        50_000, ge=1, description="keys looked up a second, if the device keeps up"
    )
    batch: int = Field(512, ge=1, le=65_536, description="lookups between two looks at the clock")
    zipf_percent: int = Field(
        80, ge=0, le=100, description="lookups that follow Zipf's law; the others are uniform"
    )
    block_bytes: int = Field(4096, description="block of the filesystem: 512 to 65536, a power of two")
    dir_block_bytes: int = Field(4096, description="block of directories (mkfs.xfs -n size): 4096 to 65536")
    free_extents: int = Field(
        1_000_000, ge=1, le=100_000_000, description="records of the trees of free space"
    )
    rmap_records: int = Field(2_000_000, ge=1, le=100_000_000, description="records of the reverse mappings")
    file_extents: int = Field(2_000_000, ge=1, le=100_000_000, description="extents of the one large file")
    dir_entries: int = Field(2_000_000, ge=1, le=100_000_000, description="names in the one large directory")
    ino_percent: int = Field(20, ge=0, le=100, description="lookups in the inode trees")
    alloc_percent: int = Field(20, ge=0, le=100, description="... in the trees of free space")
    rmap_percent: int = Field(10, ge=0, le=100, description="... in the reverse mappings")
    bmap_percent: int = Field(20, ge=0, le=100, description="... in the file's extents")
    dir_percent: int = Field(30, ge=0, le=100, description="... in the directory")
    start_ms: int = Field(0, ge=0, le=86_400_000, description="virtual ms until it begins")

    @field_validator("block_bytes", "dir_block_bytes")
    @classmethod
    def _is_a_block(cls, value: int) -> int:
        if not 512 <= value <= 65536 or value & (value - 1):
            raise ValueError(f"{value} is no block size; a power of two from 512 to 65536 is wanted")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> BtreeWalkParams:
        if self.dir_block_bytes < max(4096, self.block_bytes):
            raise ValueError(
                f"dir_block_bytes {self.dir_block_bytes} is below 4096 or below block_bytes {self.block_bytes}"
            )
        if sum(self.shares()) != 100:
            raise ValueError(f"the percentages of the trees add up to {sum(self.shares())}, not 100")
        return self

    def shares(self) -> tuple[int, int, int, int, int]:
        """Percent of lookups by tree, in the order of `lay_out_trees`."""
        return self.ino_percent, self.alloc_percent, self.rmap_percent, self.bmap_percent, self.dir_percent


def lay_out_trees(mount: XfsMount, params: BtreeWalkParams) -> list[Btree]:
    """The filesystem's trees: inodes, free space, reverse mappings, a file's extents, a directory."""
    chunks = -(-mount.inodes.nr_inodes // _INODES_PER_CHUNK)
    block = params.block_bytes
    return [
        Btree(INOBT, block, chunks, mount.nr_ags, mount.lay_out),
        Btree(BNOBT, block, params.free_extents, mount.nr_ags, mount.lay_out),
        Btree(RMAPBT, block, params.rmap_records, mount.nr_ags, mount.lay_out),
        Btree(BMBT, block, params.file_extents, 1, mount.lay_out),
        Btree(DABTREE, params.dir_block_bytes, params.dir_entries, 1, mount.lay_out, _DIRENT_BYTES),
    ]


def btree_walk(mm: Mm, params: BtreeWalkParams) -> None:
    """Look keys up for ever, at the pace asked for or as fast as the device allows."""
    mount, walks = mm.attached.get(XfsMount), mm.attached.get(Walks)
    assert mount is not None, "module_init attaches it"
    assert walks is not None, "module_init attaches it"
    if walks.trees is None:
        walks.trees = lay_out_trees(mount, params)
    name = f"xfs-btree-walk-{walks.nr_walkers}"
    walks.nr_walkers += 1
    popular = [
        Popularity(mm.rng(f"{name} tree {i}"), tree.nr_leaves, params.zipf_percent)
        for i, tree in enumerate(walks.trees)
    ]
    rng = mm.rng(name)
    upto = np.cumsum(params.shares())
    sched = mm.sched
    sched.nanosleep(params.start_ms * 1_000_000)
    period = params.batch * 1_000_000_000 // params.lookups_per_second
    due = sched.now
    while True:
        chosen = np.searchsorted(upto, rng.below(100, params.batch), side="right")
        for i, tree in enumerate(walks.trees):
            count = int((chosen == i).sum())
            if count == 0:
                continue
            paths = tree.paths(popular[i].draw(count), rng.below(1 << 31, count))
            misses: NDArray[np.int64] = np.zeros(len(tree.levels), dtype=np.int64)
            with sched.memalloc_nofs() if tree.fmt.transaction else nullcontext():
                mm.charge(paths.size * LEVEL_NS, "xfs_btree_lookup")
                read_paths(mount.buftarg, paths, tree.levels, misses)
            np.add.at(walks.reads, tree.roles, misses)
            walks.lookups += count
        due += period
        if sched.now < due:
            sched.nanosleep(due - sched.now)
        else:
            due = sched.now
            sched.charge_user(mm.costs.syscall, "xfs-btree-walk")
