"""Xe's heuristic under kswapd: with so much memory free it is fragmentation, so the working set stays.

Stands for v1 to v4 of the series "mm, drm/ttm, drm/xe: Avoid reclaim/eviction loops under fragmentation" (M. Brost,
2026-04-20 to 04-30): ``shrink_control.order`` (v3), ``zone_maybe_fragmented_in_shrinker()`` (v2:
``zone_appears_fragmented()``), and their use in xe_shrinker.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import PluginInfo, Reclaimer, attach, attachment, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm, PgdatView, ReclaimContext, ShrinkControl, ZoneView

MMFW_PLUGIN: Final = PluginInfo(
    name="xe-fragmentation-heuristic", hook_api=(1, 0), kind="policy", acts_on=("xe",)
)

#: Index of the high watermark (``enum zone_watermarks``) and of ZONE_NORMAL (``enum zone_type`` of x86-64).
WMARK_HIGH: Final = 2
ZONE_NORMAL: Final = 2
NR_PAGE_ORDERS: Final = 11


class Params(BaseModel):
    """What counts as fragmented."""

    free_over_high: float = Field(
        2, ge=0, description="fragmented means: free pages exceed so many times the high watermark"
    )
    min_order: int = Field(
        1,
        ge=0,
        le=10,
        description="passes for a lower order are as mainline; 0 is v2, which did not know the order",
    )
    require_no_block: bool = Field(
        False, description="fragmented means besides: no free block of beneficial_order or above"
    )
    beneficial_order: int = Field(
        9, ge=1, le=10, description="order that the device gains from: 2 MiB for Xe"
    )


@dataclass(frozen=True, slots=True)
class WantedOrder:
    """``shrink_control.order``, with what ``current_is_kswapd()`` and the node's zones say at the call.

    Attributes
    ----------
    order : int
        Order that the pass works for; 0 once kswapd dropped it.
    pgdat : PgdatView
        Node being shrunk.
    caller : Reclaimer
        Who runs the pass.
    """

    order: int
    pgdat: PgdatView
    caller: Reclaimer


def zone_maybe_fragmented(zone: ZoneView, params: Params) -> bool:
    """Whether failures in a zone rather come from fragmentation (``zone_maybe_fragmented_in_shrinker()``, v3)."""
    if zone.nr_free_pages <= params.free_over_high * zone.wmark_pages(WMARK_HIGH):
        return False
    orders = range(params.beneficial_order, NR_PAGE_ORDERS)
    return not (params.require_no_block and any(zone.nr_free(order) for order in orders))


def _normal_zone(pgdat: PgdatView) -> ZoneView | None:
    """ZONE_NORMAL; on a machine that has none, the highest zone below it."""
    zones = [zone for zone in pgdat.node_zones[: ZONE_NORMAL + 1] if zone.managed_pages]
    return zones[-1] if zones else None


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return Params


@hookimpl
def mmfw_module_init(mm: Mm, params: Params) -> None:
    """Keep the options where the hooks find them."""
    attach(mm.pgdat, params)


@hookimpl
def mmfw_init_shrink_control(shrinkctl: ShrinkControl, reclaim_context: ReclaimContext) -> None:
    """Tell shrinkers the order (``do_shrink_slab()`` of v3)."""
    attach(
        shrinkctl,
        WantedOrder(reclaim_context.order, reclaim_context.pgdat, reclaim_context.caller),
    )


@hookimpl(optionalhook=True)
def xe_can_backup(sc: ShrinkControl) -> bool | None:
    """Decline under kswapd while the node's Normal zone looks fragmented; looked at anew at each count and scan."""
    wanted = attachment(sc, WantedOrder)
    if wanted is None or wanted.caller is not Reclaimer.KSWAPD:
        return None
    params = attachment(wanted.pgdat, Params)
    zone = _normal_zone(wanted.pgdat)
    if params is None or zone is None or wanted.order < params.min_order:
        return None
    return False if zone_maybe_fragmented(zone, params) else None
