"""What mmfw loads: the device, its shrinker, its workload and its figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import InputError, Metric, PluginInfo, Workload, hookimpl
from mmfw.sched import Mutex
from mmfw_ttm_pool import Caching, TtmPool
from mmfw_xe_shrinker.clients import AquariumParams, Clients, webgl_aquarium_client
from mmfw_xe_shrinker.compact import CompactionBody
from mmfw_xe_shrinker.device import LEDGER_NAME, XeDevice
from mmfw_xe_shrinker.hookspecs import XeSpec
from mmfw_xe_shrinker.kernels import XE_KERNELS
from mmfw_xe_shrinker.metrics import all_metrics
from mmfw_xe_shrinker.pm import XePm
from mmfw_xe_shrinker.shrinker import XeShrinker
from mmfw_xe_shrinker.workloads import ChurnParams, ClientParams, xe_churn, xe_client

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.hookspecs import HookPublisher
    from mmfw.mm.shrinker import Shrinker

NSEC_PER_USEC: Final = 1_000
NSEC_PER_MSEC: Final = 1_000_000

MMFW_PLUGIN: Final = PluginInfo(name="xe", hook_api=(1, 0), needs=("ttm",), kind="shrinker")


class XeParams(BaseModel):
    """What the model of the driver may be told."""

    resident_pages: int = Field(0, ge=0, description="pages of the initial state that clients' objects hold")
    abort_on_ebusy: bool = Field(
        True, description="an object's -EBUSY ends the walk, its freed pages unreported (6.15 to 7.1)"
    )
    caching: Caching = Field(Caching.WRITE_COMBINED, description="CPU caching of the objects")
    staged_walk: bool | None = Field(
        None, description="idle objects go before active ones (since 6.17); by default as the kernel profile"
    )
    flat_ccs: bool = Field(
        False,
        description="a backup of an uncached object in TT needs the device awake (integrated, Xe2 and later)",
    )
    autosuspend_ms: int = Field(
        0, ge=0, description="idle time after which the device sleeps; 0: never, as while a display is lit"
    )
    resume_us: int = Field(20_000, ge=0, description="time a sleeping device takes to be awake again")
    rpm_reclaim_safe: bool = Field(
        True, description="kswapd may wake it (no D3cold); else a worker does that later"
    )
    compaction_scan_working_set: bool = Field(
        True, description="back objects in use up for a compaction scan that must free; else purge only"
    )
    compaction_scan_native_order: bool = Field(
        True,
        description="what such a scan backs up is freed in whole blocks, whatever ttm.backup_native_order says",
    )


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_addhooks(pluginmanager: HookPublisher) -> None:
    """Publish ``xe_can_backup``."""
    pluginmanager.add_hookspecs(XeSpec)


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
    pm = XePm(
        mm,
        params.autosuspend_ms * NSEC_PER_MSEC,
        params.resume_us * NSEC_PER_USEC,
        reclaim_safe=params.rpm_reclaim_safe,
    )
    device = XeDevice(mm, pool, params.caching, pm=pm, flat_ccs=params.flat_ccs)
    device.claim_reserve(params.resident_pages)
    rules = XE_KERNELS[mm.kernel]
    shrinker = XeShrinker(
        device,
        abort_on_ebusy=params.abort_on_ebusy,
        staged_walk=rules.staged_walk if params.staged_walk is None else params.staged_walk,
        compaction=CompactionBody(
            device,
            offer_working_set=params.compaction_scan_working_set,
            native_order=params.compaction_scan_native_order,
        ),
        can_backup_hook=mm.hook("xe_can_backup"),
    )
    # What can be lost: populated objects that are not pinned.
    mm.ledger.hold(LEDGER_NAME, lambda: device.shrinkable_pages + device.purgeable_pages)
    mm.attached.put(device)
    mm.attached.put(Clients(Mutex(mm.sched, "GPU process main thread")))
    mm.attached.put(_Registered(mm.register_shrinker(shrinker, "xe system shrinker")))


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The browser tab, a client with a working set, one that makes and drops objects."""
    yield Workload(
        "webgl-aquarium-client",
        "A browser tab that draws the WebGL aquarium: an exec with all its objects for each frame",
        run=webgl_aquarium_client,
        params=AquariumParams,
    )
    yield Workload(
        "xe-client",
        "A client with a working set: execs with all its objects, at a rate",
        run=xe_client,
        params=ClientParams,
    )
    yield Workload(
        "xe-churn",
        "A client that makes objects of one size and drops them, at a rate",
        run=xe_churn,
        params=ChurnParams,
    )


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Execs, evictions, restores, purges, frames."""
    return all_metrics()


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Destroy every object and unregister the shrinker (``xe_shrinker_destroy()``)."""
    device, registered = mm.attached.get(XeDevice), mm.attached.get(_Registered)
    if device is not None and registered is not None:
        device.remove()
        mm.unregister_shrinker(registered.shrinker)
