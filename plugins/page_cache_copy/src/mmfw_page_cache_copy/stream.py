"""Workload ``file-stream``: a file read from its start to its end, once or again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw_page_cache_copy.files import MIB, PAGES_PER_GIB, open_file
from mmfw_page_cache_copy.profiles import Filesystem
from mmfw_page_cache_copy.stats import stream_stats

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_SEC: Final = 1_000_000_000


class StreamParams(BaseModel):
    """One reader."""

    size_gib: float = Field(16.0, gt=0, le=1024, description="size of the file, GiB")
    chunk_kib: int = Field(1024, ge=4, multiple_of=4, description="KiB of each read(2)")
    filesystem: Filesystem = Field(Filesystem.XFS, description='"xfs", "ext4" or "btrfs"')
    read_ahead_kib: int = Field(
        0, ge=0, multiple_of=4, description="readahead window, KiB; 0: the filesystem's"
    )
    read_mib_per_second: int = Field(2048, ge=1, description="rate of the device, MiB/s")
    read_latency_us: int = Field(80, ge=0, description="its time for each request besides, us")
    mib_per_second: int = Field(0, ge=0, description="rate of the reader, MiB/s; 0: as fast as it goes")
    passes: int = Field(1, ge=0, description="times the file is read; 0: until the load is killed")
    cached_pages: int = Field(
        0,
        ge=0,
        description="pages of the file's start that the initial state holds; for a load of the first phase",
    )


def file_stream(mm: Mm, params: StreamParams) -> None:
    """Read a file chunk by chunk; it stays cached until reclaim takes its pages.

    Readahead grows to the window, and its folios to what the window and the filesystem allow: two orders more with every
    window, from single pages on.
    """
    stats, sched = stream_stats(mm), mm.sched
    nr_pages = max(1, int(params.size_gib * PAGES_PER_GIB))
    file = open_file(
        mm,
        params.filesystem,
        nr_pages,
        f"{params.filesystem.value} stream",
        read_ahead_kib=params.read_ahead_kib,
        read_mib_per_second=params.read_mib_per_second,
        read_latency_us=params.read_latency_us,
    )
    cached = min(params.cached_pages, nr_pages)
    if cached:
        mm.page_cache.adopt(file, mm.claim_resident(cached, movable=True, what="cached_pages"))
    chunk = params.chunk_kib // 4
    period = chunk * 4096 * NSEC_PER_SEC // (params.mib_per_second * MIB) if params.mib_per_second else 0
    passes, position, turn = 0, 0, sched.now
    while params.passes == 0 or passes < params.passes:
        got = file.read(position, chunk)
        stats.streamed_pages += got
        position += got
        if position >= nr_pages:
            passes, position = passes + 1, 0
        turn = max(turn + period, sched.now)
        if turn > sched.now:
            sched.nanosleep(turn - sched.now)
        else:
            sched.charge_user(mm.costs.syscall, "file stream")
