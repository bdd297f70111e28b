"""High-order requests against fragmented memory: real counters beside the simulator's, mask by mask."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from mmfw.errors import InputError
from mmfw.validate import bounds
from mmfw.validate.arrivals import request_starts
from mmfw.validate.captured import count_lines, vmstat_growth
from mmfw.validate.common import Comparison
from mmfw.validate.experiment import CaptureSpec, Figures, run_experiment

_COUNTERS: Final = re.compile(
    r"compact_(stall|success|fail|daemon_wake)|allocstall_\w+|pgscan_\w+|pgsteal_\w+|slabs_scanned|thp_\w+",
    re.ASCII,
)
#: Counters of the trace.
_EVENTS: Final = {
    "kswapd_wakes": r": mm_vmscan_kswapd_wake:",
    "kcompactd_wakes": r": mm_compaction_kcompactd_wake:",
    "success": r"probe: req \d+ .*pfn=\d+",
    "requested": r"probe: req \d+ ",
}


def masks_of(path: Path) -> list[str]:
    """Masks that a capture has a trace or snapshots of, sorted.

    Raises
    ------
    InputError
        It has none.
    """
    traces = {file.name.removesuffix(".trace.gz") for file in path.glob("*.trace.gz")}
    if not traces:
        raise InputError("has no MASK.trace.gz", file=str(path))
    return sorted(traces | {file.name.removesuffix(".before.txt") for file in path.glob("*.before.txt")})


def real_figures(path: Path, mask: str) -> dict[str, int]:
    """Real counters of one mask."""
    growth = vmstat_growth(path / f"{mask}.before.txt", path / f"{mask}.after.txt")
    return {**growth, **count_lines(path / f"{mask}.trace.gz", _EVENTS)}


def compare_mask(
    experiment: str, mask: str, real: dict[str, int], simulated: Figures
) -> Iterator[Comparison]:
    """Compare one mask: its successes, then its counters."""
    ours = simulated.counters
    requested = real["requested"]
    success = ours.get("success", 0)
    yield Comparison(
        experiment,
        {"mask": mask, "figure": bounds.SUCCESS},
        "success",
        real["success"],
        success,
        abs(success - real["success"]) <= bounds.SUCCESS_SHARE * requested,
    )
    names = sorted({name for name in {**real, **ours} if _COUNTERS.fullmatch(name)})
    for name in (*names, "kswapd_wakes", "kcompactd_wakes"):
        was, is_now = real.get(name, 0), ours.get(name, 0)
        if was == is_now == 0:
            continue
        figure = bounds.counter_figure(was)
        yield Comparison(
            experiment,
            {"mask": mask, "figure": figure},
            name,
            was,
            is_now,
            bounds.counter_within(was, is_now),
            counted=figure != bounds.REPORTED,
        )


def _nr_requests(spec: CaptureSpec, starts: Mapping[str, Mapping[int, int]]) -> int:
    """Requests of each mask, by the traces; ``capture.json`` must say the same, a name does not say it."""
    found = {mask: max(known) + 1 for mask, known in starts.items()}
    told = (spec.path / "capture.json").is_file()
    wanted = spec.requests if told else next(iter(found.values()))
    for mask, n in found.items():
        if n != wanted:
            said = (
                f"requests is {wanted} in capture.json"
                if told
                else f"{next(iter(found))} has {wanted} requests"
            )
            raise InputError(f"{said}, but {mask}.trace.gz has {n}", file=str(spec.path))
    return wanted


def validate_compact(spec: CaptureSpec) -> Iterator[Comparison]:
    """Rebuild a capture, its requests made when the captured ones were, and compare every mask that it has."""
    masks = masks_of(spec.path)
    real = {mask: real_figures(spec.path, mask) for mask in masks}
    starts = {mask: request_starts(spec.path / f"{mask}.trace.gz") for mask in masks}
    parts = run_experiment(replace(spec, starts=starts, requests=_nr_requests(spec, starts)))
    for mask in masks:
        if mask not in parts:
            raise InputError(
                f"{mask}.trace.gz is of a mask that is not known; known are {', '.join(parts)}",
                file=str(spec.path),
            )
        yield from compare_mask(spec.name, mask, real[mask], parts[mask])
