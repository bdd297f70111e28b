"""Fixtures for every test; nothing here is global to a run, so there is nothing to undo."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import importlib_metadata
import pytest

from mmfw import plugins
from mmfw.registry import LoadedPlugins

ROOT = Path(__file__).parents[1]
INSTALLED = Path(__file__).parent / "data" / "installed"

#: One line, so that line 2 of a plugin file is line 1 of the source that a test gives.
PRELUDE = "from mmfw import InputError, Metric, PluginInfo, WakePlan, Workload, hookimpl, hookspec\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The distributions of tests/data/installed, as if pip had installed them."""
    monkeypatch.syspath_prepend(str(INSTALLED))
    before = set(sys.modules)
    yield INSTALLED
    for name in set(sys.modules) - before:
        if name.startswith(("mmfw_good", "mmfw_broken", "mmfw_twin")):
            del sys.modules[name]


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if none of this repository's plugins were installed, so that a test may use their names."""
    real = importlib_metadata.entry_points
    ours = {"mmfw-ttm-pool", "mmfw-xe-shrinker", "mmfw-xfs-buf"}

    def entry_points(**selection: str) -> list[importlib_metadata.EntryPoint]:
        return [each for each in real(**selection) if each.dist is None or each.dist.name not in ours]

    monkeypatch.setattr(importlib_metadata, "entry_points", entry_points)


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a single-file plugin: ``plugin_file(name, source)``."""

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(PRELUDE + textwrap.dedent(source))
        return path

    return write


@pytest.fixture
def load_source(plugin_file: Callable[[str, str], Path]) -> Callable[..., LoadedPlugins]:
    """Load plugins given as sources by keyword: ``load_source(one="...", other="...")``."""

    def load(**sources: str) -> LoadedPlugins:
        return plugins.load([], [plugin_file(name, source) for name, source in sources.items()])

    return load


@pytest.fixture
def mmfw_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own: ``mmfw_command("plugins", "list")``."""

    def run(
        *args: str, path: tuple[Path, ...] = (), python: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        places = [str(place) for place in (*path, ROOT / "core")]
        code = "from mmfw.cli import main; main()"
        return subprocess.run(
            [sys.executable, *python, "-c", code, *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
