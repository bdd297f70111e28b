"""One run of a second, and studies that are made of copies of it: what is compared in them is given, not computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.compare.model import (
    Applicability,
    Cell,
    Comparison,
    MissingRun,
    RunReference,
    Study,
    StudyPolicy,
    StudyScenario,
    Verdict,
    VsMainline,
)
from mmfw.offers import Better
from mmfw.results import RunDirectory, read_run
from mmfw.run import RunRequest, run

HOSTILE = "p</script><script>document.title='owned'</script><b>"
SCENARIO = "ttm-order8-pair"
POLICIES = ("mainline", "elide-shrink-slab", HOSTILE, "fails", "idle")


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow")
    pytest.importorskip("plotly")
    pytest.importorskip("jinja2")
    folder = tmp_path_factory.mktemp("runs") / "one"
    run(RunRequest(scenario=SCENARIO, duration="1s", out=folder))
    return folder


@pytest.fixture
def run_folder(made_run: Path, tmp_path: Path) -> Path:
    """A run directory that a test may damage."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))


@pytest.fixture
def study_folder(made_run: Path, tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", made_run)


def _cell(
    policy: str, metric: str, better: Better, verdict: Verdict | None, difference: float, *, primary: bool
) -> Cell:
    baseline = policy == "mainline"
    versus = VsMainline(
        median_difference=difference,
        ci=(difference - 1, difference + 1),
        level=0.875 if verdict is None else 0.9375,
        ratio=1.5,
        ratio_ci=(1.25, 1.75),
        nr_pairs=4 if verdict is None else 5,
    )
    return Cell(
        scenario=SCENARIO,
        policy=policy,
        metric=metric,
        unit="1" if metric == "success_ratio_order_9" else "pages",
        kind="share" if metric == "success_ratio_order_9" else None,
        better=better,
        description=f"what {metric} is",
        primary=primary,
        seeds=(0, 1, 2, 3, 4),
        values=(1, 2, 3, 4, 5),
        median=3,
        ci=(1, 5),
        level=0.9375,
        vs_mainline=None if baseline else versus,
        verdict=None if baseline else verdict,
    )


def _cells(policy: str) -> list[Cell]:
    if policy == "fails":
        return []
    return [
        _cell(policy, "working_set_loss_pages", "lower", "better", -7.0, primary=True),
        _cell(policy, "success_ratio_order_9", "higher", "worse", -3.0, primary=False),
        _cell(policy, "free_blocks_order_9", "higher", None, 0.5, primary=False),
        _cell(policy, "nr_free_pages_end", "neither", "different", 9.0, primary=False),
    ]


def write_study(
    folder: Path, run_folder: Path, change: Callable[[Comparison], Comparison] = lambda c: c
) -> Path:
    """A study of one scenario: one policy's folder is gone, one failed, one does not act, one has an odd name."""
    one: RunDirectory = read_run(run_folder)
    places = {
        "mainline": "runs/a/seed-0",
        "elide-shrink-slab": "runs/b/seed-0",
        HOSTILE: "runs/b/seed-0",
        "idle": "runs/a/seed-0",
    }
    for place in set(places.values()):
        shutil.copytree(run_folder, folder / place)
    inputs = one.manifest
    study = Study(
        format=1,
        command=("mmfw", "compare", SCENARIO, "--policies", f"elide-shrink-slab,{HOSTILE}", "--seeds", "5"),
        scenarios=(
            StudyScenario(
                name=SCENARIO, source=SCENARIO, sha256=inputs.scenario_sha256, kernel="7.1", costs=inputs.costs,
                costs_sha256=inputs.costs_sha256, description="two buddies", metrics=("working_set_loss_pages",),
                primary=("working_set_loss_pages",),
            ),
        ),
        policies=tuple(StudyPolicy(name=name, policies=name, description="") for name in POLICIES),
        seeds=(0, 1, 2, 3, 4), short=False, duration="1s", kernel=None, overrides={}, mmfw=inputs.mmfw,
        python=inputs.python, numpy=inputs.numpy, numba=inputs.numba, scipy="1", distributions=inputs.distributions,
    )  # fmt: skip
    comparison = Comparison(
        format=1,
        study=study,
        method="By hand.",
        cells=tuple(cell for policy in POLICIES for cell in _cells(policy)),
        applicability=(
            Applicability(
                scenario=SCENARIO,
                policy="idle",
                acts=False,
                runs_as="mainline",
                why="idle acts only on nothing",
            ),
        ),
        runs=tuple(
            RunReference(scenario=SCENARIO, policy=policy, seed=0, path=place, digest="d" * 64)
            for policy, place in places.items()
        ),
        missing=(
            MissingRun(scenario=SCENARIO, policy="fails", seed=3, error="it broke", command="mmfw run x"),
        ),
    )
    (folder / "study.json").write_text(study.model_dump_json())
    (folder / "compare.json").write_text(change(comparison).model_dump_json())
    return folder
