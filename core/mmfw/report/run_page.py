"""The page of a single run."""

from __future__ import annotations

from typing import Any

import tomli
from pydantic import BaseModel, ValidationError

from mmfw.errors import InputError
from mmfw.report.numbers import show, unit_of, unit_words
from mmfw.report.page import json_for_html
from mmfw.report.panels import choose_panels
from mmfw.report.repeat import run_repeat
from mmfw.report.view import pack_view
from mmfw.results import RunDirectory


class ScenarioNames(BaseModel):
    """What a scenario's file says of its figures; the run has checked the whole of it."""

    description: str = ""
    progress: str | None = None
    metrics: list[str] = []


def scenario_names(run: RunDirectory) -> ScenarioNames:
    """What the scenario's file, as a run keeps it, says of figures.

    Raises
    ------
    InputError
        It is no scenario's text.
    """
    try:
        return ScenarioNames.model_validate(tomli.loads(run.manifest.scenario_toml))
    except (tomli.TOMLDecodeError, ValidationError) as fault:
        said = " ".join(str(fault).split())
        file = str(run.path / "manifest.json")
        raise InputError(f"damaged: scenario_toml is no scenario: {said:.200}", file=file) from None


def policy_of(run: RunDirectory) -> str:
    """A run's policies as ``--policy`` takes them."""
    return "+".join(run.manifest.policies) or "mainline"


def step_words(step_ns: int) -> str:
    """How far points of a series lie apart, in words."""
    return f"a point every {show(step_ns, 'ns')}" if step_ns else "no points"


def _metrics(run: RunDirectory, first: list[str]) -> list[tuple[str, str]]:
    document = run.document
    names = [*(name for name in first if document.figure(name) is not None), *document.metrics]
    rows = []
    for name in dict.fromkeys(names):
        about = document.figures.get(name)
        unit = "1" if about is None else about.unit
        tail = "" if unit in ("1", "ns", "ratio", "") else f" {unit_words(unit)}"
        shown_in = unit if about is None else unit_of(unit, about.kind)
        rows.append((name, show(document.figure(name), shown_in) + tail))
    return rows


def run_context(run: RunDirectory) -> dict[str, Any]:
    """What ``run.html.j2`` names."""
    manifest, scenario = run.manifest, scenario_names(run)
    panels = choose_panels(scenario.progress, scenario.metrics, [run])
    view = pack_view(run, panels, run.document.vmstat)
    data = {
        "views": [view.packed],
        "of": [0],
        "baseline": 0,
        "names": [policy_of(run)],
        "panels": [panel.as_json() for panel in panels],
    }
    seconds = manifest.virtual_ns / 1e9
    lead = [
        f"Scenario: {scenario.description or manifest.scenario}. {seconds:.6g} virtual seconds, "
        f"kernel {manifest.kernel}, machine {manifest.machine}, {manifest.nr_cpus} CPUs, "
        f"plugins {', '.join(manifest.plugins) or 'none'}, seed {manifest.seed}.",
        f"What is validated: {manifest.validated}.",
        f"Not modelled: {'; '.join(run.document.not_modelled)}.",
    ]
    return {
        "title": f"Run of {manifest.scenario}, {policy_of(run)}",
        "lead": lead,
        "said": [],
        "baseline": policy_of(run),
        "scenarios": [{"data": json_for_html(data)}],
        "interval": step_words(view.step_ns),
        "metrics": _metrics(run, scenario.metrics),
        "vmstat": [(name, show(n)) for name, n in sorted(run.document.vmstat.items()) if n],
        "repeat": run_repeat(run),
        "footer": "Written by mmfw report from the run's folder; the same folder gives the same bytes.",
    }
