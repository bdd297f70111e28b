"""What one needs to repeat a run or a study: command, versions, seeds, digests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw.report.study import Study
    from mmfw.results import RunDirectory
    from mmfw.results.manifest import Distribution


@dataclass(frozen=True, slots=True)
class Table:
    """A folded table.

    Attributes
    ----------
    title, caption : str
        What it is.
    head : tuple of str
        Its columns.
    rows : list of tuple of str
        Its rows; the first cell heads the row.
    """

    title: str
    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The section's content.

    Attributes
    ----------
    command : str
        As one types it.
    facts : list of (str, str)
        What it depends on.
    tables : list of Table
        The longer parts.
    """

    command: str
    facts: list[tuple[str, str]]
    tables: list[Table]


def _versions(mmfw: str, python: str, numpy: str, numba: str) -> list[tuple[str, str]]:
    return [("mmfw", mmfw), ("Python, numpy, numba", f"{python}, {numpy}, {numba}")]


def _settings(overrides: Mapping[str, object]) -> list[tuple[str, str]]:
    return [("--set", ", ".join(f"{key}={value}" for key, value in overrides.items()))] if overrides else []


def _distributions(found: Mapping[str, Distribution]) -> Table:
    return Table(
        "Distributions",
        "Installed distributions that took part; the digest is of their Python sources",
        ("distribution", "version", "sha256"),
        [(name, each.version, each.sha256) for name, each in sorted(found.items())],
    )


def run_repeat(run: RunDirectory) -> Repeat:
    """How a run is repeated."""
    manifest = run.manifest
    facts = _versions(manifest.mmfw, manifest.python, manifest.numpy, manifest.numba)
    facts += [
        ("kernel", manifest.kernel),
        ("seed", str(manifest.seed)),
        ("cost table", f"{manifest.costs}, sha256 {manifest.costs_sha256}"),
        ("scenario file", f"{manifest.scenario}, sha256 {manifest.scenario_sha256}"),
    ]
    if manifest.machine_sha256 is not None:
        facts.append(("machine's files", f"{manifest.machine}, sha256 {manifest.machine_sha256}"))
    facts += [
        (f"plugin file {name}", f"sha256 {digest}") for name, digest in sorted(manifest.plugin_files.items())
    ]
    facts += _settings(manifest.overrides)
    facts.append(("digest of the result", manifest.digest))
    return Repeat(shlex.join(manifest.command), facts, [_distributions(manifest.distributions)])


def study_repeat(study: Study) -> Repeat:
    """How a comparison is repeated."""
    comparison, asked = study.comparison, study.comparison.study
    facts = [
        *_versions(asked.mmfw, asked.python, asked.numpy, asked.numba),
        ("scipy", asked.scipy),
        ("seeds", ", ".join(map(str, asked.seeds))),
        *_settings(asked.overrides),
    ]
    costs = dict.fromkeys((each.costs, each.costs_sha256) for each in asked.scenarios)
    facts += [("cost table", f"{name}, sha256 {digest}") for name, digest in costs]
    tables = [
        Table(
            "Failed runs",
            "Runs that failed: nothing of them is in the tables above",
            ("scenario", "policy", "seed", "error", "command that repeats it"),
            [
                (each.scenario, each.policy, str(each.seed), each.error, each.command)
                for each in comparison.missing
            ],
        ),
        Table(
            "Policies",
            "What each name stands for, written in one way: sets replaced, sorted, defaults left out",
            ("policy", "stands for", "in a line"),
            [(each.name, each.policies, each.description) for each in asked.policies],
        ),
        Table(
            "Scenario files",
            "Scenarios, the kernel profile each ran with, and the SHA-256 of its file",
            ("scenario", "named as", "kernel", "sha256"),
            [(each.name, each.source, each.kernel, each.sha256) for each in asked.scenarios],
        ),
        _distributions(asked.distributions),
        Table(
            "Digests",
            "SHA-256 of each run's counters, events and integer metrics; policies that are the same in a scenario "
            "share runs",
            ("scenario", "policy", "seed", "digest"),
            [(each.scenario, each.policy, str(each.seed), each.digest) for each in comparison.runs],
        ),
    ]
    return Repeat(shlex.join(asked.command), facts, [table for table in tables if table.rows])
