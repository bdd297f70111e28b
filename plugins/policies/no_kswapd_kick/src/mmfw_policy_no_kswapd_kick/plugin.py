"""``wakeup_kswapd()`` sends high orders to kcompactd while single pages are no concern (mm/vmscan.c).

The review says that compaction failure should not wake kswapd. That kswapd is woken at order 0 where single pages are
short, and what happens where kcompactd has no room to work in, is inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmfw import Metric, PluginInfo, WakePlan, attach, attachment, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw import KswapdWake, Mm, PgdatView

MMFW_PLUGIN: Final = PluginInfo(name="no-kswapd-kick", hook_api=(1, 0), kind="policy")

PAGE_ALLOC_COSTLY_ORDER: Final = 3
#: ``enum zone_watermarks`` (include/linux/mmzone.h).
_WMARK_MIN: Final = 0
_WMARK_LOW: Final = 1


class Options(BaseModel):
    """What becomes of a wake-up that kcompactd could do nothing with."""

    model_config = ConfigDict(extra="forbid")

    without_headroom: Literal["kswapd", "nobody"] = Field(
        "kswapd",
        description="single pages are balanced, but no zone has what compaction wants beyond its watermark: kswapd "
        "at order 0 until one has, or nobody",
    )


@dataclass(slots=True)
class Redirection:
    """The policy's state on a node: its options, and how many high-order wake-ups it saw and redirected."""

    options: Options
    nr_wakes: int = 0
    nr_redirected: int = 0


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """One option."""
    return Options


@hookimpl
def mmfw_module_init(mm: Mm, params: Options) -> None:
    """Attach the options to the node."""
    attach(mm.pgdat, Redirection(params))


def has_headroom(pgdat: PgdatView, order: int, gap: int, highest_zoneidx: int) -> bool:
    """Whether some zone has what compaction for an order wants beyond its watermark (``__compaction_suitable()``)."""
    which = _WMARK_LOW if order > PAGE_ALLOC_COSTLY_ORDER else _WMARK_MIN
    return any(
        zone.zone_watermark_ok(0, zone.wmark_pages(which) + gap, highest_zoneidx)
        for zone in pgdat.node_zones[: highest_zoneidx + 1]
        if zone.managed_pages
    )


@hookimpl
def mmfw_plan_wakeup(pgdat: PgdatView, wake: KswapdWake) -> WakePlan | None:
    """Wake kcompactd at a high order; kswapd only where it or single pages lack room, and then at order 0."""
    state = attachment(pgdat, Redirection)
    assert state is not None
    order = wake.order
    if order == 0:
        return None
    state.nr_wakes += 1
    if not pgdat.pgdat_balanced(0, wake.highest_zoneidx):
        return WakePlan(kswapd_order=0, kcompactd_order=order)
    gap = 2 << order  # compact_gap()
    roomy = has_headroom(pgdat, order, gap, wake.highest_zoneidx)
    if not roomy and state.options.without_headroom == "kswapd":
        return WakePlan(kswapd_order=0, kswapd_min_free_pages=gap, kcompactd_order=order)
    state.nr_redirected += 1
    return WakePlan(kswapd_order=None, kcompactd_order=order)


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """How often kswapd was left asleep."""

    def redirected_ratio(mm: Mm) -> float:
        state = attachment(mm.pgdat, Redirection)
        return state.nr_redirected / state.nr_wakes if state is not None and state.nr_wakes else 0.0

    yield Metric(
        "no_kswapd_kick_redirected_ratio",
        "1",
        "ratio",
        "neither",
        "Share of high-order wake-ups that went to kcompactd alone",
        redirected_ratio,
    )
