"""The feedback loop between a driver's shrinker and its restores (job ``gpu.sh`` of the captures)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mmfw import InputError, gfp
from mmfw_probe.fill import Fill
from mmfw_probe.guest import (
    MSEC,
    KnownPause,
    Pause,
    TraceBuffer,
    register_system_shrinkers,
    wait_for,
)
from mmfw_probe.hog import Hog, open_disk, read_all
from mmfw_probe.objects import HIGH_GFP, ObjectLoop
from mmfw_probe.rng import Xorshift
from mmfw_probe.shell import Shell

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.filemap import AddressSpace
    from mmfw.validate.experiment import CaptureSpec, Meter

NR_OBJECTS: Final = 60
PAGES_PER_OBJECT: Final = 512
STEPS: Final = 3000
DELAY_US: Final = 1000
#: Pages that a fill leaves free, and the size of the job's trace buffer.
LEAVE: Final = 4000
TRACE_KB: Final = 40000
_FRAG: Final = re.compile(r"frag(\d{1,4})(r?)", re.ASCII)
_NAMED: Final = ("cache", "cache2", "cache3", "ladder", "nokswapd", "nodirect", "order0", "clean")
DISK_MB: Final = 550


def rebuild(mm: Mm, spec: CaptureSpec, meter: Meter) -> None:
    """Run the job of a capture; one part, ``loop``.

    Raises
    ------
    InputError
        The variant is of no known kind.
    """
    if spec.variant not in _NAMED and _FRAG.fullmatch(spec.variant) is None:
        raise InputError(f"variant {spec.variant!r}: fragN, fragNr, {', '.join(_NAMED)} are known")
    if spec.variant == "cache3":
        register_system_shrinkers(mm, kfree_rcu=5, kernfs=9)
    else:
        register_system_shrinkers(mm)
    mm.start_time()
    job = _Job(mm, spec, meter)
    mm.sched.spawn(job.main, name="init", daemon=False)
    mm.sched.run()


class _Job:
    def __init__(self, mm: Mm, spec: CaptureSpec, meter: Meter) -> None:
        self._mm = mm
        self._spec = spec
        self._meter = meter
        self._fill = Fill(mm)
        self._shell = Shell(mm)
        self._disk: AddressSpace | None = open_disk(mm, spec.data_mb or DISK_MB) if self._reads else None
        self._stop = False

    @property
    def _reads(self) -> bool:
        return self._spec.variant.startswith("cache")

    def main(self) -> None:
        mm, spec = self._mm, self._spec
        mm.sched.sleep(1000 * MSEC)
        if self._disk is not None:
            self._read(self._shell, self._disk)
            self._disk.truncate()
        self._prepare()
        self._shell.sleep(1000 * MSEC)
        self._shell.snap()
        TraceBuffer(mm).trace_on(TRACE_KB)
        high = HIGH_GFP
        if spec.variant == "nokswapd":
            high &= ~gfp.KSWAPD_RECLAIM
        elif spec.variant == "nodirect":
            high &= ~gfp.DIRECT_RECLAIM
        ladder = {"ladder": "all", "order0": "0"}.get(spec.variant, "940")
        loop = ObjectLoop(mm, NR_OBJECTS, PAGES_PER_OBJECT, high, ladder)
        mm.register_shrinker(loop, "probe_gpu")
        rng = Xorshift(spec.seed)
        random = spec.variant.endswith("r") and spec.variant.startswith("frag")
        starts = spec.starts.get("loop", {})
        wait_for(mm, starts.get(0, 0))
        pause = KnownPause(Pause(mm, DELAY_US, 20), starts)
        pause.begin(mm.sched.now)
        self._meter.begin("loop")
        loop.run(
            STEPS,
            (lambda step: rng.below(NR_OBJECTS)) if random else (lambda step: step % NR_OBJECTS),
            pause,
        )
        self._note(loop)
        self._meter.end()
        self._stop = True

    def _prepare(self) -> None:
        mm, variant = self._mm, self._spec.variant
        match = _FRAG.fullmatch(variant)
        every = int(match[1]) if match else 64 if variant in ("cache2", "cache3") else 16
        if variant == "clean":
            return
        if variant == "cache":
            mb = sum(zone.managed_pages for zone in mm.pgdat.node_zones) * 4 // 1024
            Hog(mm, self._shell).start_and_wait("mixed", mb * 30 // 100, 2, self._disk)
            self._fill.fill(mb * 256 * 35 // 100)
            self._fill.punch_pfn(4)
            return
        self._fill.fill(LEAVE)
        self._fill.punch_pfn(every)
        if self._disk is not None:
            self._read(self._shell, self._disk)
            if variant == "cache3":
                mm.sched.spawn(self._reread, self._disk, name="hog", daemon=True)

    def _reread(self, disk: AddressSpace) -> None:
        shell = Shell(self._mm)
        while not self._stop:
            self._read(shell, disk)

    def _read(self, shell: Shell, disk: AddressSpace) -> None:
        self._mm.sched.join(shell.start(lambda: read_all(self._mm, disk), comm="hog", daemon=True))

    def _note(self, loop: ObjectLoop) -> None:
        counts, note = loop.counts, self._meter.note
        note("evictions", counts.evictions)
        note("restores", counts.restores)
        note("got9", counts.got9)
        note("fail9", counts.fail9)
        note("gotmid", counts.got_mid)
        note("got0", counts.got0)
        for priority, n in sorted(counts.scans_by_priority.items()):
            note(f"scans_priority{priority}", n)
        for nr_free in counts.nr_free_at_eviction:
            self._meter.sample("nr_free_at_eviction", nr_free)
