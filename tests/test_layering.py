"""The arrows of the architecture: who may know whom, and what an import may cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmfw
from mmfw.mm.mmzone import PglistData
from mmfw.mm.pages import Memory
from mmfw.state import NodeState, ZoneState
from mmfw.views import PgdatView, ZoneView

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "numba", "pydantic", "pluggy", "greenlet", "importlib_metadata", "rich", "click"}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nsys.stderr.write(' '.join(sys.modules))"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "core")},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_import_contracts_hold() -> None:
    pytest.importorskip("importlinter")
    code = (
        "import sys\nfrom importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "core")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_nothing_of_it() -> None:
    assert {name for name in loaded_by("import mmfw") if name.startswith("mmfw.")} == set()


def test_hookimpl_and_types_need_no_arrays() -> None:
    names = loaded_by("from mmfw import hookimpl, ShrinkControl, gfp, PluginInfo")
    assert names & {"numpy", "numba", "pydantic", "greenlet"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "--help"]])
def test_help_imports_nothing_heavy_and_no_plugin(arguments: list[str]) -> None:
    code = (
        "from mmfw.cli import main\ntry:\n    main({})\nexcept SystemExit as done:\n    assert not done.code"
    )
    names = loaded_by(code.format(arguments))
    # typer itself imports pydantic where a command has parameters to convert.
    assert names & HEAVY - ({"pydantic"} if arguments[0] == "plugins" else set()) == set()
    assert ("mmfw.cli.plugins" in names) == (arguments[0] == "plugins")


def test_public_names_are_sorted_and_resolve() -> None:
    capitals = [name for name in mmfw.__all__ if name.isupper()]
    classes = [name for name in mmfw.__all__ if not name.isupper() and name[0].isupper()]
    others = [name for name in mmfw.__all__ if name[0].islower()]
    assert mmfw.__all__ == sorted(capitals) + sorted(classes) + sorted(others)
    assert dir(mmfw) == sorted(mmfw.__all__)
    for name in mmfw.__all__:
        assert getattr(mmfw, name) is not None


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match=r"^module 'mmfw' has no attribute 'hookimp'$"):
        mmfw.hookimp  # noqa: B018


def test_views_promise_what_zones_and_nodes_have() -> None:
    names = {
        view: {*view.__annotations__, *(name for name in vars(view) if not name.startswith("_"))}
        for view in (ZoneView, PgdatView)
    }
    state = NodeState([ZoneState(2, 0, 512, 512, 512, (1, 2, 3, 4), (0, 0, 0, 0, 0))])
    pgdat = PglistData(Memory(state))
    assert [name for name in sorted(names[PgdatView]) if not hasattr(pgdat, name)] == []
    assert [name for name in sorted(names[ZoneView]) if not hasattr(pgdat.node_zones[2], name)] == []
