"""Loads for scenarios about more than the aquarium: a client with a working set, and one that makes and drops objects."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmfw_xe_shrinker.clients import Clients, draw_sizes
from mmfw_xe_shrinker.device import XeDevice

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_xe_shrinker.bo import XeBo, XeVm

NSEC_PER_SEC: Final = 1_000_000_000
NSEC_PER_USEC: Final = 1_000


class Start(Enum):
    """Where a client's working set is when it starts."""

    UNPOPULATED = "unpopulated"
    RESIDENT = "resident"
    BACKED_UP = "backed_up"


class ClientParams(BaseModel):
    """One client: objects, and execs that use all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    working_set_pages: int = Field(58_880, ge=1, description="pages of all objects together")
    starts: Start = Field(
        Start.UNPOPULATED,
        description="unpopulated: the first exec allocates them; resident: in single pages of the initial state, of "
        "which xe.resident_pages claims enough; backed_up: on the swap device",
    )
    bo_min_order: int = Field(4, ge=0, le=18, description="smallest object, as an order: 4 is 64 KiB")
    bo_max_order: int = Field(11, ge=0, le=18, description="largest object, as an order: 11 is 8 MiB")
    execs_per_second: float = Field(60.0, ge=1e-3, le=1e6, description="execs a second that it aims at")
    exec_user_us: int = Field(100, ge=0, description="user-mode work for an exec")
    gpu_job_us: int = Field(1_000, ge=0, description="time an exec's job keeps the one engine busy")
    waits_for_job: bool = Field(True, description="whether it waits for each job before it goes on")
    purgeable_percent: int = Field(0, ge=0, le=100, description="objects DONTNEED after the first exec")
    reuse_after_execs: int = Field(
        0,
        ge=0,
        description="after so many execs the DONTNEED objects are wanted for one exec, purged ones made anew; 0: never",
    )
    pinned_percent: int = Field(
        0, ge=0, le=100, description="objects pinned after the first exec, as for scanout"
    )

    @model_validator(mode="after")
    def _fits(self) -> ClientParams:
        if self.bo_min_order > self.bo_max_order:
            raise ValueError(f"bo_min_order {self.bo_min_order} is above bo_max_order {self.bo_max_order}")
        if self.purgeable_percent + self.pinned_percent > 100:
            raise ValueError(
                f"purgeable_percent {self.purgeable_percent} and pinned_percent {self.pinned_percent} are more "
                "than 100 together"
            )
        return self


class _Pace:
    """Turns at a rate; a turn that is late is not made up for."""

    def __init__(self, mm: Mm, per_second: float) -> None:
        self._sched = mm.sched
        self._period = round(NSEC_PER_SEC / per_second)
        self._next = mm.sched.now

    def wait(self) -> None:
        """Sleep, in user mode, until the next turn."""
        self._next = max(self._next + self._period, self._sched.now)
        self._sched.nanosleep(self._next - self._sched.now)


def _device_and_name(mm: Mm, kind: str) -> tuple[XeDevice, str]:
    device, clients = mm.attached.get(XeDevice), mm.attached.get(Clients)
    assert device is not None, "module_init attaches it"
    assert clients is not None, "module_init attaches it"
    return device, clients.next_name(kind)


def _make_objects(mm: Mm, device: XeDevice, vm: XeVm, params: ClientParams) -> None:
    sizes = draw_sizes(
        mm, f"{vm.name} sizes", params.working_set_pages, params.bo_min_order, params.bo_max_order
    )
    for size in sizes:
        bo = device.create_bo(vm, size)
        if params.starts is Start.RESIDENT:
            device.populate_from_reserve(bo)
        elif params.starts is Start.BACKED_UP:
            device.adopt_backed_up(bo)


def _pin_and_mark(mm: Mm, device: XeDevice, vm: XeVm, params: ClientParams) -> list[XeBo]:
    """Pin some objects and mark others DONTNEED; the latter."""
    dispensable = []
    for bo, chance in zip(
        tuple(vm.bos), mm.rng(f"{vm.name} uses").below(100, len(vm.bos)).tolist(), strict=True
    ):
        if chance < params.pinned_percent:
            device.set_pinned(bo, True)
        elif chance < params.pinned_percent + params.purgeable_percent:
            device.set_purgeable(bo, True)
            dispensable.append(bo)
    return dispensable


def _want_again(device: XeDevice, dispensable: list[XeBo]) -> list[XeBo]:
    """Mark objects WILLNEED; those whose content is gone are made anew."""
    return [bo if device.set_purgeable(bo, False) else device.recreate_bo(bo) for bo in dispensable]


def xe_client(mm: Mm, params: ClientParams) -> None:
    """Exec with every object, at a rate, until the run or the phase ends."""
    device, name = _device_and_name(mm, "xe-client")
    vm = device.create_vm(name)
    try:
        _make_objects(mm, device, vm, params)
        _exec_for_ever(mm, device, vm, params)
    finally:
        device.destroy_vm(vm)


def _exec_for_ever(mm: Mm, device: XeDevice, vm: XeVm, params: ClientParams) -> None:
    sched = mm.sched
    pace = _Pace(mm, params.execs_per_second)
    dispensable: list[XeBo] = []
    marked = False
    execs = 0
    while True:
        sched.charge_user(params.exec_user_us * NSEC_PER_USEC, "exec")
        reuse = bool(dispensable) and params.reuse_after_execs > 0 and execs % params.reuse_after_execs == 0
        if reuse:
            with vm.resv:
                dispensable = _want_again(device, dispensable)
        fence = device.exec(vm, params.gpu_job_us * NSEC_PER_USEC)
        if reuse:
            with vm.resv:
                for bo in dispensable:
                    device.set_purgeable(bo, True)
        if fence is not None:
            execs += 1
            if params.waits_for_job:
                fence.wait()
            if not marked:
                marked = True
                with vm.resv:
                    dispensable = _pin_and_mark(mm, device, vm, params)
        pace.wait()


class ChurnParams(BaseModel):
    """One client that makes objects of one size and drops them again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bo_pages: int = Field(512, ge=1, description="size of each object, pages")
    per_second: float = Field(200.0, ge=1e-3, le=1e6, description="objects made a second")
    live_bos: int = Field(
        16, ge=1, description="objects that live at once; the oldest is dropped for a new one"
    )
    gpu_job_us: int = Field(
        100, ge=0, description="time the job that uses a new object keeps the one engine busy"
    )


def xe_churn(mm: Mm, params: ChurnParams) -> None:
    """Make an object, have a job use it and all that live, drop the oldest, until the run or the phase ends.

    An object that cannot be populated is dropped at once. The client waits for its jobs before it drops an object, which
    in the kernel would live on as a zombie until then.
    """
    device, name = _device_and_name(mm, "xe-churn")
    vm = device.create_vm(name)
    try:
        _make_and_drop(mm, device, vm, params)
    finally:
        device.destroy_vm(vm)


def _make_and_drop(mm: Mm, device: XeDevice, vm: XeVm, params: ChurnParams) -> None:
    live: deque[XeBo] = deque()
    pace = _Pace(mm, params.per_second)
    while True:
        with vm.resv:
            bo = device.create_bo(vm, params.bo_pages)
        if device.exec(vm, params.gpu_job_us * NSEC_PER_USEC) is None:
            with vm.resv:
                device.destroy_bo(bo)
        else:
            live.append(bo)
        if len(live) >= params.live_bos:
            if vm.fence is not None:
                vm.fence.wait()
            with vm.resv:
                device.destroy_bo(live.popleft())
        pace.wait()
