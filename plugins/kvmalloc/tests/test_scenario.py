from __future__ import annotations

import json

import pytest

from mmfw.cli import main
from mmfw.scenario import load_scenario
from mmfw_kvmalloc.storm import StormParams


def test_the_storm_is_that_of_scenario_h1():
    scenario = load_scenario("kvmalloc-storm")
    (load,) = [each for each in scenario.workloads if each.name == "kvmalloc-storm"]
    params = StormParams.model_validate(load.params)
    assert load.count * params.calls_per_second == 10_000
    assert (params.min_kib, params.max_kib, params.short_lived_percent) == (16, 256, 50)


@pytest.mark.slow
def test_the_old_rule_stalls_callers_and_the_new_one_falls_back(capsys):
    found = {}
    for rules in ("6.1", "6.16"):
        with pytest.raises(SystemExit) as done:
            main(["run", "kvmalloc-storm", "--short", "--set", f"kvmalloc.rules={rules}", "--format", "json"])
        document = json.loads(capsys.readouterr().out)
        assert (done.value.code, document["leak_checked"]) == (0, True)
        found[rules] = document
    old, new = found["6.1"], found["6.16"]
    assert old["metrics"]["kvmalloc_calls"] == new["metrics"]["kvmalloc_calls"] == 30_000
    assert old["vmstat"]["compact_stall"] > new["vmstat"]["compact_stall"] == 0
    assert old["metrics"]["kvmalloc_time_us"] > new["metrics"]["kvmalloc_time_us"]
    assert old["metrics"]["kvmalloc_vmalloc_fallbacks"] < new["metrics"]["kvmalloc_vmalloc_fallbacks"]
    # Either way kswapd is woken for the order, and the cache pays.
    for document in (old, new):
        assert document["kswapd_wakes_by_order"]["6"] > 20
        assert document["metrics"]["kvmalloc_failures"] == 0
