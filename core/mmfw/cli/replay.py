"""``mmfw replay``: real allocator traces, pfn by pfn."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from mmfw.replay.engine import Mismatch, ReplayResult


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


FILES = typer.Argument(metavar="FILE...", help="Traces, or folders of traces.")
FORMAT = typer.Option(Format.TEXT, "--format", help="Print lines, or JSON for scripts.")


def replay(files: list[Path] = FILES, output: Format = FORMAT) -> None:
    """Replay real allocator traces, pfn by pfn."""
    from mmfw.replay.engine import replay_file

    traces = _traces(files)
    results = []
    for number, path in enumerate(traces, 1):
        with _Progress(f"{number}/{len(traces)} {path.name}"):
            result = replay_file(path)
        results.append(result)
        if output is Format.TEXT:
            _print_text(result)
    failed = sum(not result.passed for result in results)
    if output is Format.JSON:
        typer.echo(json.dumps([_as_json(result) for result in results], indent=2))
    elif len(results) > 1:
        typer.echo(f"{len(results) - failed} of {len(results)} traces match")
    raise typer.Exit(1 if failed else 0)


class _Progress:
    """A line on a terminal's stderr while something takes time, and nothing elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = text if sys.stderr.isatty() else ""

    def __enter__(self) -> None:
        if self._text:
            sys.stderr.write(self._text)
            sys.stderr.flush()

    def __exit__(self, *exc: object) -> None:
        if self._text:
            sys.stderr.write("\r" + " " * len(self._text) + "\r")
            sys.stderr.flush()


def _traces(paths: list[Path]) -> list[Path]:
    """The files named, and those in the folders named, by name."""
    from mmfw.errors import InputError

    traces: list[Path] = []
    for path in paths:
        if not path.is_dir():
            traces.append(path)
            continue
        try:
            found = sorted(
                child
                for child in path.iterdir()
                if child.name.endswith((".jsonl", ".jsonl.gz")) and child.is_file()
            )
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror or error})", file=str(path)) from error
        if not found:
            raise InputError("the folder holds no trace (*.jsonl or *.jsonl.gz)", file=str(path))
        traces.extend(found)
    return traces


def _as_json(result: ReplayResult) -> dict[str, Any]:
    return {
        "file": result.file,
        "ops": result.ops,
        "pfns_compared": result.pfns_compared,
        "pfn_matches": result.pfn_matches,
        "events_compared": result.events_compared,
        "events_match": result.events_match,
        "states_compared": result.states_compared,
        "states_match": result.states_match,
        "first_mismatch": None if result.first_mismatch is None else _mismatch_json(result.first_mismatch),
        "final_state_matches": result.final_state_matches,
    }


def _mismatch_json(mismatch: Mismatch) -> dict[str, Any]:
    return {
        "line": mismatch.line,
        "operation": mismatch.operation,
        "op_index": mismatch.op_index,
        "what": mismatch.what,
        "expected": mismatch.expected,
        "got": mismatch.got,
        "around": list(mismatch.around),
    }


def _print_text(result: ReplayResult) -> None:
    typer.echo(
        f"{result.file}: {result.ops} operations, pfns {result.pfn_matches}/{result.pfns_compared}, "
        f"events {result.events_match}/{result.events_compared}, "
        f"states {result.states_match}/{result.states_compared}: {'match' if result.passed else 'DIFFERS'}"
    )
    mismatch = result.first_mismatch
    if mismatch is None:
        return
    where = f"{result.file}:{mismatch.line}"
    typer.echo(f"{where}: first difference, operation {mismatch.op_index}: {mismatch.operation}")
    typer.echo(f"  {mismatch.what}: expected {mismatch.expected}, got {mismatch.got}")
    for line in mismatch.around:
        typer.echo(f"  {line}")
