"""What mmfw loads: the captures' loads as workloads for scenarios, and what the object loop counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median_low
from typing import TYPE_CHECKING, Final

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_probe.objects import LoopCounts
from mmfw_probe.workloads import (
    FillParams,
    HogParams,
    Loads,
    LoopParams,
    loads_of,
    run_fill,
    run_hog,
    run_objects,
)

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="probe", hook_api=(1, 0), kind="workload")


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The loads."""
    yield Workload("probe-fill", "Fill memory with unmovable pages and punch holes", run_fill, FillParams)
    yield Workload("probe-hog", "Touch anonymous memory and punch holes", run_hog, HogParams)
    yield Workload("probe-objects", "Touch 2 MiB objects that a shrinker evicts", run_objects, LoopParams)


def _sum(read: Callable[[LoopCounts], int]) -> Callable[[Mm], int]:
    return lambda mm: sum(read(loop.counts) for loop in loads_of(mm).loops)


def _free_at_eviction(mm: Mm) -> int:
    loads: Loads = loads_of(mm)
    return median_low([n for loop in loads.loops for n in loop.counts.nr_free_at_eviction] or [0])


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """What ``mmfw validate`` compares of the object loop, over all loops of the run."""
    yield Metric(
        "probe_evictions",
        "1",
        "counter",
        "lower",
        "Objects evicted by the shrinker",
        _sum(lambda c: c.evictions),
    )
    yield Metric(
        "probe_restores",
        "1",
        "counter",
        "neither",
        "Objects given their pages, the first time included",
        _sum(lambda c: c.restores),
    )
    yield Metric("probe_got9", "1", "counter", "higher", "Order-9 requests served", _sum(lambda c: c.got9))
    yield Metric(
        "probe_fail9", "1", "counter", "lower", "Order-9 requests that failed", _sum(lambda c: c.fail9)
    )
    yield Metric(
        "probe_free_pages_at_eviction_median",
        "pages",
        "gauge",
        "neither",
        "Free pages of the machine after an eviction, median; 0 without an eviction",
        _free_at_eviction,
    )
