"""``mmfw diff``: what differs between two run directories."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from mmfw.results.difference import ChangedFigure, RunDifference


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


OLD = typer.Argument(metavar="A", help="Run directory.")
NEW = typer.Argument(metavar="B", help="Run directory to compare with it.")
FORMAT = typer.Option(Format.TEXT, "--format", help="Print tables, or JSON for scripts.")


def diff(old: Path = OLD, new: Path = NEW, output: Format = FORMAT) -> None:
    """Say what differs between two runs; status 0 if their digests are equal, 1 if not."""
    from mmfw.results import read_run
    from mmfw.results.difference import difference

    found = difference(read_run(old), read_run(new))
    if output is Format.JSON:
        typer.echo(json.dumps({"same_result": found.same_result, **asdict(found)}, indent=2))
    else:
        typer.echo("\n".join(_text(found)))
    raise typer.Exit(0 if found.same_result else 1)


def _text(found: RunDifference) -> list[str]:
    from mmfw.cli.summary import table

    lines = []
    if found.same_result:
        lines.append(f"same result, digest {found.digests[0]}")
    else:
        lines.append("results differ: digest {} and {}".format(*found.digests))
    if found.inputs:
        rows = [[each.name, _short(each.old), _short(each.new)] for each in found.inputs]
        lines += ["", *table("inputs that differ", ["", "A", "B"], rows)]
    for kind, title in (
        ("metric", "metrics that differ"),
        ("vmstat", "counters of /proc/vmstat that differ"),
    ):
        rows = [_row(each) for each in found.figures if each.kind == kind]
        if rows:
            lines += ["", *table(title, ["", "A", "B", "B/A", "first apart at"], rows)]
    if not found.same_result and found.first_ns is not None:
        lines += ["", f"first sample that differs: {found.first_ns / 1e9:.1f} virtual s"]
    return lines


def _row(each: ChangedFigure) -> list[str]:
    from mmfw.cli.summary import number

    return [
        each.name,
        number(each.old),
        number(each.new),
        "-" if each.ratio is None else f"{each.ratio:.4f}",
        "-" if each.first_ns is None else f"{each.first_ns / 1e9:.1f} s",
    ]


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
