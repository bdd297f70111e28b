"""What the page draws of one run, thinned to what a screen shows and packed.

A view is a JSON document, deflated and in base64: of hundreds of runs the page unpacks those that are looked at.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from mmfw.errors import InputError
from mmfw.report.numbers import show

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.report.panels import Panel
    from mmfw.results import RunDirectory

#: Points of a series; a figure is some 600 pixels wide.
MAX_POINTS: Final = 240
NR_ORDERS: Final = 11

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class View:
    """A packed run.

    Attributes
    ----------
    packed : str
        Base64 of the deflated document.
    step_ns : int
        Virtual time between two points; 0 without samples.
    """

    packed: str
    step_ns: int


def pack_view(run: RunDirectory, panels: Sequence[Panel], vmstat: Mapping[str, float]) -> View:
    """Pack one run.

    Parameters
    ----------
    run : RunDirectory
        What is drawn.
    panels : sequence of Panel
        Series that the figure has room for; those that the run does not have are left out.
    vmstat : mapping of str to float
        Counters to show beside it: the run's own, or medians over seeds.

    Raises
    ------
    InputError
        A table lacks a column.
    """
    said: list[str] = []
    document: dict[str, Any] = {"t": [], "orders": [], "series": {}, "heat": None, "free_max": 0}
    samples, blocks = run.samples(), run.blocks()
    step_ns = 0
    if samples is None or not samples.num_rows:
        said.append("no samples were recorded, so there are no time series.")
    else:
        series, step_ns = _series(_Columns(run, "samples.parquet", samples), panels)
        document |= series
    if blocks is None or not blocks.num_rows:
        said.append("no blocks were recorded, so there is no map of fragmentation.")
    else:
        document["heat"] = _heat(_Columns(run, "blocks.parquet", blocks))
    document["phases"] = _phases(run)
    document["latency"] = _latency(run)
    document["vmstat"] = {name: value for name, value in sorted(vmstat.items()) if value}
    document["said"] = said
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return View(base64.b64encode(zlib.compress(text.encode(), 9)).decode(), step_ns)


class _Columns:
    """Columns of a table as arrays; a missing one is the file's fault.

    Attributes
    ----------
    file : str
        The table's file, for messages.
    """

    def __init__(self, run: RunDirectory, name: str, table: Any) -> None:
        self.file = str(run.path / name)
        self._table = table

    def __contains__(self, column: str) -> bool:
        return column in self._table.column_names

    def __getitem__(self, column: str) -> NDArray[Any]:
        if column not in self:
            raise InputError(f"damaged: has no column {column!r}", file=self.file)
        values: NDArray[Any] = self._table.column(column).to_numpy()
        if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
            raise InputError(f"damaged: column {column!r} has values that are no numbers", file=self.file)
        return values


def _rounded(values: NDArray[Any]) -> list[int | float]:
    """Four significant digits, integers where they are; zeros stand short."""
    out: list[int | float] = []
    for value in values.tolist():
        near = float(f"{value:.4g}")
        out.append(int(near) if near == int(near) else near)
    return out


def _series(columns: _Columns, panels: Sequence[Panel]) -> tuple[dict[str, Any], int]:
    time_ns = columns["time_ns"]
    chosen = slice(None, None, max(1, -(-(len(time_ns) - 1) // MAX_POINTS)))
    at = time_ns[chosen]
    steps = np.diff(at)
    if (steps <= 0).any():
        raise InputError("damaged: time_ns does not rise", file=columns.file)
    free = [columns[f"free_order_{order}"][chosen] << order for order in range(NR_ORDERS)]
    series: dict[str, list[int | float]] = {}
    for panel in panels:
        if panel.key not in columns:
            continue
        values = columns[panel.key][chosen]
        if panel.per_second:
            # The rate from each point to the next; behind the last it goes on, and no average counts it.
            rates = np.diff(values) * 1e9 / steps * panel.per_second
            values = np.append(rates, rates[-1:] if len(rates) else 0.0)
        series[panel.key] = _rounded(values)
    found = {
        "t": [ns // 1_000_000 for ns in at.tolist()],
        "orders": [pages.tolist() for pages in free],
        "free_max": int(np.sum(free, axis=0).max()),
        "series": series,
    }
    return found, int(steps[0]) if len(steps) else 0


def _heat(columns: _Columns) -> dict[str, Any]:
    """Percent of pages free by pfn and time, rows between edges; None where there is no memory."""
    times, at = np.unique(columns["time_ns"], return_inverse=True)
    firsts, row = np.unique(columns["first_pfn"], return_inverse=True)
    width = int(np.diff(firsts).min()) if len(firsts) > 1 else int(columns["nr_pages"].max())
    starts = [int(first) for first in firsts]
    #: Row of the picture for each bin, and the pfns between rows: a hole in memory is a row of its own.
    place, edges = [], [starts[0]]
    for first in starts:
        if first > edges[-1]:
            edges.append(first)
        place.append(len(edges) - 1)
        edges.append(first + width)
    found: dict[str, Any] = {"t": (times // 1_000_000).tolist(), "pfn": edges}
    nr_pages = np.maximum(columns["nr_pages"], 1)
    for key, column in (("free", "nr_free"), ("big", "nr_free_order_9")):
        picture = np.full((len(edges) - 1, len(times)), -1, dtype=np.int64)
        percent = np.rint(100 * columns[column] / nr_pages).astype(np.int64)
        picture[np.array(place)[row], at] = np.clip(percent, 0, 100)
        found[key] = [[None if cell < 0 else cell for cell in line] for line in picture.tolist()]
    return found


class _Phase(BaseModel):
    """A phase, as far as it is drawn."""

    name: str
    start_ns: int
    end_ns: int


class _Request(BaseModel):
    """Requests of one order and class, as far as they are shown beside their histogram."""

    order: int
    cls: str = Field(alias="class")
    p50_ns: int
    p99_ns: int


def _rows_of(run: RunDirectory, key: str, model: type[M]) -> list[M]:
    """Rows of metrics.json that `RunDocument` passes on unread."""
    try:
        return TypeAdapter(list[model]).validate_python((run.document.model_extra or {}).get(key, []))  # type: ignore[valid-type]
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in (key, *first["loc"]))
        raise InputError(f"damaged: {where}: {first['msg']}", file=str(run.path / "metrics.json")) from None


def _phases(run: RunDirectory) -> list[dict[str, Any]]:
    """Names of phases, and when they began and ended, ms."""
    return [
        {"name": phase.name, "start": phase.start_ns // 1_000_000, "end": phase.end_ns // 1_000_000}
        for phase in _rows_of(run, "phases", _Phase)
    ]


def _latency(run: RunDirectory) -> list[dict[str, Any]]:
    """Rows by order and class; bins without requests at either end are left out."""
    known = {(row.order, row.cls): row for row in _rows_of(run, "requests", _Request)}
    rows = []
    for row in run.document.latency:
        filled = [i for i, nr in enumerate(row.nr) if nr]
        kept = slice(filled[0], filled[-1] + 1) if filled else slice(0, 0)
        counted = known.get((row.order, row.cls))
        rows.append(
            {
                "order": row.order,
                "cls": row.cls,
                "bin_ns": list(row.bin_ns[kept]),
                "nr": list(row.nr[kept]),
                "total": sum(row.nr),
                "nr_failed": sum(row.nr_failed),
                "p50": show(counted.p50_ns if counted else None, "ns"),
                "p99": show(counted.p99_ns if counted else None, "ns"),
            }
        )
    return rows
