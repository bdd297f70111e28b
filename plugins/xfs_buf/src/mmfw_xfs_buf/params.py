"""What the user may set about the filesystem."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class XfsParams(BaseModel):
    """The mount."""

    model_config = ConfigDict(extra="forbid")

    device: str = Field("sda1", description="device, as the shrinkers' names show it")
    nr_ags: int = Field(4, ge=1, le=1024, description="allocation groups; mkfs.xfs makes 4 on one disk")
    nr_inodes: int = Field(1 << 20, ge=32, le=1 << 26, description="inodes of the filesystem")
    nr_dquots: int = Field(1024, ge=1, le=1 << 24, description="users with quota")
    disk_latency_us: int = Field(80, ge=0, description="time of a metadata read or write beside the transfer")
    disk_channels: int = Field(32, ge=1, le=1024, description="requests that the device serves at once")
    overcount_progress: bool | None = Field(
        None,
        description="credit reclaim with a freed buffer's bytes / 12, not / 4096; default: as the kernel profile does "
        "(6.15 and later do)",
    )
    flat_lru_ref: int | None = Field(
        None,
        ge=1,
        le=4,
        description="one weight on the LRU for all kinds of metadata (an experiment); default: each its own",
    )
    sb_shrinker: bool = Field(
        True, description="register sb-xfs for reclaimable inodes; false if a plugin has the superblock's"
    )
    vfs_cache_pressure: int = Field(100, ge=0, le=10_000, description="vm.vfs_cache_pressure, for sb-xfs")
