"""A distribution of policies that behave in every way, and a scenario for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "data" / "toy"

POLICY = """
from mmfw import PluginInfo, hookimpl

MMFW_PLUGIN = PluginInfo(name="{name}", hook_api=(1, 0), kind="policy", acts_on={acts_on})

"""
ELIDES = "@hookimpl\ndef mmfw_should_shrink_slab():\n    return False\n"
WITH_OPTION = """
from pydantic import BaseModel

class Options(BaseModel):
    loud: bool = False
    times: int = 1

@hookimpl
def mmfw_plugin_params():
    return Options

@hookimpl
def mmfw_module_init(mm, params):
    mm.attached.put(params)

@hookimpl
def mmfw_should_shrink_slab():
    return False
"""
DIES = "import os\n\n@hookimpl\ndef mmfw_module_init(mm):\n    {}\n"
ASSASSIN = """
import os, signal

@hookimpl
def mmfw_module_init(mm):
    marker = os.environ["LAB_MARKER"]
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
"""
POLICIES = {
    "quiet": ELIDES,
    "optional": WITH_OPTION,
    "exits": DIES.format("os._exit(7)"),
    "killed": DIES.format("os.kill(os.getpid(), 9)"),
    "raises": DIES.format("raise ValueError('no such thing')"),
    "hungry": DIES.format("raise MemoryError"),
    "assassin": ASSASSIN,
    "interrupts": DIES.format("import signal; os.kill(os.getppid(), signal.SIGINT); signal.pause()"),
    "prints": DIES.format("print('this is no part of the answer')"),
    "elsewhere": ELIDES,
}

SCENARIO = """
name = "lab-loop"
description = "objects touched in turn on fragmented memory"
plugins = ["toy"]
machine = "1G"
duration = "300ms"
short_duration = "200ms"
metrics = ["toy_evictions", "allocstall_normal"]
primary = ["toy_evictions"]

[state]
buddyinfo = { DMA = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], DMA32 = [4000, 4000, 6000, 11000, 0, 0, 0, 0, 0, 0, 0] }
page_cache_pages = 20000

[[workloads]]
name = "toy-loop"
"""


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the import path that holds the distribution, as pip would install it."""
    folder = tmp_path_factory.mktemp("lab")
    package, info = folder / "mmfw_lab", folder / "mmfw_lab-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    about = 'from mmfw import PluginInfo\n\nMMFW_PLUGIN = PluginInfo(name="toy", hook_api=(1, 0))\n'
    (package / "toy.py").write_text((TOY / "toy.py").read_text() + about)
    for name, text in POLICIES.items():
        acts_on = '("absent",)' if name == "elsewhere" else "()"
        (package / f"{name}.py").write_text(POLICY.format(name=name, acts_on=acts_on) + text)
    (package / "policy-sets.toml").write_text(
        '[sets.lab-set]\npolicies = "quiet+elsewhere"\ndescription = "one that acts and one that does not"\n'
    )
    entries = "".join(f"{name} = mmfw_lab.{name}\n" for name in POLICIES)
    (info / "entry_points.txt").write_text(
        f"[mmfw.shrinkers]\ntoy = mmfw_lab.toy\n\n[mmfw.policies]\n{entries}\n[mmfw.policy_sets]\nlab = mmfw_lab\n"
    )
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mmfw-lab\nVersion: 1.0\nSummary: of the lab\n"
    )
    (folder / "lab-loop.toml").write_text(SCENARIO)
    return folder


@pytest.fixture
def lab(lab_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The distribution installed; gives the scenario's file."""
    monkeypatch.syspath_prepend(str(lab_folder))
    yield lab_folder / "lab-loop.toml"
    for name in [each for each in sys.modules if each.partition(".")[0] == "mmfw_lab"]:
        del sys.modules[name]


@pytest.fixture
def mmfw_lab(lab_folder: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line with the distribution installed, in a process of its own."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        # A shell has its background jobs ignore Ctrl-C, and what they start inherits that.
        heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        return subprocess.run(
            [sys.executable, "-c", f"{heeds}; from mmfw.cli import main; main()", *map(str, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(lab_folder), str(ROOT / "core")]),
                "LAB_MARKER": str(tmp_path / "marker"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return call
