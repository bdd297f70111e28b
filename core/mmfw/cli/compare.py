"""``mmfw compare``: policies against mainline, over seeds."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.compare import Progress


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
    from mmfw.cli.compare_text import comparison_text
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
        typer.echo("\n".join(comparison_text(found)))
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
