"""What mmfw loads: the pool, its shrinker, its hook and its figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_ttm_pool.hookspecs import TtmSpec
from mmfw_ttm_pool.initial import HeldBlocks, InitialBlocks, fill_pools
from mmfw_ttm_pool.kernels import TTM_KERNELS
from mmfw_ttm_pool.pool import LEDGER_NAME, TtmPool
from mmfw_ttm_pool.shrinker import TtmPoolShrinker
from mmfw_ttm_pool.workloads import PoolFillParams, pool_fill

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.hookspecs import HookPublisher
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="ttm", hook_api=(1, 0), kind="shrinker")


class TtmParams(BaseModel):
    """Module parameters of ttm."""

    page_pool_size: int = Field(0, ge=0, description="most pages in the WC and UC pools; 0 means half of RAM")
    beneficial_order: int | None = Field(
        None, ge=0, le=10, description="no direct reclaim above it, 0 for none; default 9 on 7.2, else 0"
    )
    backup_native_order: bool = Field(
        False,
        description="a backup copies a block whole and frees it at its own order (proposed, not in 7.2)",
    )
    initial_blocks: list[InitialBlocks] = Field(
        default_factory=list, description="what the pools hold at the start"
    )


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker
    held: HeldBlocks


@hookimpl
def mmfw_addhooks(pluginmanager: HookPublisher) -> None:
    """Publish ``ttm_pool_gfp_mask`` and ``ttm_pool_asked``."""
    pluginmanager.add_hookspecs(TtmSpec)


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the pool."""
    return TtmParams


@hookimpl
def mmfw_module_init(mm: Mm, params: TtmParams) -> None:
    """Set the pools up (``ttm_pool_mgr_init()``); other drivers find them as ``mm.attached.get(TtmPool)``."""
    limit = params.page_pool_size or sum(zone.managed_pages for zone in mm.pgdat.node_zones) // 2
    beneficial = params.beneficial_order
    if beneficial is None:
        beneficial = TTM_KERNELS[mm.kernel].xe_beneficial_order
    pool = TtmPool(
        mm,
        limit,
        beneficial,
        mm.hook("ttm_pool_gfp_mask"),
        mm.hook("ttm_pool_asked"),
        backup_native_order=params.backup_native_order,
    )
    held = HeldBlocks(mm)
    for blocks in params.initial_blocks:
        fill_pools(pool, blocks, held)
    mm.attached.put(pool)
    mm.attached.put(_Registered(mm.register_shrinker(TtmPoolShrinker(pool), "drm-ttm_pool"), held))
    mm.ledger.hold(LEDGER_NAME, lambda: pool.allocated_pages)


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Objects that fill the pools."""
    yield Workload(
        "ttm-pool-fill",
        "Objects of one block each, freed into the pools",
        run=pool_fill,
        params=PoolFillParams,
    )


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Size of the pools."""
    yield Metric(
        "ttm_pool_pages", "pages", "gauge", "neither", "Free pages that the pools hold", read=_pool_pages
    )


def _pool_pages(mm: Mm) -> int:
    pool = mm.attached.get(TtmPool)
    return 0 if pool is None else pool.allocated_pages


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Free every pooled page and unregister the shrinker (``ttm_pool_mgr_fini()``)."""
    pool = mm.attached.get(TtmPool)
    registered = mm.attached.get(_Registered)
    if pool is not None and registered is not None:
        pool.free_all()
        registered.held.free_all()
        mm.unregister_shrinker(registered.shrinker)
