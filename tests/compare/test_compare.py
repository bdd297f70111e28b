"""A study: what runs, what is reused, what a run that fails costs, and what the cells say."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mmfw.compare import CompareRequest, compare, store
from mmfw.compare.execute import Job, batches
from mmfw.compare.model import Comparison
from mmfw.compare.plan import PlannedRun, make_plan
from mmfw.compare.store import StudyFolder, folder_name
from mmfw.errors import InputError
from mmfw.policies import parse_policy
from mmfw.results import read_run
from mmfw.run import run

pytest.importorskip("scipy")
pytest.importorskip("pyarrow")


def request(lab: Path, out: Path, *policies: str, **changes: object) -> CompareRequest:
    base = CompareRequest(scenarios=(str(lab),), policies=policies, nr_seeds=2, out=out, jobs=2, short=True)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_cells_are_of_the_runs_and_paired_by_seed(lab: Path, tmp_path: Path) -> None:
    found = compare(request(lab, tmp_path / "out", "quiet", nr_seeds=5))
    assert found.missing == ()
    cells = {(cell.policy, cell.metric): cell for cell in found.cells}
    quiet, mainline = cells["quiet", "toy_evictions"], cells["mainline", "toy_evictions"]
    assert quiet.seeds == mainline.seeds == (0, 1, 2, 3, 4)
    for planned in make_plan(request(lab, tmp_path, "quiet", nr_seeds=5))[0].runs:
        if planned.seed == 3:
            values = cells[planned.policies, "toy_evictions"].values
            assert run(planned.request).metrics["toy_evictions"] == values[3]
    assert quiet.vs_mainline is not None
    differences = [a - b for a, b in zip(quiet.values, mainline.values, strict=True)]  # type: ignore[operator]
    assert quiet.vs_mainline.median_difference == sorted(differences)[2] < 0
    assert quiet.vs_mainline.ci == (min(differences), max(differences))
    assert (quiet.verdict, quiet.primary, quiet.better) == ("better", True, "lower")
    assert (mainline.verdict, mainline.vs_mainline) == (None, None)
    assert cells["quiet", "unfairness"].median is None
    assert cells["quiet", "kswapd_wakes_order_9"].values == tuple(
        read_run(tmp_path / "out" / each.path).document.kswapd_wakes_by_order.get("9", 0)
        for each in found.runs
        if each.policy == "quiet"
    )
    document = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert Comparison.model_validate(document) == found
    assert "seconds" not in json.dumps(document)


def test_a_policy_that_changes_nothing_here_shares_runs_and_is_said_to(lab: Path, tmp_path: Path) -> None:
    found = compare(
        request(lab, tmp_path / "out", "elsewhere", "lab-set", "quiet", "quiet+elsewhere", nr_seeds=1)
    )
    applies = {each.policy: each for each in found.applicability}
    why = "elsewhere acts only on absent, which the scenario does not load"
    assert (applies["elsewhere"].acts, applies["elsewhere"].runs_as) == (False, "mainline")
    assert (applies["lab-set"].acts, applies["lab-set"].runs_as, applies["lab-set"].why) == (
        True,
        "quiet",
        why,
    )
    assert (applies["quiet"].acts, applies["quiet"].why) == (True, "")
    places = {each.policy: each.path for each in found.runs}
    assert places["elsewhere"] == places["mainline"]
    assert places["lab-set"] == places["quiet"] == places["quiet+elsewhere"]
    assert sorted(os.listdir(tmp_path / "out" / "runs" / "lab-loop")) == ["mainline", "quiet"]


def test_what_is_done_is_not_run_again_and_what_came_of_other_inputs_is(lab: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare(request(lab, out, "quiet"))
    before = (out / "compare.json").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/manifest.json")}
    said: list[str] = []
    compare(request(lab, out, "quiet"), remark=said.append)
    assert (out / "compare.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert said == []
    # Of one the manifest is damaged; one is of another scenario text, one gone.
    runs = out / "runs" / "lab-loop"
    (runs / "mainline" / "seed-1" / "manifest.json").write_text("{")
    manifest = runs / "quiet" / "seed-0" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"scenario_sha256":"', '"scenario_sha256":"0'))
    manifest.write_text(manifest.read_text().replace('"scenario_sha256": "', '"scenario_sha256": "0'))
    shutil.rmtree(runs / "quiet" / "seed-1")
    compare(request(lab, out, "quiet"), remark=said.append)
    assert said == [
        f"1 of 4 runs in {out} made again, came of other inputs: runs/lab-loop/quiet/seed-0",
        f"1 of 4 runs in {out} made again, damaged: runs/lab-loop/mainline/seed-1",
    ]
    assert (out / "compare.json").read_bytes() == before


def test_what_an_answer_will_no_longer_tell_of_is_said(lab: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said: list[str] = []
    compare(request(lab, out, "quiet", "elsewhere", nr_seeds=2), remark=said.append)
    assert said == []
    compare(request(lab, out, "quiet", nr_seeds=1), remark=said.append)
    lost = "will no longer tell of elsewhere, 1 of its 2 seeds; the runs stay, and asking for them again brings them back"
    assert said == [f"{out / 'compare.json'} {lost}"]
    compare(request(lab, out, "quiet", "elsewhere", nr_seeds=3), remark=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("damage", ["", "{}", '"digest": "', None])
def test_a_damaged_run_is_made_again_and_the_answer_stays_meanwhile(
    lab: Path, tmp_path: Path, damage: str | None
) -> None:
    out = tmp_path / "out"
    compare(request(lab, out, "quiet"))
    answer = out / "compare.json"
    before, metrics = answer.read_bytes(), out / "runs" / "lab-loop" / "quiet" / "seed-1" / "metrics.json"
    whole = metrics.read_bytes()
    if damage is None:
        metrics.unlink()
    else:
        metrics.write_text(metrics.read_text().replace(damage, damage + "0") if ":" in damage else damage)
    there: list[bool] = []
    said: list[str] = []
    compare(request(lab, out, "quiet"), lambda progress: there.append(answer.exists()), said.append)
    assert said == [f"1 of 4 runs in {out} made again, damaged: runs/lab-loop/quiet/seed-1"]
    assert there
    assert all(there)
    assert answer.read_bytes() == before
    assert json.loads(metrics.read_text())["digest"] == json.loads(whole)["digest"]


def test_options_that_mean_the_same_share_runs(lab: Path, tmp_path: Path) -> None:
    plan, _ = make_plan(
        request(
            lab,
            tmp_path,
            "optional",
            "optional:loud=no",
            "optional:times=2:loud=yes",
            "optional:loud=1:times=2",
        )
    )
    assert [each.policies for each in plan.study.policies] == [
        "mainline",
        "optional",
        "optional",
        "optional:loud=true:times=2",
        "optional:loud=true:times=2",
    ]
    assert len(plan.runs) == 2 * 3


def test_a_run_that_fails_costs_that_run_only(lab: Path, tmp_path: Path) -> None:
    found = compare(
        request(lab, tmp_path / "out", "exits", "killed", "raises", "hungry", "quiet", nr_seeds=1, jobs=1)
    )
    errors = {each.policy: each.error for each in found.missing}
    assert errors == {
        "exits": "its process ended by itself, with status 7",
        "killed": "its process was ended by SIGKILL; this computer may have been short of memory",
        "raises": "plugin raises, mmfw_module_init: ValueError: no such thing",
        "hungry": "plugin hungry, mmfw_module_init: MemoryError",
    }
    assert all(each.command.endswith("--seed 0 --short") for each in found.missing)
    assert found.missing[0].command.startswith(f"mmfw run {lab} --policy exits ")
    assert {each.policy for each in found.runs} == {"mainline", "quiet"}
    assert {cell.policy for cell in found.cells if cell.values} == {"mainline", "quiet"}
    assert not list((tmp_path / "out").rglob("*mmfw-tmp*"))


def test_a_folder_is_one_process_s_and_holds_a_study_only(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_GRACE_SECONDS", 0.0)
    with StudyFolder(tmp_path / "out"), pytest.raises(InputError) as fault:
        compare(request(lab, tmp_path / "out", "quiet"))
    assert f"another mmfw compare (process {os.getpid()}) works on this folder" in str(fault.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for place in ("other", "file"):
        with pytest.raises(InputError, match="is there and is no study's folder"):
            compare(request(lab, tmp_path / place, "quiet"))
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        compare(request(lab, tmp_path / "file" / "x", "quiet"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policies": ("quit",)}, "no plugin 'quit'; did you mean 'quiet'?"),
        ({"policies": ("mainline",)}, "names nothing but mainline"),
        ({"policies": ("quiet:loud=1",)}, "params.quiet: plugin quiet takes no parameters"),
        ({"policies": ("optional:lod=1",)}, "params.optional.lod: no such key; did you mean 'loud'?"),
        ({"policies": ("optional:times=x",)}, "params.optional.times: Input should be a valid integer"),
        ({"scenarios": ("webgl-aquariumm",)}, "no scenario 'webgl-aquariumm'"),
        ({"overrides": {"fish": 3}}, "--set fish: no such parameter"),
        (
            {"metrics": ("toy_evction",)},
            "--metric 'toy_evction': no scenario here has such a figure; did you mean",
        ),
        ({"kernel": "5.4"}, "kernel profile '5.4' is unknown"),
        ({"duration": "1"}, "'1' is no duration"),
        ({"nr_seeds": 0}, "--seeds 0: at least 1"),
        ({"least_effect": 1.0}, "--least-effect 1.0: a share of mainline's, from 0 to less than 1"),
        ({"least_effect": float("nan")}, "--least-effect nan: a share"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    lab: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as fault:
        compare(replace(request(lab, tmp_path / "out", "quiet"), **changes))  # type: ignore[arg-type]
    assert said in str(fault.value)
    assert os.listdir(tmp_path) == []


def test_policies_that_answer_one_decision_are_refused_before_anything_is_written(
    lab: Path, tmp_path: Path
) -> None:
    files = []
    for name in ("b1", "b2"):
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text(
            "from mmfw import hookimpl\n\n\n@hookimpl\ndef mmfw_should_shrink_slab():\n    return False\n"
        )
    with pytest.raises(InputError, match="policies 'b1' and 'b2' both answer mmfw_should_shrink_slab"):
        compare(request(lab, tmp_path / "out", "quiet", "+".join(map(str, files))))
    assert not (tmp_path / "out").exists()


def test_two_scenarios_of_one_name_are_refused(lab: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text(lab.read_text())
    with pytest.raises(InputError, match="two of the scenarios are named 'lab-loop'"):
        make_plan(request(lab, tmp_path, "quiet", scenarios=(str(lab), str(copy))))


def test_figures_asked_for_are_compared_too(lab: Path, tmp_path: Path) -> None:
    found = compare(request(lab, tmp_path / "out", "quiet", nr_seeds=1, metrics=("pgscan_kswapd",)))
    (cell,) = [each for each in found.cells if (each.policy, each.metric) == ("quiet", "pgscan_kswapd")]
    assert (cell.unit, cell.better, cell.primary) == ("pages", "lower", False)
    assert cell.vs_mainline is not None
    assert (cell.ci, cell.verdict, cell.vs_mainline.nr_pairs) == (None, None, 1)


def test_batches_share_a_state_and_keep_all_processes_busy(lab: Path, tmp_path: Path) -> None:
    plan, _ = make_plan(request(lab, tmp_path, "quiet", "optional", "raises", nr_seeds=3))
    jobs = [Job(each, tmp_path) for each in plan.runs]
    assert len(jobs) == 12
    for nr_processes in (1, 2, 8):
        found = batches(jobs, nr_processes)
        assert [job for batch in found for job in batch] == jobs
        assert all(len({job.planned.seed for job in batch}) == 1 for batch in found)
        assert len(found) >= (3 if nr_processes == 1 else min(12, 2 * nr_processes))
    assert batches([], 2) == []


def test_compositions_become_folders_one_to_one() -> None:
    assert folder_name("a:x=1+b") == "a,x=1+b"
    odd = [folder_name(f"a:x={text}") for text in ("/", "..", "ä", "_", "x" * 300, "x" * 301)]
    assert len(set(odd)) == len(odd)
    assert all("/" not in name and len(name) < 200 for name in odd)


def test_planned_runs_are_what_their_manifests_say(lab: Path, tmp_path: Path) -> None:
    plan, _ = make_plan(request(lab, tmp_path, "optional:times=3", overrides={"page_cache_pages": 10_000}))
    planned: PlannedRun = plan.runs[-1]
    assert planned.policies == "optional:times=3"
    run(replace(planned.request, out=tmp_path / "a"))
    assert read_run(tmp_path / "a").manifest.inputs() == planned.inputs
    assert planned.request.policies == parse_policy("optional:times=3")
