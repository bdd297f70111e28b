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
        None,
        "--policy",
        help="Policies or sets to run with, composed by +, options by colons: P+Q:key=value.",
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
    out: Path = typer.Option(
        None, "--out", help="Write a run directory: manifest, metrics, samples, blocks, events."
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
        out=out,
    )
    progress, clear = _progress()
    try:
        result = run_scenario(request, progress)
    finally:
        clear()
    if output is Format.JSON:
        typer.echo(json.dumps(result.as_json(), indent=2))
    else:
        from mmfw.cli.summary import summary

        typer.echo(summary(result))


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
