"""``mmfw run``: run a scenario and print what came of it."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.result import PhaseResult, RunResult


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


def run(
    scenario: str = typer.Argument(
        None, help="Scenario's name or .toml file; chosen by --plugins if left out."
    ),
    plugins: str = typer.Option(
        "", "--plugins", help="Plugins to load besides the scenario's, comma-separated."
    ),
    plugin_file: list[Path] = typer.Option(
        [], "--plugin-file", help="Load a single-file prototype; may be repeated."
    ),
    policy: str = typer.Option(
        None, "--policy", help="Policies to run with, composed by +, options by colons: P+Q:key=value."
    ),
    kernel: str = typer.Option(
        None, "--kernel", help="Kernel profile in place of the scenario's: 6.1, 7.1 or 7.2."
    ),
    machine: str = typer.Option(
        None, "--machine", help="RAM size, folder of copied /proc files, or snapshot file."
    ),
    settings: list[str] = typer.Option(
        [], "--set", help="KEY=VALUE, a parameter to override; may be repeated."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of everything left to chance."),
    duration: str = typer.Option(None, "--duration", help="Virtual time to run, such as 60s."),
    short: bool = typer.Option(False, "--short", help="Run the scenario's short durations."),
    sanitize: bool = typer.Option(False, "--sanitize", help="Check the allocator's memory all along; slow."),
    trace: Path = typer.Option(
        None, "--trace", help="Write a trace as ftrace does to this file; compressed if named .gz."
    ),
    events: str = typer.Option(
        None,
        "--events",
        help="What to trace: vmscan, compaction, oom, kmem, or single events, comma-separated; all but kmem.",
    ),
    trace_options: str = typer.Option(
        None, "--trace-options", help="How to print it, as in ftrace's trace_options: irq-info or noirq-info."
    ),
    proc: Path = typer.Option(
        None, "--proc", help="Write /proc files of the machine to before/ and after/ in this folder."
    ),
    output: Format = typer.Option(Format.TEXT, "--format", help="Print a summary, or JSON for scripts."),
) -> None:
    """Run a scenario on a simulated machine."""
    from mmfw.errors import InputError
    from mmfw.policies import parse_policy
    from mmfw.run import RunRequest
    from mmfw.run import run as run_scenario
    from mmfw.scenario import parse_set

    names = tuple(name.strip() for name in plugins.split(",")) if plugins else ()
    if "" in names:
        raise InputError(
            f"--plugins {plugins!r}: an empty name; write names with commas between, such as xe,ttm"
        )
    request = RunRequest(
        scenario=scenario,
        plugins=names,
        plugin_files=tuple(plugin_file),
        policies=parse_policy(policy),
        kernel=kernel,
        machine=machine,
        duration=duration,
        short=short,
        overrides=dict(parse_set(text) for text in settings),
        seed=seed,
        sanitize=sanitize,
        trace=trace,
        events=events,
        trace_options=trace_options,
        proc=proc,
    )
    progress, clear = _progress()
    try:
        result = run_scenario(request, progress)
    finally:
        clear()
    if output is Format.JSON:
        typer.echo(json.dumps(result.as_json(), indent=2))
    else:
        typer.echo(_summary(result))


def _progress() -> tuple[Callable[[int, int], None] | None, Callable[[], None]]:
    """A line on stderr that follows virtual time, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return None, lambda: None

    def show(now: int, until: int) -> None:
        sys.stderr.write(f"\r{now / 1e9:6.1f} of {until / 1e9:.1f} virtual seconds")
        sys.stderr.flush()

    def clear() -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    return show, clear


def _summary(result: RunResult) -> str:
    lines = [
        f"scenario {result.scenario}, policy {' + '.join(result.policies) or 'mainline'}, kernel {result.kernel}, "
        f"plugins {', '.join(result.plugins)}, "
        f"machine {result.machine}, {result.nr_cpus} CPUs, "
        f"seed {result.seed}: {result.virtual_ns / 1e9:g} virtual s in {result.wall_seconds:.1f} s",
        "",
    ]
    values = {**result.vmstat, **result.metrics}
    first = [name for name in result.first_metrics if name in values]
    names = first + [name for name in result.metrics if name not in first]
    width = max(len(name) for name in names)
    for name in names:
        value = values[name]
        unit = result.units.get(name, "")
        lines.append(
            f"  {name:<{width}}  {_shown(value):>12}  {unit if unit not in ('1', 'ratio') else ''}".rstrip()
        )
    if result.phases:
        lines += ["", *_phases(result, first)]
    if result.requests:
        lines += ["", *_requests(result)]
    wakes = ", ".join(f"order {order}: {n}" for order, n in result.kswapd_wakes_by_order.items())
    lines += ["", f"kswapd passes by order: {wakes or 'none'}"]
    lines += ["shrinkers (calls that found something, objects freed, pages that came free meanwhile):"]
    lines += [
        f"  {name:<24} {c['calls']:>10} {c['freed']:>12} {c['pages_freed']:>12}"
        for name, c in result.shrinker_calls.items()
    ]
    lines += ["", "buddyinfo, free blocks by order 0..10"]
    for label, table in (("before", result.buddyinfo_before), ("after", result.buddyinfo)):
        lines += [f"  {label:<6} {zone:>8} " + "".join(f"{n:>7}" for n in row) for zone, row in table.items()]
    lines += ["", "not modelled in this version: " + "; ".join((*_not_modelled(),))]
    if not result.leak_checked:
        lines.append("the machine did not come to rest after the run, so leaks were not looked for")
    lines += [result.validated, f"digest {result.digest}"]
    return "\n".join(lines)


def _shown(value: int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value}"


def _phases(result: RunResult, first: list[str]) -> list[str]:
    """A line for each phase, then the scenario's first metrics of each."""
    lines = [
        "phases: from, to (virtual s), free pages, unusable index for order 9 (thousandths), order-9 requests"
    ]
    for phase in result.phases:
        before, after = phase.unusable_index_order_9
        nr = sum(row[2] for row in phase.requests if row[0] == 9)
        failed = sum(row[3] for row in phase.requests if row[0] == 9)
        lines.append(
            f"  {phase.name:<16} {phase.start_ns / 1e9:>7.2f} {phase.end_ns / 1e9:>7.2f} "
            f"{phase.nr_free_pages[0]:>9} -> {phase.nr_free_pages[1]:<9} {before:>4} -> {after:<4} "
            f"{nr - failed} of {nr} served"
        )
    for name in first:
        values = [_of_phase(phase, name) for phase in result.phases]
        if any(value is not None for value in values):
            lines.append(f"  {name}: " + ", ".join(_shown(value) for value in values))
    return lines


def _of_phase(phase: PhaseResult, name: str) -> int | float | None:
    return phase.metrics[name] if name in phase.metrics else phase.vmstat.get(name)


def _requests(result: RunResult) -> list[str]:
    lines = ["requests: order, class, number, failed, time to answer (median, 99th percentile)"]
    lines += [
        f"  {row.order:>5} {row.cls.value:>6} {row.nr:>10} {row.nr_failed:>10} "
        f"{row.p50_ns / 1e3:>10.1f} us {row.p99_ns / 1e3:>12.1f} us"
        for row in result.requests
    ]
    return lines


def _not_modelled() -> tuple[str, ...]:
    from mmfw.result import NOT_MODELLED

    return NOT_MODELLED
