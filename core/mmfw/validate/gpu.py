"""The object loop: evictions, wake-ups and allocations, real beside simulated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_high
from typing import Final

from mmfw.errors import InputError
from mmfw.validate import bounds
from mmfw.validate.arrivals import restore_starts
from mmfw.validate.captured import trace_lines
from mmfw.validate.common import Comparison
from mmfw.validate.experiment import CaptureSpec, Figures, read_spec, run_experiment
from mmfw.validate.recognise import find_captures

#: Compared counters, in the order printed.
COUNTERS: Final = ("evictions", "kswapd_wakes_order9", "direct_reclaim_begins", "got9", "fail9")
#: Variants whose loop dies out or never starts, told by name; the first are judged by the band of repeated boots.
_BANDED: Final = ("cache2", "cache3")
_QUIET: Final = ("clean", "order0", "cache")
#: The capture whose scans by priority are compared: the one that the costs were fitted on.
_PRIORITIES_OF: Final = "frag16"

_EVICT: Final = re.compile(r"gpu_evict .*nr_free=(\d+) ", re.ASCII)
_END: Final = re.compile(r"gpu_snap end ", re.ASCII)
_FIELD: Final = re.compile(r"(\w+)=(-?\d+)", re.ASCII)
_PRIORITY: Final = re.compile(r"mm_shrink_slab_start: gpu_scan.* priority (\d+)", re.ASCII)
_SCAN: Final = re.compile(r"gpu_scan nr_to_scan=.* comm=kswapd", re.ASCII)


@dataclass(slots=True)
class LoopFigures:
    """Real figures of one loop."""

    counters: dict[str, int] = field(default_factory=dict)
    nr_free_at_eviction: list[int] = field(default_factory=list)
    scans_by_priority: dict[int, int] = field(default_factory=dict)


def real_figures(path: Path) -> LoopFigures:
    """Read ``gpu.trace.gz``.

    Raises
    ------
    InputError
        It has no end.
    """
    found = LoopFigures()
    wakes = direct = 0
    priority = 0
    end: dict[str, int] | None = None
    for line in trace_lines(path / "gpu.trace.gz"):
        if "mm_vmscan_kswapd_wake: nid=0 order=9" in line:
            wakes += 1
        elif "mm_vmscan_direct_reclaim_begin" in line:
            direct += 1
        elif (evict := _EVICT.search(line)) is not None:
            found.nr_free_at_eviction.append(int(evict[1]))
        elif (start := _PRIORITY.search(line)) is not None:
            priority = int(start[1])
        elif _SCAN.search(line):
            found.scans_by_priority[priority] = found.scans_by_priority.get(priority, 0) + 1
        elif _END.search(line):
            end = {name: int(value) for name, value in _FIELD.findall(line)}
    file = str(path / "gpu.trace.gz")
    if end is None:
        raise InputError("has no 'gpu_snap end' line: the loop did not end", file=file)
    if missing := {"evict", "got9", "fail9"} - end.keys():
        raise InputError(f"its 'gpu_snap end' line has no {', '.join(sorted(missing))}=", file=file)
    found.counters = {
        "evictions": end["evict"],
        "kswapd_wakes_order9": wakes,
        "direct_reclaim_begins": direct,
        "got9": end["got9"],
        "fail9": end["fail9"],
    }
    return found


def boots_of(spec: CaptureSpec, real: LoopFigures) -> list[LoopFigures]:
    """Figures of a capture, and of the other boots of the same load that lie beside it, each once.

    What lies there and cannot be read as such a capture is passed over: it is not what was asked for, and who asks for it
    is told.
    """
    boots = {(spec.name, spec.seed): real}
    try:
        folders = sorted(spec.path.resolve().parent.iterdir())
    except OSError:
        return [real]
    for folder in folders:
        try:
            if not (folder / "gpu.trace.gz").is_file() or folder.samefile(spec.path):
                continue
            capture = find_captures(folder)[0]
            other = read_spec(folder, capture.kind, capture.name, capture.document, str(folder))
            if _load(other) == _load(spec) and (other.name, other.seed) not in boots:
                boots[other.name, other.seed] = real_figures(folder)
        except (InputError, OSError):
            continue
    return list(boots.values())


def _load(spec: CaptureSpec) -> tuple[str, str, str, int, int]:
    return spec.kind, spec.variant, spec.mem, spec.nr_cpus, spec.data_mb


def _compare(
    spec: CaptureSpec, real: LoopFigures, ours: Figures, others: Iterable[LoopFigures]
) -> Iterator[Comparison]:
    banded = spec.variant in _BANDED
    boots = list(others)
    samples = ours.samples.get("nr_free_at_eviction", [])
    for name in COUNTERS:
        was, is_now = real.counters[name], ours.counters.get(name, 0)
        if banded:
            low, high = bounds.band(one.counters[name] for one in boots)
            within = low <= is_now <= high
        elif spec.variant in _QUIET and name == "evictions":
            within = is_now == was == 0
        else:
            within = bounds.loop_within(was, is_now)
        yield Comparison(spec.name, {"figure": bounds.LOOP}, name, was, is_now, within)
    if real.nr_free_at_eviction:
        was = median_high(sorted(real.nr_free_at_eviction))
        is_now = median_high(sorted(samples)) if samples else 0
        if banded:
            low, high = bounds.band(
                median_high(sorted(one.nr_free_at_eviction)) for one in boots if one.nr_free_at_eviction
            )
            within = low <= is_now <= high
        else:
            within = bounds.loop_within(was, is_now)
        yield Comparison(
            spec.name, {"figure": bounds.LOOP}, "median_nr_free_at_eviction", was, is_now, within
        )
    first = spec.variant == _PRIORITIES_OF and spec.mem == "1G"
    for priority in sorted(real.scans_by_priority, reverse=True):
        was = real.scans_by_priority[priority]
        is_now = ours.counters.get(f"scans_priority{priority}", 0)
        yield Comparison(
            spec.name,
            {"figure": bounds.LOOP if first else bounds.REPORTED, "priority": str(priority)},
            "scans",
            was,
            is_now,
            abs(is_now - was) <= bounds.LOOP_RATIO * was,
            counted=first,
        )


def validate_gpu(spec: CaptureSpec) -> Iterator[Comparison]:
    """Rebuild a capture, its objects touched when the captured ones were where that is known, and compare its loop."""
    real = real_figures(spec.path)
    others = boots_of(spec, real) if spec.variant in _BANDED else [real]
    starts = restore_starts(spec.path / "gpu.trace.gz")
    parts = run_experiment(replace(spec, starts={"loop": starts}))
    yield from _compare(spec, real, parts["loop"], others)
