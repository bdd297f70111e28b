"""Streaming reads of page cache: what kswapd scanned and reclaimed, pass by pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmfw.validate import bounds
from mmfw.validate.captured import trace_lines, vmstat_growth
from mmfw.validate.common import Comparison
from mmfw.validate.experiment import CaptureSpec, run_experiment

COUNTERS: Final = ("pgscan_kswapd", "pgsteal_kswapd", "workingset_refault_file", "kswapd_wakes")
_MARK: Final = re.compile(r"probe: mark user ", re.ASCII)


def real_figures(path: Path) -> dict[str, dict[str, int]]:
    """Real counters of ``pass1`` and ``pass2``."""
    passes = {
        "pass1": vmstat_growth(path / "before.txt", path / "mid.txt"),
        "pass2": vmstat_growth(path / "mid.txt", path / "after.txt"),
    }
    for figures in passes.values():
        figures["kswapd_wakes"] = 0
    marks = 0
    for line in trace_lines(path / "lru.trace.gz"):
        if _MARK.search(line):
            marks += 1
        elif "mm_vmscan_kswapd_wake:" in line and marks in (1, 2):
            passes[f"pass{marks}"]["kswapd_wakes"] += 1
    return passes


def validate_lru(spec: CaptureSpec) -> Iterator[Comparison]:
    """Rebuild a capture and compare both passes."""
    real = real_figures(spec.path)
    parts = run_experiment(spec)
    for part, figures in real.items():
        ours = parts[part].counters
        for name in COUNTERS:
            was, is_now = figures.get(name, 0), ours.get(name, 0)
            yield Comparison(
                spec.name,
                {"figure": bounds.STREAM, "pass": part},
                name,
                was,
                is_now,
                abs(is_now - was) <= max(bounds.LRU_RATIO * was, bounds.LOOP_EVENTS),
            )
