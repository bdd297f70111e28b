"""Workload ``file-copy``: one large file from one filesystem to another, as ``cp`` and ``dd`` do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from mmfw_page_cache_copy.files import PAGES_PER_GIB, open_file
from mmfw_page_cache_copy.profiles import Filesystem
from mmfw_page_cache_copy.stats import stream_stats

if TYPE_CHECKING:
    from mmfw import Mm


class CopyParams(BaseModel):
    """One copy."""

    size_gib: float = Field(40.0, gt=0, le=1024, description="size of the file, GiB")
    chunk_kib: int = Field(1024, ge=4, multiple_of=4, description="KiB of each read(2) and write(2)")
    source: Filesystem = Field(
        Filesystem.XFS, description='filesystem that is read: "xfs", "ext4" or "btrfs"'
    )
    destination: Filesystem = Field(
        Filesystem.XFS, description="filesystem that is written, on another device"
    )
    read_ahead_kib: int = Field(
        0, ge=0, multiple_of=4, description="readahead window, KiB; 0: the filesystem's"
    )
    read_mib_per_second: int = Field(2048, ge=1, description="rate of the source's device, MiB/s")
    read_latency_us: int = Field(80, ge=0, description="its time for each request besides, us")


def file_copy(mm: Mm, params: CopyParams) -> None:
    """Copy a file chunk by chunk; returns when it is written to the page cache, its end as yet dirty.

    Both files stay cached until reclaim takes their pages; neither is read again. The destination's device is the file
    device of the cost profile (``writeback_page``).
    """
    stats = stream_stats(mm)
    nr_pages = max(1, int(params.size_gib * PAGES_PER_GIB))
    source = open_file(
        mm,
        params.source,
        nr_pages,
        f"{params.source.value} source",
        read_ahead_kib=params.read_ahead_kib,
        read_mib_per_second=params.read_mib_per_second,
        read_latency_us=params.read_latency_us,
    )
    destination = open_file(mm, params.destination, nr_pages, f"{params.destination.value} destination")
    chunk = params.chunk_kib // 4
    position = 0
    while position < nr_pages:
        got = source.read(position, chunk)
        mm.sched.charge_user(mm.costs.syscall, "file copy")
        put = destination.write(position, got)
        mm.sched.charge_user(mm.costs.syscall, "file copy")
        stats.copied_pages += put
        position += put
