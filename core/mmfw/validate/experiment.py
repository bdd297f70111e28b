"""What a rebuilt experiment is: a load run on a fresh machine, and the figures that were read from it.

The loads come from plugins (entry-point group ``mmfw.experiments``, named by kind of capture), since they stand for
a capture's own kernel module and programs; the machine, the reading of the real figures and the judging are core's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import importlib_metadata

from mmfw.binding import bind_shrinker
from mmfw.costs import profile
from mmfw.errors import InputError
from mmfw.machine import machine_from_ram
from mmfw.machine.jsonread import Node
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.core import Mm, MmHost
from mmfw.mm.trace import (
    MmCompactionKcompactdWake,
    MmVmscanDirectReclaimBegin,
    MmVmscanKswapdWake,
    TraceEvent,
)
from mmfw.sched import Scheduler
from mmfw.types import MmOps

ENTRY_POINTS: Final = "mmfw.experiments"
#: Kernel that the captures are of; a rebuilt experiment runs its profile.
KERNEL: Final = "6.1"


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """What a capture's folder says of its load (``capture.json``, or its name).

    Attributes
    ----------
    path, kind, name
        Where it is, what it is, and its name.
    mem : str
        RAM, such as ``512M``.
    nr_cpus, seed, order, requests, data_mb : int
        CPUs; seed of the load; order and number of its requests; size of its data disk in MiB. 0 where they do
        not apply.
    variant : str
        Which of its kind: ``m2``, ``frag16``, ``r1`` ...
    starts : mapping of str to mapping of int to int
        By part, then by number of a request, when it began in the capture; ns since the captured machine's boot
        (`mmfw.validate.arrivals`). Empty where that is not known.
    """

    path: Path
    kind: str
    name: str
    mem: str
    nr_cpus: int
    variant: str
    seed: int
    order: int
    requests: int
    data_mb: int
    starts: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Figures:
    """What was counted in one part of an experiment (a mask, a pass).

    Attributes
    ----------
    counters : dict of str to int
        vmstat counters' growth, and what the load counted itself.
    samples : dict of str to list of int
        Values whose median is compared.
    """

    counters: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[int]] = field(default_factory=dict)


_COUNTED: Final[dict[type[TraceEvent], str]] = {
    MmCompactionKcompactdWake: "kcompactd_wakes",
    MmVmscanDirectReclaimBegin: "direct_reclaim_begins",
}


class Meter:
    """Reads the figures of an experiment's parts from a machine.

    Parameters
    ----------
    mm : Mm
        The machine.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._parts: dict[str, Figures] = {}
        self._events: dict[str, int] = {}
        self._before: tuple[dict[str, int], dict[str, int]] | None = None
        self._now: Figures | None = None
        mm.trace.subscribe(MmVmscanKswapdWake, self._count_kswapd_wake)
        for kind in _COUNTED:
            mm.trace.subscribe(kind, self._count)

    @property
    def parts(self) -> dict[str, Figures]:
        """Figures by part, in order."""
        return self._parts

    def _count(self, event: TraceEvent) -> None:
        key = _COUNTED[type(event)]
        self._events[key] = self._events.get(key, 0) + 1

    def _count_kswapd_wake(self, event: MmVmscanKswapdWake) -> None:
        for key in ("kswapd_wakes", f"kswapd_wakes_order{event.order}"):
            self._events[key] = self._events.get(key, 0) + 1

    def begin(self, part: str) -> None:
        """Start a part."""
        self._now = self._parts[part] = Figures()
        self._before = (self._mm.vmstat.as_dict(), dict(self._events))

    def note(self, counter: str, n: int = 1) -> None:
        """Count something of the load's own."""
        if self._now is not None:
            self._now.counters[counter] = self._now.counters.get(counter, 0) + n

    def sample(self, name: str, value: int) -> None:
        """Note a value whose median is compared."""
        if self._now is not None:
            self._now.samples.setdefault(name, []).append(value)

    def end(self) -> None:
        """End the part, adding what the kernel's counters grew by."""
        assert self._before is not None
        assert self._now is not None
        vmstat, events = self._before
        for now, before in ((self._mm.vmstat.as_dict(), vmstat), (self._events, events)):
            for name, value in now.items():
                self._now.counters[name] = value - before.get(name, 0)
        self._now = None


#: What an entry point of the group is: runs the load of a capture on a machine whose clock has not started.
Rebuild = Callable[[Mm, CaptureSpec, Meter], None]


def read_spec(path: Path, kind: str, name: str, document: object, file: str) -> CaptureSpec:
    """Parameters of a capture.

    Raises
    ------
    InputError
        A key is missing or of the wrong kind.
    """
    node = Node(document, "", file)

    def number(key: str, default: int, most: int) -> int:
        return node.key(key).integer(high=most) if node.has(key) else default

    if node.has("kernel"):
        release = node.key("kernel").text()
        if release != KERNEL and not release.startswith(f"{KERNEL}."):
            raise InputError(
                f"kernel {release!r}: captures of {KERNEL} can be rebuilt, and no others", file=file
            )
    return CaptureSpec(
        path=path,
        kind=kind,
        name=name,
        mem=node.key("mem").text(),
        nr_cpus=number("smp", 1, 8192),
        variant=node.key("variant").text(),
        seed=number("seed", 0, (1 << 63) - 1),
        order=number("order", 0, 10),
        requests=number("requests", 0, 1_000_000),
        data_mb=number("data_mb", 0, 1_000_000),
    )


def build_mm(spec: CaptureSpec) -> Mm:
    """A machine like the capture's, freshly booted, mainline's decisions, clock at 0."""
    host = MmHost(
        ops=MmOps(plan_wakeup=mmfw_plan_wakeup, should_shrink_slab=mmfw_should_shrink_slab),
        bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, "probe"),
        hook=_no_hook,
    )
    machine = machine_from_ram(spec.mem, spec.nr_cpus)
    sched = Scheduler(nr_cpus=spec.nr_cpus, costs=profile("tcg"))
    return Mm(
        machine.node_state(0), sched, host, seed=spec.seed, kernel=KERNEL, nr_swap_pages=0, vmpressure=True
    )


def _no_hook(name: str) -> Callable[..., object]:
    raise InputError(f"an experiment asks for hook {name!r}, but no plugin is loaded with it")


def find_rebuild(kind: str) -> Rebuild:
    """The plugin's function that rebuilds a kind of capture.

    Raises
    ------
    InputError
        No installed plugin offers it.
    """
    for entry in importlib_metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == kind:
            found: Rebuild = entry.load()
            return found
    raise InputError(
        f"no installed plugin rebuilds captures of kind {kind!r} (entry-point group {ENTRY_POINTS}); "
        "pip install mmfw-probe"
    )


def run_experiment(spec: CaptureSpec) -> dict[str, Figures]:
    """Rebuild a capture's experiment and run it; figures by part."""
    rebuild = find_rebuild(spec.kind)
    try:
        mm = build_mm(spec)
        meter = Meter(mm)
        with mm.sched:
            rebuild(mm, spec, meter)
    except InputError as fault:
        raise fault if fault.file else InputError(str(fault), file=str(spec.path)) from None
    return meter.parts
