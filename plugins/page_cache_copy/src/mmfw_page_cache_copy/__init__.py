"""File copies and streaming reads, and what filesystems let the page cache do."""

from mmfw_page_cache_copy.profiles import Filesystem, FsProfile, fs_profile
from mmfw_page_cache_copy.stats import StreamStats, stream_stats

__all__ = ["Filesystem", "FsProfile", "StreamStats", "fs_profile", "stream_stats"]
