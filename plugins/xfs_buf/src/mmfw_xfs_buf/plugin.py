"""What mmfw loads: one mount, its shrinkers, its loads and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw.offers import Better
from mmfw_xfs_buf.backing import MAX_FOLIO_ORDER
from mmfw_xfs_buf.inodewalk import InodeWalkParams, inode_walk
from mmfw_xfs_buf.mount import XfsMount
from mmfw_xfs_buf.params import XfsParams
from mmfw_xfs_buf.types import MAX_LRU_REF
from mmfw_xfs_buf.walk import BtreeWalkParams, Walks, btree_walk

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="xfs", hook_api=(1, 0), kind="shrinker")


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the mount."""
    return XfsParams


@hookimpl
def mmfw_module_init(mm: Mm, params: XfsParams) -> None:
    """Mount; attached as `XfsMount`, and its parts as `XfsBuftarg`, `XfsInodeCache`, `XfsDquots`."""
    mount = XfsMount(mm, params)
    for part in (mount, mount.buftarg, mount.inodes, mount.dquots, Walks()):
        mm.attached.put(part)


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Lookups in B-trees, and use of inodes."""
    yield Workload(
        "xfs-btree-walk",
        "Look keys up in the B-trees of a filesystem, root to leaf, some keys more often than others",
        run=btree_walk,
        params=BtreeWalkParams,
    )
    yield Workload(
        "xfs-inode-walk",
        "Open files of a filesystem, change some and remove some",
        run=inode_walk,
        params=InodeWalkParams,
    )


def _of(read: Callable[[XfsMount], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        mount = mm.attached.get(XfsMount)
        return 0 if mount is None else read(mount)

    return from_mm


def _of_walks(read: Callable[[Walks], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        walks = mm.attached.get(Walks)
        return 0 if walks is None else read(walks)

    return from_mm


def _disposed(ref: int) -> Callable[[Mm], int]:
    return _of(lambda m: int(m.buftarg.stats.disposed[ref]))


def _folio_fallbacks(order: int) -> Callable[[Mm], int]:
    return _of(lambda m: m.buftarg.memory.folio_fallbacks[order])


def _reads(which: int) -> Callable[[Mm], int]:
    return _of_walks(lambda w: int(w.reads[which]))


#: Name, direction of an improvement, what is counted, how it is read.
_Row = tuple[str, Better, str, Callable[[XfsMount], int]]


def _counter(name: str, unit: str, better: Better, text: str, read: Callable[[Mm], int]) -> Metric:
    return Metric(name, unit, "counter", better, text, read=read)


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Size of the caches, and what happened to them."""
    for name, text, size in (
        (
            "xfs_buf_pages",
            "Pages of cached buffers, without what comes from slab",
            lambda m: m.buftarg.nr_pages,
        ),
        ("xfs_buf_lru", "Buffers on the LRU", lambda m: m.buftarg.nr_lru),
        ("xfs_inode_cached", "Inodes in memory", lambda m: m.inodes.nr_cached),
        ("xfs_dquot_cached", "Dquots in memory", lambda m: m.dquots.nr_cached),
    ):
        unit = "pages" if name.endswith("pages") else "1"
        yield Metric(name, unit, "gauge", "neither", text, read=_of(size))
    yield from _buf_metrics()
    yield from _walk_metrics()
    yield from _inode_metrics()


def _buf_metrics() -> Iterable[Metric]:
    rows: tuple[_Row, ...] = (
        ("xfs_buf_hits", "higher", "Lookups that found a buffer", lambda m: m.buftarg.stats.hits),
        ("xfs_buf_misses", "lower", "Lookups that made one", lambda m: m.buftarg.stats.misses),
        ("xfs_buf_reads", "lower", "Buffers read from the device", lambda m: m.buftarg.stats.reads),
        (
            "xfs_buf_recreated",
            "lower",
            "Buffers made again after a scan freed them",
            lambda m: m.buftarg.stats.recreated,
        ),
        ("xfs_buf_rotated", "neither", "Buffers that a scan spared", lambda m: m.buftarg.stats.rotated),
        (
            "xfs_buf_delisted",
            "neither",
            "Buffers in use that a scan counted as freed",
            lambda m: m.buftarg.stats.delisted,
        ),
        ("xfs_buf_retries", "lower", "Waits of 20 ms for single pages", lambda m: m.buftarg.memory.retries),
        (
            "xfs_buf_compaction_pages",
            "neither",
            "Pages given up to compaction",
            lambda m: m.buftarg.stats.compaction_freed_pages,
        ),
    )
    for name, better, text, read in rows:
        yield _counter(name, "pages" if name.endswith("_pages") else "1", better, text, _of(read))
    for ref in range(MAX_LRU_REF + 1):
        yield _counter(
            f"xfs_buf_disposed_ref{ref}",
            "1",
            "lower",
            f"Buffers that scans freed, of kinds whose weight is {ref}",
            _disposed(ref),
        )
    for order in range(1, MAX_FOLIO_ORDER + 1):
        yield _counter(
            f"xfs_buf_vmalloc_order{order}",
            "1",
            "lower",
            f"Buffers of order {order} made of single pages for want of a folio",
            _folio_fallbacks(order),
        )


def _walk_metrics() -> Iterable[Metric]:
    yield _counter("xfs_btree_lookups", "1", "higher", "Keys looked up", _of_walks(lambda w: w.lookups))
    for name, which in (("header", 0), ("root", 1), ("inner", 2), ("leaf", 3)):
        yield _counter(
            f"xfs_btree_{name}_reads",
            "1",
            "lower",
            f"{name.capitalize()} blocks that a lookup had to read",
            _reads(which),
        )
    yield _counter(
        "xfs_inode_opens", "1", "higher", "Inodes that xfs-inode-walk used", _of_walks(lambda w: w.opens)
    )


def _inode_metrics() -> Iterable[Metric]:
    rows: tuple[_Row, ...] = (
        ("xfs_inode_misses", "lower", "Inodes read", lambda m: m.inodes.stats.misses),
        ("xfs_inode_recycled", "neither", "Inodes found though dropped", lambda m: m.inodes.stats.recycled),
        ("xfs_inode_reclaims", "neither", "Inodes freed", lambda m: m.inodes.stats.reclaims),
        ("xfs_inode_shrunk", "neither", "Inodes that sb-xfs freed", lambda m: m.inodes.stats.shrunk),
        (
            "xfs_inode_skipped_dirty",
            "neither",
            "Dirty inodes that reclaim passed",
            lambda m: m.inodes.stats.skipped_dirty,
        ),
        ("xfs_inode_cluster_writes", "neither", "Clusters written", lambda m: m.inodes.stats.cluster_writes),
        ("xfs_inodegc_throttled", "lower", "Waits for inactivation", lambda m: m.inodegc.throttled),
        ("xfs_dquot_misses", "lower", "Dquots read", lambda m: m.dquots.stats.misses),
        ("xfs_dquot_reclaims", "neither", "Dquots that a scan freed", lambda m: m.dquots.stats.reclaims),
    )
    for name, better, text, read in rows:
        yield _counter(name, "1", better, text, _of(read))


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Unmount (``xfs_fs_put_super()``)."""
    mount = mm.attached.get(XfsMount)
    if mount is not None:
        mount.unmount()
