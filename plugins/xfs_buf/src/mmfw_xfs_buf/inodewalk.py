"""The load "xfs-inode-walk": files that are opened, changed and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from mmfw_xfs_buf.mount import XfsMount
from mmfw_xfs_buf.popularity import Popularity
from mmfw_xfs_buf.walk import Walks

if TYPE_CHECKING:
    from mmfw import Mm

#: CPU time of a stat(2) that finds its inode, ns: an assumption.
STAT_NS: Final = 1_500


class InodeWalkParams(BaseModel):
    """One task."""

    model_config = ConfigDict(extra="forbid")

    opens_per_second: int = Field(20_000, ge=1, description="inodes used a second, if the device keeps up")
    batch: int = Field(128, ge=1, le=65_536, description="inodes between two looks at the clock")
    zipf_percent: int = Field(
        80, ge=0, le=100, description="uses that follow Zipf's law; the others are uniform"
    )
    dirty_percent: int = Field(
        10, ge=0, le=100, description="uses that change the inode, on its owner's quota"
    )
    unlink_percent: int = Field(
        1, ge=0, le=100, description="uses after which the file is removed, and made anew later"
    )
    users: int = Field(256, ge=1, description="owners of the files; at most the mount's nr_dquots")
    start_ms: int = Field(0, ge=0, description="virtual ms until it begins")


def inode_walk(mm: Mm, params: InodeWalkParams) -> None:
    """Use inodes for ever."""
    mount, walks = mm.attached.get(XfsMount), mm.attached.get(Walks)
    assert mount is not None, "module_init attaches it"
    assert walks is not None, "module_init attaches it"
    inodes, sched = mount.inodes, mm.sched
    name = f"xfs-inode-walk-{walks.nr_walkers}"
    walks.nr_walkers += 1
    popular = Popularity(mm.rng(f"{name} inodes"), inodes.nr_inodes, params.zipf_percent)
    rng = mm.rng(name)
    users = min(params.users, len(mount.dquots.dirty))
    sched.nanosleep(params.start_ms * 1_000_000)
    period = params.batch * 1_000_000_000 // params.opens_per_second
    due = sched.now
    while True:
        changes = rng.below(100, params.batch) < params.dirty_percent
        unlinks = rng.below(100, params.batch) < params.unlink_percent
        for ino, change, unlink in zip(
            popular.draw(params.batch).tolist(), changes.tolist(), unlinks.tolist(), strict=True
        ):
            if not inodes.iget(ino):
                continue
            if change:
                with sched.memalloc_nofs():
                    # Files of one owner lie together.
                    inodes.log(ino, ino * users // inodes.nr_inodes)
            if unlink:
                inodes.unlink(ino)
            inodes.irele(ino)
        mm.charge(params.batch * STAT_NS, "stat")
        walks.opens += params.batch
        due += period
        if sched.now < due:
            sched.nanosleep(due - sched.now)
        else:
            due = sched.now
            sched.charge_user(mm.costs.syscall, "xfs-inode-walk")
