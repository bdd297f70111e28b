"""What mmfw loads: the workloads and their counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_demand.anon_pressure import AnonPressureParams, anon_pressure
from mmfw_demand.loads import demand_loads
from mmfw_demand.order_demand import OrderDemandParams, order_demand
from mmfw_demand.pin_pages import PinPagesParams, pin_pages

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="demand", hook_api=(1, 0), kind="workload")


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The loads."""
    yield Workload(
        "order-demand",
        "Ask for blocks of one order with one mask, at a rate",
        order_demand,
        OrderDemandParams,
    )
    yield Workload(
        "anon-pressure",
        "Grow anonymous memory to a share of RAM, and shrink again",
        anon_pressure,
        AnonPressureParams,
    )
    yield Workload(
        "pin-pages", "Leave single pages that cannot move all over free memory", pin_pages, PinPagesParams
    )


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Requests, failures, pinned pages. Success by order and class is core's."""
    yield Metric(
        "demand_requests",
        "1",
        "counter",
        "neither",
        "Requests of all order-demand loads",
        lambda mm: demand_loads(mm).requests,
    )
    yield Metric(
        "demand_failures",
        "1",
        "counter",
        "lower",
        "Requests of order-demand loads that got no memory",
        lambda mm: demand_loads(mm).failures,
    )
    yield Metric(
        "demand_pinned_pages",
        "pages",
        "gauge",
        "neither",
        "Pages that pin-pages holds",
        lambda mm: demand_loads(mm).nr_pinned,
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Give the pinned pages back."""
    demand_loads(mm).unpin(mm)
