"""``mmfw plugins``: what is installed, and whether it would load."""

from __future__ import annotations

import json
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmfw.discovery import PluginRecord
    from mmfw.registry import LoadedPlugin, LoadedPlugins

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


class Format(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


FORMAT = typer.Option(Format.TEXT, "--format", help="Print a table, or JSON for scripts.")


@app.callback()
def plugins() -> None:
    """Show installed plugins and check them."""


@app.command("list")
def list_plugins(
    check: bool = typer.Option(False, "--check", help="Import each plugin and say what is wrong with it."),
    output: Format = FORMAT,
) -> None:
    """List installed plugins; without --check none is imported."""
    from mmfw.discovery import PLUGIN_GROUPS, RESOURCE_GROUPS, discover

    rows = []
    broken = 0
    for record in discover((*PLUGIN_GROUPS, *RESOURCE_GROUPS)):
        row: dict[str, Any] = {
            "name": record.name,
            "group": record.group,
            "distribution": record.distribution,
            "version": record.version,
        }
        if check and record.group in PLUGIN_GROUPS:
            row["error"] = _error_of(record)
            broken += row["error"] is not None
        rows.append(row)
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows, check=check)
    raise typer.Exit(1 if broken else 0)


@app.command("info")
def info(
    name: str = typer.Argument(help="Short name, or the path of a plugin file."), output: Format = FORMAT
) -> None:
    """Import one plugin and show what it needs, answers and offers."""
    from mmfw.discovery import discover, file_record, only_record
    from mmfw.plugins import check_plugin

    record = file_record(name) if name.endswith(".py") else only_record(name, discover())
    loaded = check_plugin(record)
    one = loaded.plugins[0] if record.name == "mainline" else loaded.plugins[-1]
    described = _describe(one) | _offers(loaded, one)
    if output is Format.JSON:
        typer.echo(json.dumps(described, indent=2))
        return
    for key, value in described.items():
        if isinstance(value, dict):
            _print_offers(key, value)
            continue
        shown = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{key.replace('_', ' ') + ':':<15}{shown or '-'}")


def _error_of(record: PluginRecord) -> str | None:
    from mmfw.errors import MmfwError
    from mmfw.plugins import check_plugin

    try:
        check_plugin(record)
    except MmfwError as exc:
        return str(exc)
    return None


def _describe(loaded: LoadedPlugin) -> dict[str, Any]:
    record, about = loaded.record, loaded.info
    return {
        "name": about.name,
        "kind": about.kind,
        "hook_api": f"{about.hook_api[0]}.{about.hook_api[1]}",
        "from": record.origin if record.group else f"plugin file {Path(record.target)}",
        "needs": list(about.needs),
        "conflicts": list(about.conflicts),
        "composes_with": list(about.composes_with),
        "acts_on": list(about.acts_on),
        "hooks": [one.hook for one in loaded.implementations],
    }


def _fields(model: type[BaseModel] | None) -> dict[str, str]:
    """Each parameter's default and meaning."""
    if model is None:
        return {}
    told = {}
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        shown = default.value if isinstance(default, Enum) else default
        told[name] = f"{shown}: {field.description or '-'}"
    return told


def _offers(loaded: LoadedPlugins, one: LoadedPlugin) -> dict[str, dict[str, Any]]:
    """Parameters, workloads and metrics of one of the loaded plugins."""
    hooks = {each.hook for each in one.implementations}
    found: dict[str, dict[str, Any]] = {}
    if "mmfw_plugin_params" in hooks:
        found["parameters"] = _fields(loaded.plugin_params().get(one.name))
    if "mmfw_register_workloads" in hooks:
        theirs = loaded.only(one.name).workloads()
        found["workloads"] = {
            name: {"description": load.description, "parameters": _fields(load.params)}
            for name, load in theirs.items()
        }
    if "mmfw_register_metrics" in hooks:
        metrics = loaded.only(one.name).metrics()
        found["metrics"] = {name: f"{metric.unit}: {metric.description}" for name, metric in metrics.items()}
    return found


def _print_offers(title: str, offers: dict[str, Any], indent: str = "") -> None:
    typer.echo(f"{indent}{title}:")
    width = max((len(name) for name in offers), default=0)
    for name, told in offers.items():
        if isinstance(told, dict):
            typer.echo(f"{indent}  {name}: {told['description']}")
            if told["parameters"]:
                _print_offers("parameters", told["parameters"], indent + "    ")
        else:
            typer.echo(f"{indent}  {name:<{width}}  {told}")


def _print_table(rows: list[dict[str, Any]], *, check: bool) -> None:
    columns = ("name", "group", "distribution", "version")
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    for row in ({column: column for column in columns}, *rows):
        line = "  ".join(f"{row[column]:<{widths[column]}}" for column in columns)
        state = ""
        if check:
            state = "  " + ("error" if row["name"] == "name" else row.get("error") or "-")
        typer.echo((line + state).rstrip())
