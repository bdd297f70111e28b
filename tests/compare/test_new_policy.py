"""A policy is a folder of its own: written, installed, run, compared and gone, and no file beside it has changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytest.importorskip("scipy")
pytest.importorskip("pyarrow")
ROOT = Path(__file__).parents[2]

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mmfw-policy-brand-new"
version = "0.1.0"
description = "reclaim calls no shrinker"
dependencies = ["mmfw"]

[project.entry-points."mmfw.policies"]
brand-new = "mmfw_policy_brand_new"
"""
PLUGIN = '''
"""Reclaim calls no shrinker."""

from mmfw import PluginInfo, hookimpl

MMFW_PLUGIN = PluginInfo(name="brand-new", hook_api=(1, 0), kind="policy")


@hookimpl
def mmfw_should_shrink_slab():
    return False
'''


def state_of(*folders: Path) -> dict[str, str]:
    """Digests of all files that are no caches."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_a_new_policy_touches_nothing_but_its_folder(lab_folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "brand_new", tmp_path / "installed"
    (source / "src" / "mmfw_policy_brand_new").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "src" / "mmfw_policy_brand_new" / "__init__.py").write_text(PLUGIN)

    def call(*words: object, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, lab_folder, ROOT / "core")))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    def mmfw(*words: object, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        return call("-c", "from mmfw.cli import main; main()", *words, path=path)

    scenario = (lab_folder / "lab-loop.toml", "--duration", "300ms", "--format", "json")
    before = state_of(ROOT / "core" / "mmfw" / "mm", lab_folder)
    plain = mmfw("run", *scenario)
    assert plain.returncode == 0, plain.stderr
    pip = call(
        "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check",
        "--target", target, source,
    )  # fmt: skip
    assert pip.returncode == 0, pip.stderr

    there = (target,)
    assert "reclaim calls no shrinker" in mmfw("policies", "list", path=there).stdout
    before_it, changed = (
        json.loads(plain.stdout),
        json.loads(mmfw("run", *scenario, "--policy", "brand-new", path=there).stdout),
    )
    assert (changed["policies"], changed["metrics"]["toy_evictions"]) == (["brand-new"], 0)
    study = ("--policies", "brand-new", "--seeds", 1, "--out", tmp_path / "study")
    compared = mmfw("compare", *scenario, *study, path=there)
    assert compared.returncode == 0, compared.stderr
    document = json.loads(compared.stdout)
    digests = {each["policy"]: each["digest"] for each in document["runs"]}
    assert digests == {"mainline": before_it["digest"], "brand-new": changed["digest"]}
    assert len(set(digests.values())) == 2
    (cell,) = [
        each
        for each in document["cells"]
        if (each["policy"], each["metric"]) == ("brand-new", "toy_evictions")
    ]
    assert cell["values"] == [0]
    assert cell["vs_mainline"]["median_difference"] == -before_it["metrics"]["toy_evictions"]

    # Off the path it is gone.
    gone = mmfw("run", *scenario, "--policy", "brand-new")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert gone.stderr.startswith("mmfw: no plugin 'brand-new'")
    assert "brand-new" not in mmfw("policies", "list").stdout
    assert state_of(ROOT / "core" / "mmfw" / "mm", lab_folder) == before
