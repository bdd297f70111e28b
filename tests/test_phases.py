"""Phases: what runs when, and what each reports."""

from __future__ import annotations

import textwrap

import pytest

from mmfw.errors import InputError
from mmfw.run import RunRequest, run
from mmfw.scenario import parse_scenario

MS = 1_000_000
PLUGIN = """
from pydantic import BaseModel
from mmfw import Metric, PluginInfo, Workload, gfp, hookimpl

MMFW_PLUGIN = PluginInfo(name="steps", hook_api=(1, 0), kind="workload")
SEEN = []


class Params(BaseModel):
    steps: int = 0
    order: int = 2


def work(mm, params):
    done = 0
    while not params.steps or done < params.steps:
        mm.sched.nanosleep(10_000_000)
        pfn = mm.alloc_pages(gfp.GFP_KERNEL, params.order)
        mm.free_pages(pfn, params.order)
        done += 1
        counter(mm).n += 1


class Counter:
    n = 0


def counter(mm):
    if mm.attached.get(Counter) is None:
        mm.attached.put(Counter())
    return mm.attached.get(Counter)


@hookimpl
def mmfw_register_workloads():
    yield Workload("steps", "counts", run=work, params=Params)


@hookimpl
def mmfw_register_metrics():
    yield Metric("steps_done", "1", "counter", "higher", "steps", read=lambda mm: counter(mm).n)
    yield Metric("steps_gauge", "1", "gauge", "higher", "steps", read=lambda mm: counter(mm).n)
"""
HEAD = """
name = "phased"
description = "phases"
plugins = []
machine = "256M"
duration = "10s"
progress = "steps_done"
"""


@pytest.fixture
def run_toml(tmp_path):
    (tmp_path / "steps.py").write_text(PLUGIN)

    def run_it(body: str, **request):
        path = tmp_path / "phased.toml"
        path.write_text(HEAD + textwrap.dedent(body))
        return run(RunRequest(scenario=str(path), plugin_files=(tmp_path / "steps.py",), **request))

    return run_it


FINITE_THEN_TIMED = """
    [[phases]]
    name = "finite"
    [[phases]]
    name = "timed"
    duration = "200ms"
    short_duration = "50ms"
    [[workloads]]
    name = "steps"
    phase = "finite"
    params = { steps = 7, order = 3 }
    [[workloads]]
    name = "steps"
    phase = "timed"
    count = 2
    params = { order = 2 }
"""


def test_a_phase_ends_with_its_workloads_or_by_the_clock(run_toml):
    result = run_toml(FINITE_THEN_TIMED)
    finite, timed = result.phases
    assert [finite.name, timed.name] == ["finite", "timed"]
    assert 70 * MS <= finite.end_ns <= 71 * MS
    assert timed.end_ns - timed.start_ns == pytest.approx(200 * MS, abs=MS)
    assert result.virtual_ns == pytest.approx(timed.end_ns, abs=11 * MS)


def test_counters_are_differences_and_gauges_are_not(run_toml):
    finite, timed = run_toml(FINITE_THEN_TIMED).phases
    assert finite.metrics["steps_done"] == finite.metrics["steps_gauge"] == 7
    assert 36 <= timed.metrics["steps_done"] <= 40
    assert timed.metrics["steps_gauge"] == timed.metrics["steps_done"] + 7
    assert finite.requests == ((3, "CM", 7, 0),)
    assert timed.requests == ((2, "CM", timed.metrics["steps_done"], 0),)


def test_short_durations_are_used_where_they_are_given(run_toml):
    timed = run_toml(FINITE_THEN_TIMED, short=True).phases[1]
    assert timed.end_ns - timed.start_ns == pytest.approx(50 * MS, abs=MS)


def test_a_killed_workload_is_gone_before_the_next_phase_begins(run_toml):
    result = run_toml("""
        [[phases]]
        name = "first"
        duration = "25ms"
        [[phases]]
        name = "second"
        duration = "300ms"
        [[workloads]]
        name = "steps"
        phase = "first"
    """)
    first, second = result.phases
    assert (first.metrics["steps_done"], second.metrics["steps_done"]) == (2, 0)


def test_a_run_that_ends_early_reports_the_phase_it_cut(run_toml):
    result = run_toml(FINITE_THEN_TIMED, duration="100ms")
    assert [phase.name for phase in result.phases] == ["finite", "timed"]
    assert result.phases[1].end_ns == result.virtual_ns == 100 * MS


def test_a_cut_run_begins_no_phase_while_it_is_taken_down(run_toml):
    result = run_toml(FINITE_THEN_TIMED, duration="30ms")
    assert [phase.name for phase in result.phases] == ["finite"]
    assert result.phases[0].metrics["steps_done"] == result.metrics["steps_done"] == 2


def test_progress_is_per_virtual_second(run_toml):
    result = run_toml(FINITE_THEN_TIMED)
    done = result.metrics["steps_done"]
    assert result.metrics["forward_progress_per_second"] == pytest.approx(done * 1e9 / result.virtual_ns)


def test_two_runs_have_one_digest(run_toml):
    assert run_toml(FINITE_THEN_TIMED).digest == run_toml(FINITE_THEN_TIMED).digest


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('[[phases]]\nname = "a"\n', "phase 'a' has neither a duration nor a workload"),
        (
            '[[phases]]\nname = "a"\nduration = "1s"\n[[phases]]\nname = "a"\nduration = "1s"\n',
            "two are named 'a'",
        ),
        ('[[workloads]]\nname = "steps"\nphase = "b"\n', "workload steps: no phase 'b'"),
        ('[[phases]]\nname = "a"\nduration = "1 hour"\n', "'1 hour' is no duration"),
    ],
)
def test_phases_that_cannot_be_are_refused(body, message):
    with pytest.raises(InputError, match=message) as fault:
        parse_scenario(HEAD + body, "phased.toml")
    assert str(fault.value).startswith("phased.toml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'progress = "steps_don"',
            "progress: no loaded plugin has a counter 'steps_don'; did you mean 'steps_done'",
        ),
        ('progress = "steps_gauge"', "no loaded plugin has a counter 'steps_gauge'"),
        ('metrics = ["kswapd_wake"]', "metrics: no figure 'kswapd_wake'; did you mean 'kswapd_wakes'"),
    ],
)
def test_figures_that_nobody_has_are_refused(run_toml, monkeypatch, line, message):
    monkeypatch.setitem(globals(), "HEAD", HEAD.replace('progress = "steps_done"', line))
    with pytest.raises(InputError, match=message):
        run_toml('[[workloads]]\nname = "steps"\n')
