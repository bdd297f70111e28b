"""Streaming reads of a disk larger than memory, twice (job ``lru.sh`` of the captures)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import InputError
from mmfw_probe.guest import MSEC, TraceBuffer, register_system_shrinkers
from mmfw_probe.hog import Hog, open_disk, read_all
from mmfw_probe.shell import Shell

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.validate.experiment import CaptureSpec, Meter

TRACE_KB: Final = 16000


def rebuild(mm: Mm, spec: CaptureSpec, meter: Meter) -> None:
    """Run the job of a capture; parts ``pass1`` and ``pass2``.

    Raises
    ------
    InputError
        The variant is of no known kind, or the size of the disk is not given.
    """
    if spec.variant not in ("r1", "r2"):
        raise InputError(f"variant {spec.variant!r}: r1 and r2 are known")
    if not spec.data_mb:
        raise InputError("data_mb is missing: the size of the disk that is read")
    register_system_shrinkers(mm, kernfs=9)
    mm.start_time()

    def job() -> None:
        mm.sched.sleep(1000 * MSEC)
        shell = Shell(mm)
        disk = open_disk(mm, spec.data_mb)
        if spec.variant == "r2":
            mb = sum(zone.managed_pages for zone in mm.pgdat.node_zones) * 4 // 1024
            Hog(mm, shell).start_and_wait("anon", mb * 25 // 100, 0)
        shell.snap()
        TraceBuffer(mm).trace_on(TRACE_KB)
        for part in ("pass1", "pass2"):
            meter.begin(part)
            shell.run(lambda: read_all(mm, disk))
            meter.end()
            shell.snap()

    mm.sched.spawn(job, name="init", daemon=False)
    mm.sched.run()
