"""``mmfw scenarios``: what scenarios are installed, and what is in them."""

from __future__ import annotations

import json

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def scenarios() -> None:
    """List and show installed scenarios."""


@app.command("list")
def list_scenarios() -> None:
    """List installed scenarios, a line each."""
    from mmfw.errors import MmfwError
    from mmfw.scenario import find_scenarios, parse_scenario

    for name, found in find_scenarios().items():
        try:
            line = parse_scenario(found.text, found.path).description
        except MmfwError as fault:
            line = f"broken: {fault}"
        typer.echo(f"{name:<24} {found.origin:<24} {line}")


@app.command("show")
def show_scenario(name: str = typer.Argument(help="Name of an installed scenario.")) -> None:
    """Print a scenario's file."""
    from mmfw.errors import InputError, did_you_mean
    from mmfw.scenario import find_scenarios

    known = find_scenarios()
    if name not in known:
        raise InputError(f"no scenario {name!r}; {did_you_mean(name, known)}")
    typer.echo(known[name].text.rstrip("\n"))


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
    from mmfw.scenario import Scenario

    typer.echo(json.dumps(Scenario.model_json_schema(), indent=2))
