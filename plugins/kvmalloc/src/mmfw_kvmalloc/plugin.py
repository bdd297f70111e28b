"""What mmfw loads: the ladder, the storm and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field, field_validator

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_kvmalloc.ladder import Kvmalloc
from mmfw_kvmalloc.rules import Rules
from mmfw_kvmalloc.stats import NR_ORDERS
from mmfw_kvmalloc.storm import StormParams, Storms, kvmalloc_storm

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="kvmalloc", hook_api=(1, 0), kind="workload")


class KvmallocParams(BaseModel):
    """Which ladder."""

    rules: Rules | None = Field(
        None,
        description='"6.1": a block may be compacted and reclaimed for; "6.16": it may not; else as the kernel profile',
    )

    @field_validator("rules", mode="before")
    @classmethod
    def _release(cls, value: object) -> object:
        """``--set kvmalloc.rules=6.16`` is read as a number."""
        return str(value) if isinstance(value, float) else value


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """The rule set."""
    return KvmallocParams


@hookimpl
def mmfw_module_init(mm: Mm, params: KvmallocParams) -> None:
    """Set kvmalloc up."""
    mm.attached.put(Kvmalloc(mm, params.rules or Rules.of_kernel(mm.kernel)))
    mm.attached.put(Storms())


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The storm."""
    yield Workload("kvmalloc-storm", "Call kvmalloc again and again", kvmalloc_storm, StormParams)


def _of(read: Callable[[Kvmalloc], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        kv = mm.attached.get(Kvmalloc)
        return 0 if kv is None else read(kv)

    return from_mm


def _fallbacks(order: int) -> Callable[[Mm], int]:
    return _of(lambda kv: kv.stats.fallbacks[order])


def _latency(percent: int) -> Callable[[Mm], int]:
    return _of(lambda kv: kv.stats.latencies.quantile(percent))


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Calls, fallbacks and how long calls took."""
    yield Metric(
        "kvmalloc_calls", "1", "counter", "higher", "Calls of kvmalloc", _of(lambda kv: sum(kv.stats.calls))
    )
    yield Metric(
        "kvmalloc_vmalloc_fallbacks",
        "1",
        "counter",
        "lower",
        "Calls that vmalloc served, for there was no block",
        _of(lambda kv: sum(kv.stats.fallbacks)),
    )
    yield Metric(
        "kvmalloc_failures",
        "1",
        "counter",
        "lower",
        "Calls that got nothing",
        _of(lambda kv: kv.stats.failures),
        each_matters=True,
    )
    for order in range(2, NR_ORDERS):
        yield Metric(
            f"kvmalloc_vmalloc_fallbacks_order_{order}",
            "1",
            "counter",
            "lower",
            f"Calls that vmalloc served, for there was no block of order {order}",
            _fallbacks(order),
        )
    yield Metric(
        "kvmalloc_time_us",
        "us",
        "counter",
        "lower",
        "Time spent in kvmalloc, the fallback included",
        _of(lambda kv: kv.stats.latencies.total_ns // 1_000),
    )
    for percent in (50, 99):
        yield Metric(
            f"kvmalloc_latency_p{percent}_ns",
            "ns",
            "gauge",
            "lower",
            f"Time that {percent}% of the calls did not exceed, up to an eighth too high",
            _latency(percent),
        )
    yield Metric(
        "kvmalloc_vmalloc_pages",
        "pages",
        "gauge",
        "lower",
        "Pages of vmalloc areas",
        _of(lambda kv: kv.vmalloc.nr_pages),
    )
