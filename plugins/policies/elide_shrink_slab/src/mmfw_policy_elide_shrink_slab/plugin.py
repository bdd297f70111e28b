"""``shrink_node_memcgs()`` leaves out ``shrink_slab()`` where a high-order failure drives reclaim (mm/vmscan.c).

The review says that such reclaim should call no ordinary shrinker. It does not say how a pass is told to be of that kind,
nor what becomes of ``kswapd_failures`` and of requests that only slab could satisfy: these are inferred, and marked so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from mmfw import Metric, PluginInfo, Reclaimer, attach, attachment, gfp, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw import Mm, PgdatView, ReclaimContext, ScanControl

MMFW_PLUGIN: Final = PluginInfo(name="elide-shrink-slab", hook_api=(1, 0), kind="policy")

PAGE_ALLOC_COSTLY_ORDER: Final = 3
#: ``enum zone_watermarks`` (include/linux/mmzone.h).
_WMARK_LOW: Final = 1


class Options(BaseModel):
    """Which passes are elided."""

    model_config = ConfigDict(extra="forbid")

    elide_order_min: int = Field(
        1, ge=1, le=10, description="lowest order for which shrinkers are not called"
    )
    elide_needs_order0_ok: bool = Field(
        True,
        description="call them all the same while single pages are short; false: the order alone decides, as the "
        "review words it",
    )
    last_resort_priority: int = Field(
        1,
        ge=-1,
        le=12,
        description="direct reclaim for a request that could end in the OOM killer calls them from this scan "
        "priority down; -1: never",
    )


@dataclass(slots=True)
class Elision:
    """The policy's state on a node: its options, and how often it was asked and answered no."""

    options: Options
    nr_asked: int = 0
    nr_elided: int = 0


@dataclass(frozen=True, slots=True)
class Elided:
    """Attached to a pass: whether its last turn was kept from the shrinkers."""

    yes: bool


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Three options."""
    return Options


@hookimpl
def mmfw_module_init(mm: Mm, params: Options) -> None:
    """Attach the options to the node."""
    attach(mm.pgdat, Elision(params))


def low_mark_ok(pgdat: PgdatView, highest_zoneidx: int) -> bool:
    """Whether some zone up to an index could serve single pages at its low watermark; True if there is none."""
    zones = [zone for zone in pgdat.node_zones[: highest_zoneidx + 1] if zone.managed_pages]
    return not zones or any(
        zone.zone_watermark_ok_safe(0, zone.wmark_pages(_WMARK_LOW), highest_zoneidx) for zone in zones
    )


def driven_by_high_order_failure(reclaim_context: ReclaimContext, options: Options) -> bool:
    """Whether only a high order makes a pass of kswapd or of direct reclaim necessary.

    Inferred: single pages are no concern to kswapd at the high watermark, where it would sleep, and to direct reclaim
    at the low one, above which nobody would have woken kswapd for them.
    """
    kswapd = reclaim_context.caller is Reclaimer.KSWAPD
    if reclaim_context.order < options.elide_order_min or not (
        kswapd or reclaim_context.caller is Reclaimer.DIRECT
    ):
        return False
    if not options.elide_needs_order0_ok:
        return True
    pgdat, highest_zoneidx = reclaim_context.pgdat, reclaim_context.sc.reclaim_idx
    return pgdat.pgdat_balanced(0, highest_zoneidx) if kswapd else low_mark_ok(pgdat, highest_zoneidx)


def may_oom(sc: ScanControl) -> bool:
    """Whether ``__alloc_pages_may_oom()`` would kill for a request: not for a costly order, nor if it may fail."""
    failable = gfp.NORETRY | gfp.RETRY_MAYFAIL | gfp.THISNODE
    return sc.order <= PAGE_ALLOC_COSTLY_ORDER and bool(sc.gfp_mask & gfp.FS) and not sc.gfp_mask & failable


@hookimpl
def mmfw_should_shrink_slab(reclaim_context: ReclaimContext) -> bool | None:
    """Call no shrinker in a pass that a high-order failure drives.

    The last resort is inferred: without it a request of order 1 to 3 that only slab could satisfy would end in the
    OOM killer.
    """
    elision = attachment(reclaim_context.pgdat, Elision)
    assert elision is not None
    options, sc = elision.options, reclaim_context.sc
    elision.nr_asked += 1
    elided = driven_by_high_order_failure(reclaim_context, options)
    if elided and reclaim_context.caller is Reclaimer.DIRECT:
        elided = sc.priority > options.last_resort_priority or not may_oom(sc)
    if elided:
        elision.nr_elided += 1
        attach(sc, Elided(True))
        return False
    if attachment(sc, Elided) is not None:
        attach(sc, Elided(False))
    return None


@hookimpl
def mmfw_should_count_kswapd_failure(sc: ScanControl) -> bool | None:
    """Do not hold it against kswapd that it was kept from slab; a pass whose last turn was not elided counts.

    Inferred: otherwise sixteen high-order wake-ups with little on the LRU make the node hopeless though its slab is
    reclaimable.
    """
    elided = attachment(sc, Elided)
    return False if elided is not None and elided.yes else None


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """How often the policy held shrinkers back."""

    def elided_ratio(mm: Mm) -> float:
        elision = attachment(mm.pgdat, Elision)
        return elision.nr_elided / elision.nr_asked if elision is not None and elision.nr_asked else 0.0

    yield Metric(
        "elide_shrink_slab_elided_ratio",
        "1",
        "ratio",
        "neither",
        "Share of reclaim turns (node and priority) in which no shrinker was called",
        elided_ratio,
    )
