"""What mmfw loads: the shrinker, its option, its workloads and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import Metric, PluginInfo, Workload, attach, hookimpl
from mmfw.jit.page import PB_PAGES
from mmfw_deferred_split.kernels import DEFERRED_SPLIT_KERNELS
from mmfw_deferred_split.queue import SUBSYSTEM, SplitQueue, SplitStats
from mmfw_deferred_split.shrinker import DeferredSplitShrinker, WantedOrder
from mmfw_deferred_split.workloads import (
    PartialUnmapParams,
    UnderusedParams,
    thp_partial_unmap,
    thp_underused,
)

if TYPE_CHECKING:
    from mmfw import Mm, ReclaimContext, ShrinkControl
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="deferred-split", hook_api=(1, 0), kind="shrinker")


class DeferredSplitParams(BaseModel):
    """Options of the queue and its shrinker."""

    order_aware: bool = Field(
        False, description="in a pass for order W > 0 split only what has an aligned unmapped run of order W"
    )
    split_underused_thp: bool | None = Field(
        None,
        description="queue fully mapped huge pages too (6.12); default: as the kernel profile, 7.1 and 7.2",
    )
    max_ptes_none: int | None = Field(
        None,
        ge=0,
        le=511,
        description="khugepaged/max_ptes_none: a huge page with more zero-filled pages is underused; "
        "default: left as it is, 511, at which none is",
    )


@dataclass(frozen=True, slots=True)
class _Registered:
    queue: SplitQueue
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the shrinker."""
    return DeferredSplitParams


@hookimpl
def mmfw_module_init(mm: Mm, params: DeferredSplitParams) -> None:
    """Register the shrinker (``hugepage_init()``)."""
    rules = DEFERRED_SPLIT_KERNELS[mm.kernel]
    if params.split_underused_thp is not None:
        rules = replace(rules, splits_underused=params.split_underused_thp)
    mm.memory.thp.split_underused = rules.splits_underused
    if params.max_ptes_none is not None:
        mm.memory.thp.max_ptes_none = params.max_ptes_none
    queue = SplitQueue(mm, rules)
    shrinker = DeferredSplitShrinker(queue, order_aware=params.order_aware)
    mm.ledger.hold(SUBSYSTEM, lambda: len(queue.heads) * PB_PAGES)
    mm.attached.put(_Registered(queue, mm.register_shrinker(shrinker, "thp-deferred_split")))


@hookimpl
def mmfw_init_shrink_control(shrinkctl: ShrinkControl, reclaim_context: ReclaimContext) -> None:
    """Tell shrinkers the order that is wanted; only with `order_aware` does this one look."""
    attach(shrinkctl, WantedOrder(reclaim_context.order))


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Programs that leave huge pages half used."""
    yield Workload(
        "thp-partial-unmap",
        "Map huge pages and unmap part of each",
        run=thp_partial_unmap,
        params=PartialUnmapParams,
    )
    yield Workload(
        "thp-underused",
        "Map huge pages and write only the begin of each",
        run=thp_underused,
        params=UnderusedParams,
    )


def _stat(read: Callable[[SplitStats], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        registered = mm.attached.get(_Registered)
        return 0 if registered is None else read(registered.queue.stats)

    return from_mm


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """The queue, and what came of splitting."""
    yield Metric(
        "deferred_split_queue_len",
        "1",
        "gauge",
        "neither",
        "Huge pages queued",
        read=lambda mm: mm.memory.deferred_split.split_queue_len,
    )
    yield Metric(
        "deferred_split_splits",
        "1",
        "counter",
        "lower",
        "Huge pages that the shrinker split",
        read=_stat(lambda stats: stats.splits),
    )
    yield Metric(
        "deferred_split_failures",
        "1",
        "counter",
        "lower",
        "Huge pages that the shrinker could not split, being written, locked or held",
        read=_stat(lambda stats: stats.failures),
    )
    yield Metric(
        "deferred_split_underused_splits",
        "1",
        "counter",
        "neither",
        "Huge pages split that were fully mapped but mostly zero-filled",
        read=_stat(lambda stats: stats.underused_splits),
    )
    yield Metric(
        "deferred_split_pages_freed",
        "pages",
        "counter",
        "neither",
        "Pages that splits freed",
        read=_stat(lambda stats: stats.pages_freed),
    )
    yield Metric(
        "deferred_split_pages_left",
        "pages",
        "counter",
        "lower",
        "Pages that splits left behind as single ones, for compaction to move",
        read=_stat(lambda stats: stats.pages_left),
    )
    yield Metric(
        "deferred_split_splits_of_order_4",
        "1",
        "counter",
        "neither",
        "Splits that freed an aligned run of 16 pages or more inside the huge page",
        read=_stat(lambda stats: sum(stats.free_run_orders[4:])),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Unregister the shrinker; the queue holds no memory of its own (``hugepage_exit_sysfs()``)."""
    registered = mm.attached.get(_Registered)
    if registered is not None:
        mm.unregister_shrinker(registered.shrinker)
