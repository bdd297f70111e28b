"""High-order requests against fragmented memory, six masks in one boot (job ``compact.sh`` of the captures)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mmfw import InputError
from mmfw_probe.fill import Fill
from mmfw_probe.guest import (
    MSEC,
    KnownPause,
    Pause,
    TraceBuffer,
    register_system_shrinkers,
    wait_for,
)
from mmfw_probe.hog import Hog, open_disk
from mmfw_probe.masks import JOB_ORDER, MASKS
from mmfw_probe.shell import Shell

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.filemap import AddressSpace
    from mmfw.validate.experiment import CaptureSpec, Meter

_VARIANT: Final = re.compile(r"([upmkx])(\d{1,4})", re.ASCII)
#: Pages that a fill leaves free.
LEAVE: Final = 6000
#: Objects of the shrinkers kfree_rcu and kernfs before the first mask, and of kernfs before each later one, by kind.
SHRINKER_OBJECTS: Final = {"u": (1, 8, 7), "p": (1, 8, 7), "m": (0, 10, 8), "k": (0, 10, 8), "x": (0, 10, 8)}
#: Size of the job's trace buffer.
TRACE_KB: Final = 10000
#: Latency of a pause, ns: requests that succeed at once follow one another in 280 us (median of all captures), of which
#: 210 are sleep and 40 the module's work.
REQUEST_LATENCY_NS: Final = 27_000
#: 512M-k4-o4 takes 350 us a request on the average of its masks.
REQUEST_STALLS_ONE_IN: Final = 80


def parse_variant(variant: str) -> tuple[str, int]:
    """Kind of fragmentation and its number.

    Raises
    ------
    InputError
        The variant is of no known kind.
    """
    match = _VARIANT.fullmatch(variant)
    if match is None or int(match[2]) == 0:
        raise InputError(
            f"variant {variant!r}: uN (every N-th page freed), pN (kept at pfn % N), mN, kN (anonymous, every N-th "
            "punched or kept) and xN (with page cache) are known"
        )
    return match[1], int(match[2])


def rebuild(mm: Mm, spec: CaptureSpec, meter: Meter) -> None:
    """Run the job of a capture; one part for each mask."""
    kind, n = parse_variant(spec.variant)
    if spec.requests < 1:
        raise InputError(f"requests is {spec.requests}: how many requests each mask makes; 1 or more")
    mm.start_time()
    job = _Job(mm, spec, meter, kind, n)
    mm.sched.spawn(job.main, name="init", daemon=False)
    mm.sched.run()


class _Job:
    def __init__(self, mm: Mm, spec: CaptureSpec, meter: Meter, kind: str, n: int) -> None:
        self._mm = mm
        self._spec = spec
        self._meter = meter
        self._kind = kind
        self._n = n
        kfree_rcu, kernfs, self._kernfs_later = SHRINKER_OBJECTS[kind]
        self._shrinkers = register_system_shrinkers(mm, kfree_rcu=kfree_rcu, kernfs=kernfs)
        self._fill = Fill(mm)
        self._trace_buffer = TraceBuffer(mm)
        self._shell = Shell(mm)
        self._disk: AddressSpace | None = open_disk(mm, spec.data_mb) if spec.data_mb else None
        managed = sum(zone.managed_pages for zone in mm.pgdat.node_zones)
        self._mb = managed * 4 // 1024

    def main(self) -> None:
        mm, shell = self._mm, self._shell
        mm.sched.sleep(1000 * MSEC)
        for mask in JOB_ORDER:
            hog = self._fragment()
            shell.sleep(1000 * MSEC)
            shell.snap()
            self._trace_buffer.trace_on(TRACE_KB)
            wait_for(self._mm, self._spec.starts.get(mask, {}).get(0, 0))
            self._meter.begin(mask)
            self._request(mask)
            self._meter.end()
            shell.gzip(*self._trace_buffer.trace_off(self._spec.requests))
            shell.snap()
            shell.sleep(1000 * MSEC)
            shell.snap()
            self._fill.fill_free()
            if hog is not None:
                hog.kill()
            mm.drop_caches()
            self._shrinkers.kernfs.nr = self._kernfs_later
            shell.sleep(500 * MSEC)
        shell.exit()

    def _fragment(self) -> Hog | None:
        if self._kind in "up":
            self._fill.fill(LEAVE)
            if self._kind == "u":
                self._fill.punch(self._n)
            else:
                self._fill.punch_pfn(self._n)
            return None
        hog = Hog(self._mm, self._shell)
        if self._kind == "x":
            if self._disk is None:
                raise InputError(f"variant x{self._n} reads a disk, but data_mb is not given")
            hog.start_and_wait("mixed", self._mb * 45 // 100, self._n, self._disk)
        else:
            hog.start_and_wait("keep" if self._kind == "k" else "punch", self._mb * 70 // 100, self._n)
        return hog

    def _request(self, mask: str) -> None:
        mm, order = self._mm, self._spec.order
        held = []
        starts = self._spec.starts.get(mask, {})
        pause = KnownPause(Pause(mm, 200, 10, REQUEST_LATENCY_NS, REQUEST_STALLS_ONE_IN), starts)
        # Times count from the first request that is known, and so do successes: from this part's begin, unless the trace
        # has lost it.
        first = min(starts, default=0)
        success = 0
        for number in range(self._spec.requests):
            if number == first:
                pause.begin(mm.sched.now)
            pfn = mm.alloc_pages(MASKS[mask], order)
            if pfn >= 0:
                held.append(pfn)
                success += number >= first
            pause(number + 1)
        self._meter.note("success", success)
        self._meter.note("requested", self._spec.requests - first)
        for pfn in held:
            mm.free_pages(pfn, order)
