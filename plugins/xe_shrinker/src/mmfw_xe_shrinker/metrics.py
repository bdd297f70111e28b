"""Figures of the device and its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median_low
from typing import TYPE_CHECKING, Final

from mmfw import Metric
from mmfw_xe_shrinker.clients import Clients
from mmfw_xe_shrinker.device import XeDevice
from mmfw_xe_shrinker.stats import Evictor

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.offers import Better

#: Counters of `XeStats`: name, unit, direction of an improvement, what is counted, and how it is read.
_COUNTERS: Final[tuple[tuple[str, str, Better, str, Callable[[XeDevice], int]], ...]] = (
    (
        "xe_execs",
        "1",
        "higher",
        "Execs submitted by all clients",
        lambda device: device.stats.execs,
    ),
    (
        "xe_exec_failures",
        "1",
        "lower",
        "Execs that failed with -ENOMEM",
        lambda device: device.stats.exec_failures,
    ),
    (
        "xe_bo_evictions",
        "1",
        "lower",
        "Objects that the shrinker backed up",
        lambda device: device.stats.bo_evictions,
    ),
    (
        "xe_bo_evicted_pages",
        "pages",
        "lower",
        "Pages that the shrinker backed up",
        lambda device: device.stats.evicted_pages,
    ),
    (
        "xe_bo_evictions_kswapd",
        "1",
        "lower",
        "Objects backed up by kswapd",
        lambda device: device.stats.bo_evictions_by[Evictor.KSWAPD],
    ),
    (
        "xe_bo_evictions_direct",
        "1",
        "lower",
        "Objects backed up by direct reclaim",
        lambda device: device.stats.bo_evictions_by[Evictor.DIRECT],
    ),
    (
        "xe_bo_evictions_compaction",
        "1",
        "lower",
        "Objects backed up because compaction asked",
        lambda device: device.stats.bo_evictions_by[Evictor.COMPACTION],
    ),
    (
        "xe_bo_restores",
        "1",
        "lower",
        "Objects that an exec brought back from their backup",
        lambda device: device.stats.bo_restores,
    ),
    (
        "xe_bo_restored_pages",
        "pages",
        "lower",
        "Pages of the objects brought back",
        lambda device: device.stats.restored_pages,
    ),
    (
        "xe_bo_purges",
        "1",
        "neither",
        "DONTNEED objects whose content was dropped",
        lambda device: device.stats.bo_purges,
    ),
    (
        "xe_purged_pages",
        "pages",
        "neither",
        "Pages of the objects purged",
        lambda device: device.stats.purged_pages,
    ),
    (
        "xe_bo_recreations",
        "1",
        "lower",
        "Objects that a client made anew, for their content had been purged",
        lambda device: device.stats.bo_recreations,
    ),
    (
        "xe_pm_resumes",
        "1",
        "neither",
        "Times the device was woken",
        lambda device: device.pm.nr_resumes,
    ),
)

_GAUGES: Final[tuple[tuple[str, str, Better, str, Callable[[XeDevice], int]], ...]] = (
    (
        "xe_resident_pages",
        "pages",
        "higher",
        "Pages that objects hold",
        lambda device: device.resident_pages,
    ),
    (
        "xe_huge_pages",
        "pages",
        "higher",
        "Pages of populated objects that lie in blocks of 2 MiB or more",
        lambda device: device.huge_pages,
    ),
    (
        "xe_free_pages_at_eviction_median",
        "pages",
        "neither",
        "Free pages of the machine as an eviction begins, median; 0 without an eviction",
        lambda device: median_low(device.stats.free_pages_at_eviction or [0]),
    ),
    (
        "xe_restore_age_median",
        "ns",
        "higher",
        "How long an object had been away when it was needed again, median; 0 if none was",
        lambda device: median_low(device.stats.restore_ages or [0]),
    ),
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


def all_metrics() -> Iterable[Metric]:
    """Every figure, counters first."""
    for name, unit, better, description, read in _COUNTERS:
        yield Metric(
            name,
            unit,
            "counter",
            better,
            description,
            read=_of_device(read),
            each_matters=name == "xe_exec_failures",
        )
    for name, unit, better, description, read in _GAUGES:
        yield Metric(name, unit, "gauge", better, description, read=_of_device(read))
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
        "xe_fps_second_half_median",
        "frames/s",
        "ratio",
        "higher",
        "Frames a second in the second half of the run, median client",
        read=_of_clients(Clients.fps_second_half_median),
    )
    yield Metric(
        "xe_fps_min",
        "frames/s",
        "ratio",
        "higher",
        "Frames a second since its start, slowest client",
        read=_of_clients(Clients.fps_min),
    )
