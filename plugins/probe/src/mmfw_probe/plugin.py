"""What mmfw loads: the captures' loads as workloads for scenarios."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import PluginInfo, Workload, hookimpl
from mmfw_probe.fill import Fill
from mmfw_probe.guest import Pause
from mmfw_probe.hog import Hog
from mmfw_probe.objects import HIGH_GFP, ObjectLoop

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="probe", hook_api=(1, 0), kind="workload")


class FillParams(BaseModel):
    """Unmovable pages, fragmented."""

    leave_pages: int = Field(6000, ge=0, description="free pages to leave")
    keep_pfn_multiple: int = Field(16, ge=1, description="pages kept: those whose pfn is a multiple of this")


class HogParams(BaseModel):
    """Anonymous memory, punched."""

    megabytes: int = Field(64, ge=1, description="MiB touched")
    punch: int = Field(2, ge=0, description="every n-th page is given back; 0 keeps all")


class LoopParams(BaseModel):
    """The object loop."""

    objects: int = Field(60, ge=1, description="objects of 2 MiB")
    steps: int = Field(3000, ge=1, description="objects touched, one after another")
    delay_us: int = Field(1000, ge=1, description="pause after each, microseconds")


def _fill(mm: Mm, params: FillParams) -> None:
    fill = Fill(mm)
    fill.fill(params.leave_pages)
    fill.punch_pfn(params.keep_pfn_multiple)
    try:
        while True:
            mm.sched.nanosleep(10**9)
    finally:
        fill.fill_free()


def _hog(mm: Mm, params: HogParams) -> None:
    hog = Hog(mm)
    hog.start_and_wait("punch", params.megabytes, params.punch)
    try:
        while True:
            mm.sched.nanosleep(10**9)
    finally:
        hog.kill()


def _loop(mm: Mm, params: LoopParams) -> None:
    loop = ObjectLoop(mm, params.objects, 512, HIGH_GFP, "940")
    shrinker = mm.register_shrinker(loop, "probe_gpu")
    try:
        loop.run(params.steps, lambda step: step % params.objects, Pause(mm, params.delay_us, 20))
    finally:
        mm.unregister_shrinker(shrinker)
        loop.release()


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """The loads."""
    yield Workload("probe-fill", "Fill memory with unmovable pages and punch holes", _fill, FillParams)
    yield Workload("probe-hog", "Touch anonymous memory and punch holes", _hog, HogParams)
    yield Workload("probe-objects", "Touch 2 MiB objects that a shrinker evicts", _loop, LoopParams)
