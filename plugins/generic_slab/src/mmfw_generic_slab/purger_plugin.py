"""What mmfw loads as ``drm-purger``: the purging driver, its client and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw_generic_slab.purger import ClientParams, PurgingDriver, drm_purger_client

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="drm-purger", hook_api=(1, 0), kind="shrinker")


class PurgerParams(BaseModel):
    """The driver."""

    max_order: int = Field(9, ge=0, le=10, description="order at which the ladder begins")


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the driver."""
    return PurgerParams


@hookimpl
def mmfw_module_init(mm: Mm, params: PurgerParams) -> None:
    """Register the shrinker of a device without objects."""
    driver = PurgingDriver(mm, params.max_order)
    mm.attached.put(driver)
    mm.attached.put(_Registered(mm.register_shrinker(driver, "drm-purger")))


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """A client."""
    yield Workload(
        "drm-purger-client",
        "Uses buffer objects in turn that the driver's shrinker may drop between two uses",
        run=drm_purger_client,
        params=ClientParams,
    )


def _of_driver(read: Callable[[PurgingDriver], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        driver = mm.attached.get(PurgingDriver)
        return 0 if driver is None else read(driver)

    return from_mm


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Uses, purges, and what had to be made again."""
    yield Metric(
        "drm_purger_uses",
        "1",
        "counter",
        "higher",
        "Uses of objects",
        read=_of_driver(lambda driver: driver.nr_uses),
    )
    yield Metric(
        "drm_purger_purges",
        "1",
        "counter",
        "lower",
        "Objects that the shrinker dropped",
        read=_of_driver(lambda driver: driver.nr_purges),
    )
    yield Metric(
        "drm_purger_purged_pages",
        "pages",
        "counter",
        "lower",
        "Their pages",
        read=_of_driver(lambda driver: driver.nr_purged_pages),
    )
    yield Metric(
        "drm_purger_remade_pages",
        "pages",
        "counter",
        "lower",
        "Pages of objects made again after they had been dropped",
        read=_of_driver(lambda driver: driver.nr_remade_pages),
    )
    yield Metric(
        "drm_purger_resident_pages",
        "pages",
        "gauge",
        "higher",
        "Pages that objects hold",
        read=_of_driver(lambda driver: driver.resident_pages),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Unregister the shrinker; clients have destroyed their objects."""
    registered = mm.attached.get(_Registered)
    if registered is not None:
        mm.unregister_shrinker(registered.shrinker)
