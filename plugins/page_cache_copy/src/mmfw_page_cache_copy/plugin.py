"""What mmfw loads: the loads and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_page_cache_copy.copy import CopyParams, file_copy
from mmfw_page_cache_copy.profiles import MAX_PAGECACHE_ORDER
from mmfw_page_cache_copy.stats import StreamStats, stream_stats
from mmfw_page_cache_copy.stream import StreamParams, file_stream

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="page-cache-copy", hook_api=(1, 0), kind="workload")


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The loads."""
    yield Workload("file-copy", "Copy a large file between two filesystems", file_copy, CopyParams)
    yield Workload("file-stream", "Read a large file from its start to its end", file_stream, StreamParams)


def _of(read: Callable[[StreamStats], int]) -> Callable[[Mm], int]:
    return lambda mm: read(stream_stats(mm))


def _rate(read: Callable[[StreamStats], int]) -> Callable[[Mm], float]:
    """Pages as MiB per second of the run."""
    return lambda mm: read(stream_stats(mm)) / 256 * 1e9 / mm.sched.now if mm.sched.now else 0.0


def _fallbacks(order: int) -> Callable[[Mm], int]:
    return _of(lambda stats: stats.fallbacks(order))


def _folios(order: int) -> Callable[[Mm], int]:
    return _of(lambda stats: stats.folios(order))


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Pages copied and read, folios by order."""
    yield Metric(
        "page_cache_copy_copied_pages",
        "pages",
        "counter",
        "higher",
        "Pages that file-copy has written to the page cache",
        _of(lambda stats: stats.copied_pages),
    )
    yield Metric(
        "page_cache_copy_streamed_pages",
        "pages",
        "counter",
        "higher",
        "Pages that file-stream has read",
        _of(lambda stats: stats.streamed_pages),
    )
    yield Metric(
        "page_cache_copy_mib_per_second",
        "MiB/s",
        "ratio",
        "higher",
        "What file-copy has written, over the time since the run began",
        _rate(lambda stats: stats.copied_pages),
    )
    yield Metric(
        "page_cache_copy_fallbacks",
        "1",
        "counter",
        "lower",
        "Requests for a large folio that failed, so that smaller ones took its place",
        _of(lambda stats: sum(stats.fallbacks(order) for order in range(1, MAX_PAGECACHE_ORDER + 1))),
    )
    for order in range(2, MAX_PAGECACHE_ORDER + 1):
        yield Metric(
            f"page_cache_copy_fallbacks_order_{order}",
            "1",
            "counter",
            "lower",
            f"Requests for a folio of order {order} that failed",
            _fallbacks(order),
        )
        yield Metric(
            f"page_cache_copy_folios_order_{order}",
            "1",
            "counter",
            "higher",
            f"Folios of order {order} made, for reading and writing",
            _folios(order),
        )
