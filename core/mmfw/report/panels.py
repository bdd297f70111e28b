"""Which series a scenario's figures show: its progress, its own metrics, the threads at work, and counters that tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from mmfw.offers import FigureKind
    from mmfw.results import RunDirectory

#: Counters of /proc/vmstat that show what reclaim and compaction do, and the unit of their rates.
_COUNTERS: Final = (
    ("pgsteal_kswapd", "pages/s"),
    ("pgsteal_direct", "pages/s"),
    ("slabs_scanned", "objects/s"),
    ("pswpout", "pages/s"),
    ("pswpin", "pages/s"),
    ("workingset_refault_file", "pages/s"),
    ("workingset_refault_anon", "pages/s"),
    ("compact_stall", "1/s"),
    ("compact_fail", "1/s"),
    ("compact_daemon_wake", "1/s"),
    ("pgmigrate_success", "pages/s"),
    ("thp_split_page", "1/s"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One series over time.

    Attributes
    ----------
    key : str
        Column of samples.parquet.
    title, unit : str
        As the figure says them.
    per_second : float
        What a rate is multiplied by; 0 for a value that is shown as it stands.
    """

    key: str
    title: str
    unit: str
    per_second: float

    def as_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {"key": self.key, "title": self.title, "unit": self.unit, "rate": self.per_second != 0}


_BUSY: Final = (
    Panel("kswapd_busy_ns", "kswapd at work", "%", 1e-7),
    Panel("kcompactd_busy_ns", "kcompactd at work", "%", 1e-7),
    Panel("direct_stall_ns", "tasks in the slow path, all together", "ms/s", 1e-6),
    Panel("unusable_index_order_9", "free memory that order 9 cannot use", "‰", 0),
)


_ADDS_UP: Final = ("count", "failure", "time")


def _unit_of(name: str, runs: Sequence[RunDirectory]) -> str:
    units = (run.document.figures[name].unit for run in runs if name in run.document.figures)
    return next(units, "1")


def _kind_of(name: str, runs: Sequence[RunDirectory]) -> FigureKind | None:
    kinds = (run.document.figures[name].kind for run in runs if name in run.document.figures)
    return next(kinds, None)


def choose_panels(progress: str | None, metrics: Sequence[str], runs: Sequence[RunDirectory]) -> list[Panel]:
    """Panels of a scenario, the same for all its runs.

    Parameters
    ----------
    progress : str or None
        Metric that is the load's progress; a counter.
    metrics : sequence of str
        Metrics that the scenario wants shown first.
    runs : sequence of RunDirectory
        Runs that will be drawn. What adds up is drawn as a rate; of a metric whose sort the run does not say that is what
        never falls and has no rate's unit.
    """
    tables = [table for run in runs if (table := run.samples()) is not None]
    present = {name for table in tables for name in table.column_names}
    panels = []
    for name in [*([progress] if progress else []), *(name for name in metrics if name != progress)]:
        column = f"metric.{name}"
        if column not in present:
            continue
        unit, kind = _unit_of(name, runs), _kind_of(name, runs)
        adds_up = (
            "/" not in unit and all(_never_falls(table, column) for table in tables)
            if kind is None
            else kind in _ADDS_UP
        )
        if name == progress or adds_up:
            panels.append(Panel(column, name, "1/s" if unit == "1" else f"{unit}/s", 1))
        else:
            panels.append(Panel(column, name, "1" if unit == "1" else unit, 0))
    panels += [panel for panel in _BUSY if panel.key in present]
    panels += [
        Panel(f"vmstat.{name}", name, unit, 1) for name, unit in _COUNTERS if f"vmstat.{name}" in present
    ]
    return panels


def _never_falls(table: Any, column: str) -> bool:
    if column not in table.column_names:
        return True
    values = table.column(column).to_numpy()
    if not np.issubdtype(values.dtype, np.number):
        return True  # packing it says what is wrong
    return bool((np.diff(values) >= 0).all())
