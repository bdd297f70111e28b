from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mmfw.cli import main
from mmfw.scenario import load_scenario
from mmfw.sched import TaskState
from mmfw_probe.plugin import mmfw_register_metrics, mmfw_register_workloads
from mmfw_probe.workloads import FillParams, HogParams, LoopParams, loads_of

LOADS = {load.name: load for load in mmfw_register_workloads()}
FILL = ("probe-fill", "leave_pages = 8000\nkeep_pfn_multiple = 16")
OBJECTS = ("probe-objects", "objects = 40\nsteps = 300\nstart_ms = 100")


@pytest.fixture
def run(capsys, tmp_path):
    """Run a scenario of some workloads by ``mmfw run``: its status and JSON document."""

    def call(*loads, duration="600ms", more=()):
        text = 'name = "t"\ndescription = "t"\nplugins = ["probe"]\nmachine = "256M"\n'
        for name, params in loads:
            text += f'[[workloads]]\nname = "{name}"\n[workloads.params]\n{params}\n'
        path = tmp_path / "t.toml"
        path.write_text(text)
        with pytest.raises(SystemExit) as done:
            main(["run", str(path), "--duration", duration, "--format", "json", *more])
        out, err = capsys.readouterr()
        return done.value.code, json.loads(out) if out else err

    return call


def free_at_start(document):
    return sum(n << order for zone in document["buddyinfo_before"].values() for order, n in enumerate(zone))


def test_a_fill_keeps_a_sixteenth(run):
    status, document = run(FILL)
    assert (status, document["leak_checked"]) == (0, True)
    before, metrics = free_at_start(document), document["metrics"]
    assert metrics["nr_free_pages_end"] == pytest.approx(before - (before - 8000) / 16, abs=200)
    assert document["shrinker_calls"].keys().isdisjoint({"probe_gpu"})


def test_a_hog_keeps_what_it_did_not_punch(run, machine, free_pages):
    status, document = run(("probe-hog", "megabytes = 32\npunch = 4"))
    assert (status, document["leak_checked"]) == (0, True)
    mm = machine(start=True)
    before = free_pages(mm)
    params = HogParams(megabytes=32, punch=4)
    mm.sched.spawn(LOADS["probe-hog"].run, mm, params, name="probe-hog", daemon=True)
    mm.sched.run(2_000_000_000)
    # Pages and page tables of the mapping; the process's directory, tables and pages; the shell's copies, the line it
    # wrote, and a page table of each.
    held = before - free_pages(mm) - (32 * 256 * 3 // 4 + 32 // 2) - (2 + 8) - (3 + 1 + 2)
    assert held in (12, 13, 14)


def test_objects_alone_are_never_evicted(run):
    status, document = run(("probe-objects", "objects = 10\nsteps = 100\ndelay_us = 100"))
    assert (status, document["leak_checked"]) == (0, True)
    metrics = document["metrics"]
    assert (metrics["probe_restores"], metrics["probe_evictions"]) == (10, 0)
    assert (metrics["probe_got9"], metrics["probe_fail9"]) == (10, 0)
    assert metrics["probe_free_pages_at_eviction_median"] == 0
    # Their steps are over long before the run, yet they are still there.
    assert metrics["nr_free_pages_end"] == pytest.approx(free_at_start(document) - 5120, abs=100)


def test_objects_on_fragmented_memory_are_evicted_and_restored(run):
    status, document = run(FILL, OBJECTS)
    assert (status, document["leak_checked"]) == (0, True)
    metrics = document["metrics"]
    assert 0 < metrics["probe_evictions"] < metrics["probe_restores"] <= metrics["probe_evictions"] + 40
    assert metrics["probe_fail9"] > 0
    assert metrics["probe_free_pages_at_eviction_median"] > 8000
    assert document["shrinker_calls"]["probe_gpu"]["freed"] == metrics["probe_evictions"] * 512


@pytest.mark.parametrize("duration", ["1us", "1ms", "20ms"])
def test_a_run_that_ends_amid_the_loads_work_loses_no_page(run, duration):
    loads = FILL, ("probe-hog", "megabytes = 16\npunch = 2"), ("probe-objects", "steps = 100000")
    status, document = run(*loads, duration=duration)
    assert (status, document["leak_checked"]) == (0, True)


def test_same_seed_same_digest(run):
    digests = [run(FILL, OBJECTS, more=("--seed", seed))[1]["digest"] for seed in ("1", "1", "2")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("fill_first", [True, False])
def test_objects_wait_for_the_fill(machine, fill_first):
    mm = machine(start=True)
    starts = [
        (LOADS["probe-fill"], FillParams(leave_pages=8000)),
        (LOADS["probe-objects"], LoopParams(objects=4, steps=8, start_ms=1)),
    ]
    for load, params in starts if fill_first else reversed(starts):
        mm.sched.spawn(load.run, mm, params, name=load.name, daemon=True)
    loads, filled_at = loads_of(mm), 0
    for ms in range(1, 400):
        mm.sched.run(ms * 1_000_000)
        if loads.nr_filling:
            assert loads.loops == []
            filled_at = ms
    assert filled_at > 2  # the first wait alone would not have done
    (loop,) = loads.loops
    assert loop.counts.restores >= 4


def test_without_a_wait_objects_start_at_once(machine):
    mm = machine(start=True)
    mm.sched.spawn(LOADS["probe-objects"].run, mm, LoopParams(objects=2, steps=2), name="o", daemon=True)
    mm.sched.run(3_000_000)
    assert loads_of(mm).loops[0].counts.restores == 2


def test_metrics_are_summed_over_loops(machine):
    mm = machine(start=True)
    metrics = {metric.name: metric for metric in mmfw_register_metrics()}
    assert {name: metric.read(mm) for name, metric in metrics.items()} == dict.fromkeys(metrics, 0)
    tasks = [
        mm.sched.spawn(LOADS["probe-objects"].run, mm, LoopParams(objects=n, steps=n), name="o", daemon=True)
        for n in (2, 3)
    ]
    mm.sched.run(20_000_000)
    assert (metrics["probe_restores"].read(mm), metrics["probe_got9"].read(mm)) == (5, 5)
    for task in tasks:
        mm.sched.send_sigkill(task)
    mm.sched.run(mm.sched.now + 1_000_000)
    assert [task.state for task in tasks] == [TaskState.DEAD] * 2
    assert not [each for each in mm.shrinkers if each.ops.name == "probe_gpu"]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("probe-fill", FillParams(leave_pages=20_000)),
        ("probe-hog", HogParams(megabytes=16, punch=4)),
        ("probe-objects", LoopParams(objects=8, steps=8)),
    ],
)
def test_a_killed_load_gives_its_memory_back(machine, free_pages, unowned, name, params):
    mm = machine(start=True)
    before, kept = free_pages(mm), unowned(mm)
    task = mm.sched.spawn(LOADS[name].run, mm, params, name=name, daemon=True)
    mm.sched.run(2_000_000_000)
    assert free_pages(mm) < before - 1000
    mm.sched.send_sigkill(task)
    mm.sched.run(2_100_000_000)
    assert (task.state, free_pages(mm), unowned(mm)) == (TaskState.DEAD, before, kept)
    assert mm.memory.vmas == ()


@pytest.mark.parametrize(
    ("load", "params", "says"),
    [
        ("probe-fill", "keep_pfn_multiple = 0", "keep_pfn_multiple"),
        ("probe-fill", "leave = 3", "leave_pages"),
        ("probe-hog", "megabytes = 0", "megabytes"),
        ("probe-objects", "start_ms = -1", "start_ms"),
        ("probe-object", "", "probe-objects"),
    ],
)
def test_wrong_parameters_are_wrong_input(run, load, params, says):
    status, message = run((load, params))
    assert status == 2
    assert says in message


def test_defaults_are_those_of_the_captures():
    assert LoopParams().model_dump() == {"objects": 60, "steps": 3000, "delay_us": 1000, "start_ms": 0}
    assert (FillParams().keep_pfn_multiple, HogParams().punch) == (16, 2)
    with pytest.raises(ValidationError):
        HogParams(punch=-1)


# --- the scenario --------------------------------------------------------------------------------------


def test_scenario_says_what_the_capture_is():
    scenario = load_scenario("object-loop")
    assert (scenario.machine, scenario.kernel, scenario.nr_cpus, scenario.costs) == ("1G", "6.1", 1, "tcg")
    assert scenario.default_for == ["probe"]
    fill, objects = scenario.workloads
    assert FillParams.model_validate(fill.params) == FillParams(leave_pages=4000, keep_pfn_multiple=16)
    assert LoopParams.model_validate(objects.params) == LoopParams(start_ms=1000)
    assert set(objects.params) == set(LoopParams().model_dump())  # every parameter is stated in the file


def test_scenario_is_what_runs_for_the_plugin_and_evicts(capsys):
    with pytest.raises(SystemExit) as done:
        main(["run", "--plugins", "probe", "--duration", "1300ms", "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert (done.value.code, document["scenario"], document["leak_checked"]) == (0, "object-loop", True)
    metrics = document["metrics"]
    assert metrics["probe_evictions"] > 50
    assert metrics["probe_fail9"] > 20
    # Most of the machine is free all the while: 200853 pages at the captured evictions, median.
    assert metrics["probe_free_pages_at_eviction_median"] > 190_000
    assert document["kswapd_wakes_by_order"].keys() == {"9"}
