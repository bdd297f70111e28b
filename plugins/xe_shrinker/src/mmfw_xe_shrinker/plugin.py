"""What mmfw loads: the device, its shrinker, its workload and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import InputError, Metric, PluginInfo, Workload, hookimpl
from mmfw.sched import Mutex
from mmfw_ttm_pool import Caching, TtmPool
from mmfw_xe_shrinker.clients import AquariumParams, Clients, webgl_aquarium_client
from mmfw_xe_shrinker.device import XeDevice
from mmfw_xe_shrinker.shrinker import XeShrinker

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="xe", hook_api=(1, 0), needs=("ttm",), kind="shrinker")


class XeParams(BaseModel):
    """What the model of the driver may be told."""

    resident_pages: int = Field(0, ge=0, description="pages of the initial state that clients' objects hold")
    abort_on_ebusy: bool = Field(
        True, description="an object's -EBUSY ends the walk, its freed pages unreported (6.15 to 7.1)"
    )
    caching: Caching = Field(Caching.WRITE_COMBINED, description="CPU caching of the objects")


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the model."""
    return XeParams


@hookimpl
def mmfw_module_init(mm: Mm, params: XeParams) -> None:
    """Create the device and its shrinker (``xe_shrinker_create()``)."""
    pool = mm.attached.get(TtmPool)
    if pool is None:
        raise InputError("plugin xe: no TTM pool is set up; load plugin ttm before it")
    device = XeDevice(mm, pool, params.caching)
    device.claim_reserve(params.resident_pages)
    shrinker = XeShrinker(device, abort_on_ebusy=params.abort_on_ebusy)
    mm.attached.put(device)
    mm.attached.put(Clients(Mutex(mm.sched, "GPU process main thread")))
    mm.attached.put(_Registered(mm.register_shrinker(shrinker, "xe system shrinker")))


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The browser tab."""
    yield Workload(
        "webgl-aquarium-client",
        "A browser tab that draws the WebGL aquarium: an exec with all its objects for each frame",
        run=webgl_aquarium_client,
        params=AquariumParams,
    )


def _of_device(read: Callable[[XeDevice], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        device = mm.attached.get(XeDevice)
        return 0 if device is None else read(device)

    return from_mm


def _of_clients(read: Callable[[Clients, int], float]) -> Callable[[Mm], float]:
    def from_mm(mm: Mm) -> float:
        clients = mm.attached.get(Clients)
        return 0.0 if clients is None else read(clients, mm.sched.now)

    return from_mm


def _frames(mm: Mm) -> int:
    clients = mm.attached.get(Clients)
    return 0 if clients is None else sum(clients.frames().values())


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Evictions, restores, purges, frames."""
    yield Metric(
        "xe_bo_evictions",
        "1",
        "counter",
        "lower",
        "Objects that the shrinker backed up",
        read=_of_device(lambda device: device.stats.bo_evictions),
    )
    yield Metric(
        "xe_bo_evicted_pages",
        "pages",
        "counter",
        "lower",
        "Pages that the shrinker backed up",
        read=_of_device(lambda device: device.stats.evicted_pages),
    )
    yield Metric(
        "xe_bo_restores",
        "1",
        "counter",
        "lower",
        "Objects that an exec brought back from their backup",
        read=_of_device(lambda device: device.stats.bo_restores),
    )
    yield Metric(
        "xe_bo_restored_pages",
        "pages",
        "counter",
        "lower",
        "Pages of the objects brought back",
        read=_of_device(lambda device: device.stats.restored_pages),
    )
    yield Metric(
        "xe_bo_purges",
        "1",
        "counter",
        "neither",
        "DONTNEED objects whose content the shrinker dropped",
        read=_of_device(lambda device: device.stats.bo_purges),
    )
    yield Metric(
        "xe_purged_pages",
        "pages",
        "counter",
        "neither",
        "Pages of the objects purged",
        read=_of_device(lambda device: device.stats.purged_pages),
    )
    yield Metric(
        "xe_exec_failures",
        "1",
        "counter",
        "lower",
        "Execs that failed with -ENOMEM",
        read=_of_device(lambda device: device.stats.exec_failures),
    )
    yield Metric(
        "xe_resident_pages",
        "pages",
        "gauge",
        "higher",
        "Pages that objects hold",
        read=_of_device(lambda device: device.resident_pages),
    )
    yield Metric(
        "xe_free_pages_at_eviction_median",
        "pages",
        "gauge",
        "neither",
        "Free pages of the machine as an eviction begins, median; 0 without an eviction",
        read=_of_device(lambda device: median_low(device.stats.free_pages_at_eviction or [0])),
    )
    yield Metric("xe_frames", "1", "counter", "higher", "Frames of all clients, job done", read=_frames)
    yield Metric(
        "xe_fps_median",
        "frames/s",
        "ratio",
        "higher",
        "Frames a second since its start, median client",
        read=_of_clients(Clients.fps_median),
    )
    yield Metric(
        "xe_fps_min",
        "frames/s",
        "ratio",
        "higher",
        "Frames a second since its start, slowest client",
        read=_of_clients(Clients.fps_min),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Destroy every object and unregister the shrinker (``xe_shrinker_destroy()``)."""
    device, registered = mm.attached.get(XeDevice), mm.attached.get(_Registered)
    if device is not None and registered is not None:
        device.remove()
        mm.unregister_shrinker(registered.shrinker)
