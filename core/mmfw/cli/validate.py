"""``mmfw validate``: real captures against the simulator, figure by figure."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from mmfw.validate.bounds import Rule
    from mmfw.validate.common import Comparison, Summary

#: Differences that the text output spells out.
_SHOWN: Final = 20
#: Figures of rebuilt experiments, printed one by one.
_DYNAMIC: Final = ("success", "counter", "small", "loop", "stream", "reported")


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


CAPTURES = typer.Argument(metavar="CAPTURE...", help="Folders of captured experiments.")
FORMAT = typer.Option(Format.TEXT, "--format", help="Print a table, or JSON for scripts.")


JOBS = typer.Option(1, "--jobs", min=1, help="Captures rebuilt at once, each in a process of its own.")


def validate(captures: list[Path] = CAPTURES, output: Format = FORMAT, jobs: int = JOBS) -> None:
    """Compare real captures with the simulator, figure by figure."""
    from mmfw.validate.bounds import judge
    from mmfw.validate.dynamic import compare_all
    from mmfw.validate.recognise import captures_of

    found, files = captures_of(captures)
    for file in files:
        typer.echo(f"mmfw: {file}: is a file, not a capture; passed over", err=True)
    comparisons = compare_all(found, jobs)
    summary, rules = judge(comparisons)
    if output is Format.JSON:
        _print_json(comparisons, summary)
    else:
        _print_text(comparisons, summary, rules)
    raise typer.Exit(0 if summary.passed else 1)


def _print_json(comparisons: list[Comparison], summary: Summary) -> None:
    # One comparison a line: a capture of shrinkers has tens of thousands.
    rows = (json.dumps(comparison.as_json()) for comparison in comparisons)
    typer.echo('{"comparisons": [')
    separator = ""
    for row in rows:
        typer.echo(f"{separator}{row}", nl=False)
        separator = ",\n"
    typer.echo(f'\n], "summary": {json.dumps(summary.as_json())}}}')


def _print_text(comparisons: list[Comparison], summary: Summary, rules: list[Rule]) -> None:
    static = [one for one in comparisons if one.labels.get("figure") not in _DYNAMIC]
    if static:
        _print_counts(static)
    dynamic = [one for one in comparisons if one.labels.get("figure") in _DYNAMIC]
    if dynamic:
        _print_figures(dynamic)
    for rule in rules:
        typer.echo(f"{rule.name}: {rule.within} of {rule.counted} within, {rule.required} must")
    verdict = "passed" if summary.passed else "FAILED"
    typer.echo(f"{verdict}: {summary.within} of {summary.counted} figures agree, {summary.required} must")


def _print_figures(comparisons: list[Comparison]) -> None:
    """One line a figure: real, simulated, their ratio, and whether that is within bounds."""
    columns = ("experiment", "part", "counter", "real", "simulated", "ratio", "")
    table = [columns]
    for one in comparisons:
        part = " ".join(value for key, value in one.labels.items() if key != "figure")
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        mark = "not counted" if not one.counted else "ok" if one.within else "OUT"
        table.append((one.experiment, part, one.counter, f"{one.real:g}", f"{one.simulated:g}", ratio, mark))
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        left = "  ".join(f"{text:<{width}}" for text, width in zip(line[:3], widths[:3], strict=True))
        right = "  ".join(f"{text:>{width}}" for text, width in zip(line[3:6], widths[3:6], strict=True))
        typer.echo(f"{left}  {right}  {line[6]}".rstrip())


def _print_counts(comparisons: list[Comparison]) -> None:
    columns = ("experiment", "figure", "counter", "compared", "equal", "apart", "equal")
    rows: dict[tuple[str, str, str], list[int]] = {}
    for one in comparisons:
        row = rows.setdefault((one.experiment, one.labels.get("figure", "-"), one.counter), [0, 0, 0, 0])
        at = 0 if one.counted else 2
        row[at] += 1
        row[at + 1] += one.within
    table = [columns, *((*key, *(str(count) for count in row)) for key, row in rows.items())]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        left = "  ".join(f"{text:<{width}}" for text, width in zip(line[:3], widths[:3], strict=True))
        right = "  ".join(f"{text:>{width}}" for text, width in zip(line[3:], widths[3:], strict=True))
        typer.echo(f"{left}  {right}")
    wrong = [one for one in comparisons if one.counted and not one.within]
    for one in wrong[:_SHOWN]:
        labels = " ".join(f"{key}={value}" for key, value in one.labels.items())
        typer.echo(
            f"differs: {one.experiment} {one.counter}: real {one.real} simulated {one.simulated} ({labels})"
        )
    if len(wrong) > _SHOWN:
        typer.echo(f"and {len(wrong) - _SHOWN} more differ")
