"""Clients: the frame loop of a browser tab that draws the WebGL aquarium, and its frame count."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field, model_validator

from mmfw import InputError
from mmfw_xe_shrinker.device import XeDevice

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.sched import Fence, Mutex
    from mmfw_xe_shrinker.bo import XeBo, XeVm

NSEC_PER_SEC = 1_000_000_000


class AquariumParams(BaseModel):
    """One tab."""

    working_set_pages: int = Field(58_880, ge=1, description="pages of objects out of memory at first")
    resident_pages: int = Field(0, ge=0, description="pages of objects in memory at first")
    bo_min_order: int = Field(4, ge=0, le=18, description="smallest object, as an order: 4 is 64 KiB")
    bo_max_order: int = Field(11, ge=0, le=18, description="largest object, as an order: 11 is 8 MiB")
    purgeable_percent: int = Field(5, ge=0, le=100, description="objects DONTNEED after frame one")
    starts_backed_up: bool = Field(
        False, description="working_set_pages begin on the swap device instead of never populated"
    )
    refresh_hz: int = Field(60, ge=1, description="frames a second that the tab aims at")
    gpu_job_us: int = Field(10_000, ge=0, description="time a frame's job keeps the one engine busy")
    one_gpu_thread: bool = Field(
        False, description="all tabs' execs pass through one thread, as in a browser's GPU process"
    )
    frame_user_us: int = Field(1_000, ge=0, description="user-mode work for a frame")
    file_pages: int = Field(8_192, ge=1, description="size of the tab's own file")
    file_starts_cached: bool = Field(False, description="the file is in the page cache at first")
    file_pages_per_frame: int = Field(32, ge=0, description="pages read for a frame, round and round")
    tabs: int = Field(1, ge=1, description="resident_pages and file_pages are of so many tabs together")

    @model_validator(mode="after")
    def _smallest_is_not_above_largest(self) -> AquariumParams:
        if self.bo_min_order > self.bo_max_order:
            raise ValueError(f"bo_min_order {self.bo_min_order} is above bo_max_order {self.bo_max_order}")
        if self.tabs > self.file_pages:
            raise ValueError(f"file_pages {self.file_pages} do not give each of {self.tabs} tabs a page")
        return self


@dataclass(slots=True)
class Client:
    """What is known of one client.

    Attributes
    ----------
    name : str
        Its task.
    started : int
        Virtual time of its start, ns.
    drawn : list of int
        When each frame's job was seen to have finished, ns.
    """

    name: str
    started: int
    drawn: list[int] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Frames whose job has finished."""
        return len(self.drawn)

    def fps(self, now: int) -> float:
        """Frames a second up to now; 0 before any time has passed."""
        elapsed = now - self.started
        return self.frames * NSEC_PER_SEC / elapsed if elapsed else 0.0

    def fps_second_half(self, now: int) -> float:
        """Frames a second in the second half of the time up to now, when objects have been made."""
        half = (now - self.started) // 2
        return (self.frames - bisect_left(self.drawn, now - half)) * NSEC_PER_SEC / half if half else 0.0


class Clients:
    """All clients of a run, in order of their start."""

    def __init__(self, gpu_thread: Mutex) -> None:
        self._clients: list[Client] = []
        self._gpu_thread = gpu_thread
        self._nr_named: dict[str, int] = {}

    def next_name(self, kind: str) -> str:
        """Name of another client that draws no frames, by its number among its kind."""
        number = self._nr_named.get(kind, 0)
        self._nr_named[kind] = number + 1
        return f"{kind}-{number}"

    def exec(self, device: XeDevice, vm: XeVm, params: AquariumParams) -> Fence | None:
        """Submit a frame; one at a time if the tabs share a thread for it."""
        job_ns = params.gpu_job_us * 1_000
        if not params.one_gpu_thread:
            return device.exec(vm, job_ns)
        with self._gpu_thread:
            return device.exec(vm, job_ns)

    def start(self, now: int) -> Client:
        """A new client, named by its number."""
        client = Client(f"webgl-aquarium-{len(self._clients)}", now)
        self._clients.append(client)
        return client

    def __iter__(self) -> Iterator[Client]:
        return iter(tuple(self._clients))

    def frames(self) -> dict[str, int]:
        """Frame counts by client."""
        return {each.name: each.frames for each in self._clients}

    def fps(self, now: int) -> list[float]:
        """Frames a second of each client."""
        return [each.fps(now) for each in self._clients]

    def fps_median(self, now: int) -> float:
        """Median over clients; 0 if there are none."""
        rates = self.fps(now)
        return float(statistics.median(rates)) if rates else 0.0

    def fps_second_half_median(self, now: int) -> float:
        """Median over clients, of the second half of the time up to now; 0 if there are none."""
        rates = [each.fps_second_half(now) for each in self._clients]
        return float(statistics.median(rates)) if rates else 0.0

    def fps_min(self, now: int) -> float:
        """Slowest client; 0 if there are none."""
        return min(self.fps(now), default=0.0)


def draw_sizes(mm: Mm, name: str, nr_pages: int, min_order: int, max_order: int) -> list[int]:
    """Object sizes in pages that add up to `nr_pages`: powers of two, each as likely; the last one is cut.

    Raises
    ------
    InputError
        Memory and swap together hold no such objects.
    """
    room = sum(zone.managed_pages for zone in mm.pgdat.node_zones) + mm.swap.total_swap_pages
    if nr_pages > room:
        raise InputError(
            f"{name}: objects of {nr_pages} pages are wanted, memory and swap have {room}; lower working_set_pages "
            "or resident_pages"
        )
    rng = mm.rng(name)
    sizes: list[int] = []
    left = nr_pages
    while left:
        for order in rng.below(max_order - min_order + 1, 64).tolist():
            size = min(left, 1 << (min_order + order))
            if size == 0:
                break
            sizes.append(size)
            left -= size
    return sizes


def webgl_aquarium_client(mm: Mm, params: AquariumParams) -> None:
    """Draw frames until the run ends: work, read the file, exec with every object, wait for the job."""
    device, clients = mm.attached.get(XeDevice), mm.attached.get(Clients)
    assert device is not None, "module_init attaches it"
    assert clients is not None, "module_init attaches it"
    sched = mm.sched
    client = clients.start(sched.now)
    vm = device.create_vm(client.name)
    orders = (params.bo_min_order, params.bo_max_order)
    for size in draw_sizes(mm, f"{client.name} resident", params.resident_pages // params.tabs, *orders):
        device.populate_from_reserve(device.create_bo(vm, size))
    for size in draw_sizes(mm, f"{client.name} evicted", params.working_set_pages, *orders):
        bo = device.create_bo(vm, size)
        if params.starts_backed_up:
            device.adopt_backed_up(bo)
    chances = mm.rng(f"{client.name} purgeable").below(100, len(vm.bos)).tolist()
    dispensable: list[XeBo] = [
        bo for bo, chance in zip(vm.bos, chances, strict=True) if chance < params.purgeable_percent
    ]
    file_pages = params.file_pages // params.tabs
    file = mm.page_cache.open(file_pages)
    if params.file_starts_cached:
        mm.page_cache.adopt(file, mm.claim_resident(file_pages, movable=True, what="file_pages"))
    per_frame = np.arange(min(params.file_pages_per_frame, file_pages), dtype=np.int64)
    position = 0
    period = NSEC_PER_SEC // params.refresh_hz
    next_frame = sched.now
    while True:
        sched.charge_user(params.frame_user_us * 1_000, "frame")
        if len(per_frame):
            file.read_pages((position + per_frame) % file_pages)
            position = (position + len(per_frame)) % file_pages
        fence = clients.exec(device, vm, params)
        if fence is not None:
            fence.wait()
            client.drawn.append(sched.now)
            if dispensable:
                with vm.resv:
                    for bo in dispensable:
                        device.set_purgeable(bo, True)
                dispensable = []
        next_frame += period
        if sched.now < next_frame:
            sched.nanosleep(next_frame - sched.now)
        else:
            next_frame = sched.now
