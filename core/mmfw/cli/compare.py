"""``mmfw compare``: policies against mainline, over seeds."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.compare import Comparison, Progress
    from mmfw.compare.model import Cell, StudyScenario


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


SCENARIOS = typer.Argument(
    metavar="SCENARIO...", help="Scenarios' names or .toml files; all: those meant for it."
)
POLICIES = typer.Option(
    ..., "--policies", help="Alternatives by comma, composed by +; all: each policy and each set."
)
OUT = typer.Option(
    ..., "--out", help="Folder of the study: runs, compare.json, report.html. Goes on if begun."
)


#: Between two columns.
_GAP: Final = "  "


def compare(
    scenarios: list[str] = SCENARIOS,
    policies: str = POLICIES,
    seeds: int = typer.Option(10, "--seeds", min=1, help="Seeds that each runs with; a verdict takes 5."),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes at a time; 0: as many as there are CPUs."),
    out: Path = OUT,
    short: bool = typer.Option(False, "--short", help="Run the scenarios' short durations."),
    duration: str = typer.Option(None, "--duration", help="Virtual time of each run, such as 60s."),
    kernel: str = typer.Option(None, "--kernel", help="Kernel profile in place of the scenarios'."),
    settings: list[str] = typer.Option(
        [], "--set", help="KEY=VALUE, a parameter to override; may be repeated."
    ),
    metrics: list[str] = typer.Option(
        [], "--metric", help="A figure to compare besides the usual ones; may be repeated."
    ),
    least_effect: float | None = typer.Option(
        None, "--least-effect", help="Smallest effect that matters, as a share of mainline's median; 0: any."
    ),
    output: Format = typer.Option(Format.TEXT, "--format", help="Print tables, or compare.json."),
) -> None:
    """Compare policies with mainline over seeds."""
    from mmfw.compare import CompareRequest
    from mmfw.compare import compare as compare_policies
    from mmfw.compare.store import COMPARISON
    from mmfw.compare.threshold import LEAST_EFFECT
    from mmfw.errors import InputError
    from mmfw.scenario import parse_set

    names = tuple(name.strip() for name in policies.split(","))
    if "" in names:
        raise InputError(
            f"--policies {policies!r}: an empty name; write alternatives with commas between, such as P,Q+R"
        )
    request = CompareRequest(
        scenarios=tuple(scenarios),
        policies=names,
        nr_seeds=seeds,
        out=out,
        jobs=jobs or _nr_cpus(),
        short=short,
        duration=duration,
        kernel=kernel,
        overrides=dict(parse_set(text) for text in settings),
        metrics=tuple(metrics),
        least_effect=LEAST_EFFECT if least_effect is None else least_effect,
    )
    show, clear = _progress()
    try:
        found = compare_policies(request, show, lambda text: typer.echo(f"mmfw: {text}", err=True))
    finally:
        clear()
    report = _write_report(out)
    if output is Format.JSON:
        typer.echo((out / COMPARISON).read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo("\n".join(_text(found)))
        typer.echo(f"\nall figures: {out / COMPARISON}" + (f"; report: {report}" if report else ""))
    for each in found.missing:
        where = f"{each.scenario}, {each.policy}, seed {each.seed}"
        typer.echo(f"mmfw: {where}: {each.error}; to repeat it: {each.command}", err=True)
    raise typer.Exit(3 if found.missing else 0)


def _nr_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_report(out: Path) -> Path | None:
    """Write the report; without what it needs, say so, for the comparison is done all the same."""
    from mmfw.errors import InputError

    try:
        from mmfw.report import write_report

        return write_report(out)
    except InputError as fault:
        typer.echo(f"mmfw: no report: {fault}", err=True)
        return None


def _progress() -> tuple[Callable[[Progress], None] | None, Callable[[], None]]:
    """A line on stderr that says how far it is, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return None, lambda: None

    sys.stderr.write("loading what is compared")
    sys.stderr.flush()

    def show(progress: Progress) -> None:
        left = progress.seconds_left
        said = (
            ""
            if left is None
            else f", about {left / 60:.0f} min left"
            if left > 90
            else f", about {left:.0f} s left"
        )
        sys.stderr.write(f"\r\x1b[K{progress.nr_done} of {progress.nr_runs} runs{said}")
        sys.stderr.flush()

    def clear() -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    return show, clear


def _text(found: Comparison) -> list[str]:
    seeds = found.study.seeds
    nr = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    lines = [f"{nr}, differences to mainline of the same seed with their intervals"]
    for scenario in found.study.scenarios:
        lines += ["", *_table(found, scenario)]
    left_out = dict.fromkeys(each.why for each in found.applicability if each.acts and each.why)
    if left_out:
        lines += ["", "* leaves out what changes nothing in a scenario; compare.json says what"]
    if found.missing:
        failed = dict.fromkeys((each.scenario, each.policy) for each in found.missing)
        lines += ["", "runs that failed are missing from: " + ", ".join(f"{s} with {p}" for s, p in failed)]
    lines += ["", found.method]
    if len(seeds) < 5:
        lines.append("With fewer than 5 seeds there is no verdict.")
    return lines


def _table(found: Comparison, scenario: StudyScenario) -> list[str]:
    """Policies by the figures that decide: three columns for each figure, under its name."""
    cells = {
        (cell.policy, cell.metric): cell
        for cell in found.cells
        if cell.scenario == scenario.name and cell.primary
    }
    applies = {each.policy: each for each in found.applicability if each.scenario == scenario.name}
    rows = [["", *("median", "difference", "verdict") * len(scenario.primary)]]
    for policy in found.study.policies:
        applied = applies.get(policy.name)
        mark = " *" if applied is not None and applied.acts and applied.why else ""
        row = [policy.name + mark]
        for name in scenario.primary:
            row += _columns(cells.get((policy.name, name)), acts=applied is None or applied.acts)
        rows.append(row)
    heads = [
        _head(name, [cell for cell in cells.values() if cell.metric == name]) for name in scenario.primary
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for i, head in enumerate(heads):
        span = widths[3 * i + 1 : 3 * i + 4]
        widths[3 * i + 1] += max(0, len(head) - sum(span) - 2 * len(_GAP))
    lines = [f"{scenario.name}: {scenario.description}"]
    spanning = [" " * widths[0]]
    spanning += [
        f"{head:>{sum(widths[3 * i + 1 : 3 * i + 4]) + 2 * len(_GAP)}}" for i, head in enumerate(heads)
    ]
    lines.append(_GAP + _GAP.join(spanning))
    for row in rows:
        shown = [f"{row[0]:<{widths[0]}}"]
        shown += [f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append((_GAP + _GAP.join(shown)).rstrip())
    return lines


def _head(name: str, cells: list[Cell]) -> str:
    """A figure's name, its unit, and which direction is an improvement."""
    if not cells:
        return name
    unit = "" if cells[0].unit in ("1", "ratio") else f", {cells[0].unit}"
    unit = ", %" if _is_share(cells[0]) else unit
    return f"{name}{unit}" + ("" if cells[0].better == "neither" else f" ({cells[0].better} is better)")


def _columns(cell: Cell | None, *, acts: bool) -> list[str]:
    """Median, difference with its interval or what stands in its place, and verdict."""
    from mmfw.compare.statistics import results_words

    if cell is None:
        return ["-", "-", "-"]
    times = 100 if _is_share(cell) else 1
    shown = [_number(cell.median, times)]
    if not acts:
        return [*shown, "", "does not act here"]
    against = cell.vs_mainline
    if against is None:
        return [*shown, "", "" if cell.policy == "mainline" else "-"]
    bounds = "" if against.ci is None else " [{}, {}]".format(*(_signed(end, times) for end in against.ci))
    results = results_words(against.nr_pairs, against.nr_results)
    bounds += f" ({results})" if results else ""
    return [*shown, _signed(against.median_difference, times) + bounds, cell.verdict or "-"]


def _is_share(cell: Cell) -> bool:
    """Whether it is shown in percent."""
    return cell.kind == "share" and cell.unit == "1"


def _number(value: float | None, times: int = 1) -> str:
    if value is None:
        return "-"
    value *= times
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def _signed(value: float, times: int = 1) -> str:
    return ("+" if value > 0 else "") + _number(value, times)
