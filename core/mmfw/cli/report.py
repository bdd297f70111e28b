"""``mmfw report``: write the HTML report of a comparison or of a run."""

from __future__ import annotations

from pathlib import Path

import typer


def report(
    folder: Path = typer.Argument(metavar="DIR", help="What mmfw compare --out or mmfw run --out wrote."),
) -> None:
    """Write DIR/report.html, one file that needs no network, and print its path."""
    from mmfw.report import write_report

    typer.echo(str(write_report(folder)))
