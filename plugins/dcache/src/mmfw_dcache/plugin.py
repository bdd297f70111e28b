"""What mmfw loads: a superblock, its shrinker, loads and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import BaseModel, Field

from mmfw import InputError, Metric, PluginInfo, Workload, hookimpl
from mmfw_dcache.filesystems import DENTRY_SIZE, FILESYSTEMS, FsName
from mmfw_dcache.pressure import PressureParams, reclaim_objects
from mmfw_dcache.shrinker import SlabPageSuperShrinker, SuperShrinker
from mmfw_dcache.storms import (
    CreateParams,
    OpenParams,
    StatParams,
    WalkParams,
    create_storm,
    open_storm,
    stat_storm,
    tree_walk,
)
from mmfw_dcache.superblock import SuperBlock
from mmfw_dcache.tree import Tree

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="dcache", hook_api=(1, 0), kind="shrinker")


class DcacheParams(BaseModel):
    """What the model may be told."""

    fs: FsName = Field("ext4", description="type of the filesystem: ext4, xfs or generic")
    vfs_cache_pressure: int = Field(100, ge=0, description="/proc/sys/vm/vfs_cache_pressure, percent")
    initial_files: int = Field(0, ge=0, description="files whose dentry and inode are cached at first")
    initial_absent: int = Field(0, ge=0, description="negative dentries at first")
    initial_pinned_percent: float = Field(
        0, ge=0, le=100, description="of initial_files, those held open; each with this chance"
    )
    files_per_directory: int = Field(100, ge=1, description="names of each directory of the initial tree")
    initial_memory: Literal["free", "resident"] = Field(
        "free",
        description="where the initial objects lie: pages allocated from free memory, or single pages that the state "
        "holds allocated",
    )
    slab_page_reclaim: bool = Field(
        False, description="free whole slabs first, and offer compaction_scan (a proposal, never merged)"
    )
    slab_page_percent: int = Field(
        25, ge=1, le=100, description="with it: objects in use, percent, up to which a slab is sparse"
    )
    slab_page_skip_referenced: bool = Field(
        True, description="with it: a referenced object keeps its slab unless compaction must have memory"
    )


def _refuse_if_too_many(mm: Mm, nr_pages: int) -> None:
    """An initial state is not made by reclaim: it must fit into what is free above the high watermarks."""
    room = mm.global_free_pages() - sum(zone.watermark[2] for zone in mm.pgdat.node_zones)
    if nr_pages > room:
        raise InputError(
            f"params.dcache.initial_files and initial_absent want some {nr_pages} pages, but {room} are free; make them "
            'smaller, the machine larger, or initial_memory "resident"'
        )


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the model."""
    return DcacheParams


@hookimpl
def mmfw_module_init(mm: Mm, params: DcacheParams) -> None:
    """Mount a filesystem, make the initial tree, and register the shrinker (``alloc_super()``)."""
    taken = {cache.name for cache in mm.slab.caches}
    for name in ("dentry", FILESYSTEMS[params.fs].inode_cache):
        if name in taken:
            raise InputError(
                f"plugin dcache: slab cache {name!r} exists, so another plugin models it; with generic-slab, put its "
                "row into params.generic-slab.leave_out"
            )
    sb = SuperBlock(mm, params.fs)
    tree = Tree(sb)
    nr_names = params.initial_files + params.initial_absent
    nr_directories = -(-nr_names // params.files_per_directory)
    if params.initial_memory == "free":
        nr_bytes = nr_names * DENTRY_SIZE + params.initial_files * FILESYSTEMS[params.fs].inode_size
        _refuse_if_too_many(mm, nr_bytes // 4096)
    if params.initial_memory == "resident":
        sb.dentries.stock(nr_names + nr_directories)
        sb.inodes.stock(params.initial_files + nr_directories)
    chance = round(params.initial_pinned_percent * 1_000)
    pinned = np.flatnonzero(mm.rng("dcache pinned").below(100_000, params.initial_files) < chance)
    tree.populate(params.initial_files, params.initial_absent, params.files_per_directory, pinned)
    sb.dentries.release_stock()
    sb.inodes.release_stock()
    shrinker = (
        SlabPageSuperShrinker(
            sb, params.vfs_cache_pressure, params.slab_page_percent, params.slab_page_skip_referenced
        )
        if params.slab_page_reclaim
        else SuperShrinker(sb, params.vfs_cache_pressure)
    )
    mm.attached.put(tree)
    mm.attached.put(_Registered(mm.register_shrinker(shrinker, f"sb-{FILESYSTEMS[params.fs].sb_type}")))


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Storms of creations, lookups and opens; and what makes kswapd reclaim."""
    yield Workload(
        "create-storm",
        "Creates files in one stream: some stay open for the rest of the run, the others are used once",
        run=create_storm,
        params=CreateParams,
    )
    yield Workload(
        "stat-storm",
        "Looks names up, most of them by Zipf's law; a miss reads the inode",
        run=stat_storm,
        params=StatParams,
    )
    yield Workload("tree-walk", "Looks every name up once, as find does", run=tree_walk, params=WalkParams)
    yield Workload(
        "open-storm", "Opens files and holds a number of them open", run=open_storm, params=OpenParams
    )
    yield Workload(
        "reclaim-objects",
        "Allocates blocks of one order without direct reclaim until kswapd has freed a share of the objects",
        run=reclaim_objects,
        params=PressureParams,
    )


def _of_sb(read: Callable[[SuperBlock], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        tree = mm.attached.get(Tree)
        return 0 if tree is None else read(tree.sb)

    return from_mm


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Lookups and misses; objects, and what freeing them gave back."""
    yield Metric(
        "dcache_lookups",
        "1",
        "counter",
        "higher",
        "Names that loads looked up",
        read=_of_sb(lambda sb: sb.counters.nr_lookups),
    )
    yield Metric(
        "dcache_misses",
        "1",
        "counter",
        "lower",
        "Lookups of names that had no dentry",
        read=_of_sb(lambda sb: sb.counters.nr_dentry_misses),
    )
    yield Metric(
        "dcache_inode_misses",
        "1",
        "counter",
        "lower",
        "Inodes, of directories too, that a lookup had to read",
        read=_of_sb(lambda sb: sb.counters.nr_inode_misses),
    )
    yield Metric(
        "dcache_files_created",
        "1",
        "counter",
        "higher",
        "Files and directories that loads created",
        read=_of_sb(lambda sb: sb.counters.nr_created),
    )
    yield Metric(
        "dcache_enomem",
        "1",
        "counter",
        "lower",
        "Lookups and creations that failed for want of memory",
        read=_of_sb(lambda sb: sb.counters.nr_enomem),
        each_matters=True,
    )
    yield Metric(
        "dcache_nr_dentries",
        "1",
        "gauge",
        "neither",
        "Dentries in memory",
        read=_of_sb(lambda sb: sb.dentries.nr_objects),
    )
    yield Metric(
        "dcache_nr_inodes",
        "1",
        "gauge",
        "neither",
        "Inodes in memory",
        read=_of_sb(lambda sb: sb.inodes.nr_objects),
    )
    yield Metric(
        "dcache_slab_pages",
        "pages",
        "gauge",
        "neither",
        "Pages of the slabs of dentries and inodes",
        read=_of_sb(lambda sb: sb.dentries.cache.nr_pages + sb.inodes.cache.nr_pages),
    )
    yield Metric(
        "dcache_objects_freed",
        "1",
        "counter",
        "lower",
        "Dentries and inodes that reclaim freed",
        read=_of_sb(lambda sb: sb.dentries.nr_evicted + sb.inodes.nr_evicted),
    )
    yield Metric(
        "dcache_slab_pages_freed",
        "pages",
        "counter",
        "neither",
        "Pages that came back with these objects",
        read=_of_sb(lambda sb: sb.dentries.nr_pages_freed + sb.inodes.nr_pages_freed),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Unmount."""
    tree, registered = mm.attached.get(Tree), mm.attached.get(_Registered)
    if tree is not None and registered is not None:
        mm.unregister_shrinker(registered.shrinker)
        tree.sb.umount()
