"""Files as a filesystem's profile makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw_page_cache_copy.profiles import Filesystem, fs_profile
from mmfw_page_cache_copy.stats import stream_stats

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.filemap import AddressSpace

PAGES_PER_MIB: Final = 256
PAGES_PER_GIB: Final = 256 << 10
MIB: Final = 1 << 20


def open_file(
    mm: Mm,
    filesystem: Filesystem,
    nr_pages: int,
    name: str,
    *,
    read_ahead_kib: int = 0,
    read_mib_per_second: int = 0,
    read_latency_us: int = 0,
) -> AddressSpace:
    """A file of a filesystem, none of it cached. It stays open, so that its pages leave by reclaim only.

    Parameters
    ----------
    mm : Mm
        Whose page cache.
    filesystem : Filesystem
        Folio sizes and masks, by the kernel profile of `mm`.
    nr_pages : int
        Size.
    name : str
        For messages.
    read_ahead_kib : int
        Readahead window; 0 for the filesystem's.
    read_mib_per_second, read_latency_us : int
        The device it is read from; a rate of 0 for none, as for a file that is only written.
    """
    profile = fs_profile(filesystem, mm.kernel)
    device = None
    if read_mib_per_second:
        device = mm.page_cache.blkdev(read_mib_per_second * MIB, latency_ns=read_latency_us * 1_000)
    file = mm.page_cache.open(
        nr_pages,
        gfp_mask=profile.gfp_mask,
        ra_pages=read_ahead_kib // 4 or profile.ra_pages,
        max_order=profile.read_max_order,
        max_write_order=profile.write_max_order,
        write_nofs=profile.write_nofs,
        device=device,
        name=name,
    )
    stream_stats(mm).files.append(file)
    return file
