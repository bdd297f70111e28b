"""``mmfw policies``: which policies and sets of policies are installed."""

from __future__ import annotations

import json
import re
from enum import StrEnum

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


def _without_kind(summary: str) -> str:
    """A distribution's summary without what every one of them says first."""
    return re.sub(r"^(mmfw policy|policy for mmfw): ", "", summary, flags=re.IGNORECASE)


@app.callback()
def policies() -> None:
    """List installed policies and sets of policies."""


@app.command("list")
def list_policies(
    output: Format = typer.Option(Format.TEXT, "--format", help="Print a table, or JSON for scripts."),
) -> None:
    """List what --policy takes, a line each; no plugin is imported."""
    from mmfw.discovery import discover, summary_of
    from mmfw.policies import GROUP
    from mmfw.policy_sets import find_policy_sets

    rows = [
        {
            "name": record.name,
            "kind": "policy",
            "distribution": record.distribution,
            "stands_for": "the kernel as it is"
            if record.name == "mainline"
            else _without_kind(summary_of(record)),
        }
        for record in discover()
        if record.group == GROUP
    ]
    rows += [
        {
            "name": each.name,
            "kind": "set",
            "distribution": each.origin,
            "stands_for": f"{each.description} = {each.policies}",
        }
        for each in find_policy_sets().values()
    ]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ("name", "kind", "distribution", "stands_for")
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in columns[:-1]}
    for row in ({key: key.replace("_", " ") for key in columns}, *rows):
        typer.echo("  ".join([*(f"{row[key]:<{width}}" for key, width in widths.items()), row["stands_for"]]))
