"""What came of a run, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.mm.requests import RequestClass
from mmfw.result import NOT_MODELLED, PhaseResult, RunResult

if TYPE_CHECKING:
    from collections.abc import Sequence

Number = int | float | None

_CLASSES: Final = {
    RequestClass.C0: "single page",
    RequestClass.CO: "may fail",
    RequestClass.CM: "must",
    RequestClass.CN: "no reclaim",
}
_PLAIN_UNITS: Final = ("1", "ratio")


def summary(result: RunResult) -> str:
    """All that is worth reading of a run; what scripts read is `RunResult.as_json`."""
    policy = " + ".join(result.policies) or "mainline"
    lines = [
        f"scenario {result.scenario}, policy {policy}, kernel {result.kernel}, plugins {', '.join(result.plugins)}, "
        f"machine {result.machine}, {result.nr_cpus} CPUs, "
        f"seed {result.seed}: {result.virtual_ns / 1e9:.2f} virtual s in {result.wall_seconds:.1f} s",
        "",
    ]
    values: dict[str, Number] = {**result.vmstat, **result.metrics}
    first = [name for name in result.first_metrics if name in values]
    rest = [name for name in result.metrics if name not in first]
    width = max(len(name) for name in (*first, *rest))
    lines += _figures(result, values, first, width)
    lines += ["", *_figures(result, values, rest, width)]
    if result.phases:
        lines += ["", *_phases(result, first)]
    if result.requests:
        lines += ["", *_requests(result)]
    if result.losses:
        lines += ["", *_losses(result)]
    wakes = ", ".join(f"order {order}: {n}" for order, n in result.kswapd_wakes_by_order.items())
    lines += ["", f"kswapd passes by order: {wakes or 'none'}"]
    lines += ["", *_shrinkers(result)]
    lines += ["", "buddyinfo, free blocks by order 0..10"]
    for label, table in (("before", result.buddyinfo_before), ("after", result.buddyinfo)):
        lines += [f"  {label:<6} {zone:>8} " + "".join(f"{n:>7}" for n in row) for zone, row in table.items()]
    lines += ["", "not modelled in this version: " + "; ".join(NOT_MODELLED)]
    if not result.leak_checked:
        lines.append("the machine did not come to rest after the run, so leaks were not looked for")
    lines += [result.validated, f"digest {result.digest}"]
    return "\n".join(lines)


def number(value: Number) -> str:
    """A figure as the tables show it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value}"


def _with_unit(value: Number, unit: str) -> tuple[str, str]:
    """A value as one reads it: long times in ms or s, which scripts get in ns."""
    if unit != "ns" or value is None or value < 1_000_000:
        return number(value), "" if unit in _PLAIN_UNITS else unit
    return (f"{value / 1e6:.1f}", "ms") if value < 10_000_000_000 else (f"{value / 1e9:.1f}", "s")


def _figures(result: RunResult, values: dict[str, Number], names: Sequence[str], width: int) -> list[str]:
    lines = []
    for name in names:
        shown, unit = _with_unit(values[name], _unit_of(result, name))
        lines.append(f"  {name:<{width}}  {shown:>12}  {unit}".rstrip())
    return lines


def _unit_of(result: RunResult, name: str) -> str:
    return result.figures[name].unit if name in result.figures else ""


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table under a title: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [title]
    for row in (head, *rows):
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _phases(result: RunResult, first: Sequence[str]) -> list[str]:
    """A column for each phase. A load that still runs ends after its phase, so the next may begin with more free."""
    rows = [
        ["virtual s", *(f"{p.start_ns / 1e9:.2f} to {p.end_ns / 1e9:.2f}" for p in result.phases)],
        ["free pages", *(f"{p.nr_free_pages[0]} to {p.nr_free_pages[1]}" for p in result.phases)],
        [
            "unusable_index_order_9, 1/1000",
            *("{} to {}".format(*p.unusable_index_order_9) for p in result.phases),
        ],
        ["order-9 requests served", *(_served(p) for p in result.phases)],
    ]
    for name in first:
        cells = [_of_phase(phase, name) for phase in result.phases]
        if any(cell is not None for cell in cells):
            rows.append([name, *(number(cell) for cell in cells)])
    return table("phases", ["", *(phase.name for phase in result.phases)], rows)


def _served(phase: PhaseResult) -> str:
    nr = sum(row[2] for row in phase.requests if row[0] == 9)
    failed = sum(row[3] for row in phase.requests if row[0] == 9)
    return f"{nr - failed} of {nr}" if nr else "-"


def _of_phase(phase: PhaseResult, name: str) -> Number:
    return phase.metrics[name] if name in phase.metrics else phase.vmstat.get(name)


def _requests(result: RunResult) -> list[str]:
    rows = [
        [
            str(row.order),
            _CLASSES[row.cls],
            str(row.nr),
            str(row.nr_failed),
            f"{row.p50_ns / 1e3:.1f} us",
            f"{row.p99_ns / 1e3:.1f} us",
        ]
        for row in result.requests
    ]
    return table(
        "requests for pages", ["order", "class", "number", "failed", "median", "99th percentile"], rows
    )


def _losses(result: RunResult) -> list[str]:
    """Caches that lost something, most first."""
    lost = sorted(result.losses.items(), key=lambda each: (-each[1].nr_pages_evicted, each[0]))
    rows = [
        [name, *(str(n) for n in (each.nr_objects_evicted, each.nr_pages_evicted, each.nr_pages_lost))]
        for name, each in lost
        if each.nr_objects_evicted
    ]
    if not rows:
        return ["what reclaim and compaction took from caches: nothing"]
    return table(
        "what reclaim and compaction took from caches",
        ["", "objects", "pages", "size of what was needed again in 10 s, pages"],
        rows,
    )


def _shrinkers(result: RunResult) -> list[str]:
    rows = [
        [name, str(calls["calls"]), str(calls["freed"]), str(calls["pages_freed"])]
        for name, calls in result.shrinker_calls.items()
    ]
    if not rows:
        return ["shrinkers: none"]
    return table(
        "shrinkers",
        ["", "calls that found something", "objects freed", "pages freed meanwhile by anyone"],
        rows,
    )
