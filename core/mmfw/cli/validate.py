"""``mmfw validate``: real captures against the simulator, figure by figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from mmfw.validate.common import Comparison, Summary
    from mmfw.validate.recognise import Capture

#: Differences that the text output spells out.
_SHOWN: Final = 20


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


CAPTURES = typer.Argument(metavar="CAPTURE...", help="Folders of captured experiments.")
FORMAT = typer.Option(Format.TEXT, "--format", help="Print a table, or JSON for scripts.")


def validate(captures: list[Path] = CAPTURES, output: Format = FORMAT) -> None:
    """Compare real captures with the simulator, figure by figure."""
    from mmfw.validate.common import summarize

    found = _supported(captures)
    comparisons = [comparison for capture in found for comparison in _comparisons(capture)]
    summary = summarize(comparisons)
    if output is Format.JSON:
        _print_json(comparisons, summary)
    else:
        _print_text(comparisons, summary)
    raise typer.Exit(0 if summary.passed else 1)


def _supported(paths: list[Path]) -> list[Capture]:
    """All captures named; none is compared before all are known to be of a kind that can be."""
    from mmfw.errors import InputError
    from mmfw.validate.recognise import find_captures

    found = [capture for path in paths for capture in find_captures(path)]
    for capture in found:
        if capture.kind not in ("static", "shrink"):
            raise InputError(
                f"a capture of kind {capture.kind!r} is not yet supported by this version; "
                "static and shrink are",
                file=str(capture.path),
            )
    return found


def _comparisons(capture: Capture) -> Iterator[Comparison]:
    from mmfw.validate.shrink import validate_shrink
    from mmfw.validate.static import validate_static

    if capture.kind == "shrink":
        yield from validate_shrink(capture.path, capture.name)
    else:
        yield from validate_static(capture.path)


def _print_json(comparisons: list[Comparison], summary: Summary) -> None:
    # One comparison a line: a capture of shrinkers has tens of thousands.
    rows = (json.dumps(comparison.as_json()) for comparison in comparisons)
    typer.echo('{"comparisons": [')
    separator = ""
    for row in rows:
        typer.echo(f"{separator}{row}", nl=False)
        separator = ",\n"
    typer.echo(f'\n], "summary": {json.dumps(summary.as_json())}}}')


def _print_text(comparisons: list[Comparison], summary: Summary) -> None:
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
    verdict = "passed" if summary.passed else "FAILED"
    typer.echo(f"{verdict}: {summary.within} of {summary.counted} figures agree, {summary.required} must")
