"""``python -m verdict run|check|write|freeze``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from mmfw.compare import compare
from mmfw.errors import InputError
from verdict import frozen
from verdict.check import requests, specs_of
from verdict.page import page
from verdict.studies import load_studies, request_of

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "verdict.md"


@app.command()
def run(
    out: Path = typer.Option(..., "--out", help="Folder of the studies; goes on if begun."),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes at a time; 0: as many as there are CPUs."),
    only: str = typer.Option("", "--only", help="Studies by name, comma-separated; all by default."),
) -> None:
    """Make the studies, the most important first."""
    studies = load_studies()
    specs = specs_of(studies)
    names = {spec.name for spec in specs}
    wanted = only.split(",") if only else sorted(names)
    for name in wanted:
        if name not in names:
            raise typer.BadParameter(f"no study {name!r}; there are {', '.join(sorted(names))}")
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for spec in specs:
        if spec.name in wanted:
            typer.echo(f"{spec.name} ...")
            request = request_of(spec, studies.seeds, out, jobs or len(os.sched_getaffinity(0)))
            try:
                found = compare(request, remark=typer.echo)
            except InputError as fault:
                failed.append(f"{spec.name}: {fault}")
                continue
            failed += [
                f"{spec.name}: {each.policy}, seed {each.seed}: {each.error}" for each in found.missing
            ]
    for text in failed:
        typer.echo(text, err=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def check(
    out: Path = typer.Option(..., "--out", help="Folder of the studies."),
    jobs: int = typer.Option(0, "--jobs", min=0, help="Processes at a time; 0: as many as there are CPUs."),
) -> None:
    """Make one seed of each study again, so that the page can say whether the code as it is gives the same."""
    for name, request in requests(load_studies(), out, jobs or len(os.sched_getaffinity(0))):
        typer.echo(f"{name} ...")
        try:
            compare(request, remark=typer.echo)
        except InputError as fault:
            typer.echo(f"{name}: {fault}", err=True)  # as in the study itself


@app.command()
def write(out: Path = typer.Option(..., "--out", help="Folder of the studies.")) -> None:
    """Write docs/verdict.md from what has run."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(load_studies(), out), encoding="utf-8")
    typer.echo(PAGE)


@app.command()
def freeze() -> None:
    """Note the digests of scenario files and cost table in frozen.toml."""
    frozen.write()
    typer.echo(frozen.FILE)


if __name__ == "__main__":
    app()
