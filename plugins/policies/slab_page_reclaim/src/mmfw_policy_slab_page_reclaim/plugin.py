"""The policy: reclaim of a superblock's caches empties sparse slabs first, and compaction may ask it for slabs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import PluginInfo, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="slab-page-reclaim", hook_api=(1, 0), kind="policy", acts_on=("dcache",))
#: Plugin whose shrinker is patched.
DCACHE: Final = "dcache"


class SlabPageReclaimParams(BaseModel):
    """Options of the policy."""

    sparse_percent: int = Field(
        25, ge=1, le=100, description="objects in use, percent, up to which a slab is sparse"
    )
    skip_referenced: bool = Field(
        True, description="a referenced object keeps its slab, unless compaction must have memory"
    )


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return SlabPageReclaimParams


@hookimpl
def mmfw_module_init(mm: Mm, params: SlabPageReclaimParams) -> None:
    """Patch the caches once every plugin is there, whatever the order of loading; without them nothing is patched.

    A timer set here fires before any load runs, as ``late_initcall()`` would; it costs no time.
    """
    mm.sched.call_at(mm.sched.now, lambda: direct_at_slab_pages(mm, params))


def direct_at_slab_pages(mm: Mm, params: SlabPageReclaimParams) -> None:
    """Give the superblock's shrinker another ``scan_objects``, and a ``compaction_scan`` (``super_cache_scan()``).

    What it counts, its seeks and its batch stay.
    """
    try:
        from mmfw_dcache import SlabPageSuperShrinker, Tree
    except ImportError:
        return
    tree = mm.attached.get(Tree)
    if tree is None:
        return
    # The pressure only enters count_objects(), which stays the other's.
    directed = SlabPageSuperShrinker(tree.sb, 100, params.sparse_percent, params.skip_referenced)
    for shrinker in mm.shrinkers:
        if shrinker.ops.plugin == DCACHE:
            shrinker.ops = replace(
                shrinker.ops, scan_objects=directed.scan_objects, compaction_scan=directed.compaction_scan
            )
