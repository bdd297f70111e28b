"""The captures' loads as workloads: tasks that a scenario starts, and that end when the run does.

A workload is killed at the end of a run, which it notices in user mode only (`Scheduler.send_sigkill`): each sleeps
there once its work is done, and the object loop looks for the signal between two steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw_probe.fill import Fill
from mmfw_probe.guest import MSEC, Pause
from mmfw_probe.hog import Hog
from mmfw_probe.objects import HIGH_GFP, ObjectLoop
from mmfw_probe.shell import Shell

if TYPE_CHECKING:
    from mmfw import Mm

#: Pages of an object: one block of order 9, 2 MiB.
PAGES_PER_OBJECT: Final = 512
#: Slack of the pause after a step, us (``usleep_range(delay, delay + slack)``), as the capture module has it.
PAUSE_SLACK_US: Final = 20


@dataclass(slots=True)
class Loads:
    """What the loads of one machine know of each other; attached to the `Mm`.

    Attributes
    ----------
    nr_filling : int
        Fills that are not done yet.
    loops : list of ObjectLoop
        Object loops that have begun, whether or not they still run.
    """

    nr_filling: int = 0
    loops: list[ObjectLoop] = field(default_factory=list)


def loads_of(mm: Mm) -> Loads:
    """The machine's `Loads`, attached when first asked for."""
    loads = mm.attached.get(Loads)
    if loads is None:
        loads = Loads()
        mm.attached.put(loads)
    return loads


class FillParams(BaseModel):
    """Unmovable pages, fragmented."""

    leave_pages: int = Field(
        6000,
        ge=0,
        description="free pages to leave; a fill ends at the min watermarks, boost included, if they are higher",
    )
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
    start_ms: int = Field(
        0,
        ge=0,
        description="virtual ms until the first step, waited again while a fill is at work; 0: at once",
    )


def run_fill(mm: Mm, params: FillParams) -> None:
    """Fill memory, punch holes, and hold the rest until the run ends."""
    loads = loads_of(mm)
    fill = Fill(mm)
    loads.nr_filling += 1
    fill.fill(params.leave_pages)
    fill.punch_pfn(params.keep_pfn_multiple)
    loads.nr_filling -= 1
    try:
        _until_killed(mm)
    finally:
        fill.fill_free()


def run_hog(mm: Mm, params: HogParams) -> None:
    """Start a hog, wait until it has its memory, and kill it when the run ends."""
    shell = Shell(mm)
    hog = Hog(mm, shell)
    hog.start_and_wait("punch", params.megabytes, params.punch)
    try:
        _until_killed(mm)
    finally:
        hog.kill()
        shell.exit()


def run_objects(mm: Mm, params: LoopParams) -> None:
    """Touch objects in turn; after the last step they stay, with their shrinker, until the run ends."""
    loads = loads_of(mm)
    if params.start_ms:
        mm.sched.nanosleep(params.start_ms * MSEC)
        while loads.nr_filling:
            mm.sched.nanosleep(params.start_ms * MSEC)
    loop = ObjectLoop(mm, params.objects, PAGES_PER_OBJECT, HIGH_GFP, "940")
    loads.loops.append(loop)
    shrinker = mm.register_shrinker(loop, "probe_gpu")
    pause = Pause(mm, params.delay_us, PAUSE_SLACK_US)
    try:
        for step in range(params.steps):
            # The module's loop sleeps in the kernel, so a long one would keep the machine from its rest.
            if mm.sched.current.fatal_signal_pending:
                break
            loop.touch(step % params.objects)
            pause()
        _until_killed(mm)
    finally:
        mm.unregister_shrinker(shrinker)
        loop.release()


def _until_killed(mm: Mm) -> None:
    while True:
        mm.sched.nanosleep(1000 * MSEC)
