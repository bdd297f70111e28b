"""A whole run, from a scenario file and a single-file plugin to the digest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from numba.core.compiler_lock import global_compiler_lock

from mmfw.errors import InputError, PluginError
from mmfw.plugins import load
from mmfw.result import CORE_VALIDATED, NOT_MODELLED
from mmfw.run import RunRequest, choose_scenario, run
from mmfw.sched import LivelockError
from mmfw.watchdog import compiling

README = Path(__file__).parents[1] / "README.md"
TOY = Path(__file__).parent / "data" / "toy"


def request(**changes) -> RunRequest:
    return RunRequest(**{"scenario": str(TOY / "toy-loop.toml"), "plugin_files": (TOY / "toy.py",)} | changes)


@pytest.fixture(scope="module")
def result():
    return run(request())


def test_the_toy_loop_evicts_with_most_memory_free(result):
    assert result.metrics["toy_evictions"] > 0
    assert result.metrics["nr_free_pages_min"] > 60_000
    assert result.kswapd_wakes_by_order.keys() <= {"4", "9"}
    assert sum(result.kswapd_wakes_by_order.values()) == result.metrics["kswapd_wakes"] > 0


def test_buddyinfo_at_the_start_is_the_scenarios(result):
    assert result.buddyinfo_before["DMA32"] == [4000, 4000, 6000, 11000, 0, 0, 0, 0, 0, 0, 0]
    assert result.buddyinfo != result.buddyinfo_before


def test_the_same_seed_gives_the_same_digest_and_another_seed_another(result):
    assert run(request()).digest == result.digest
    assert run(request(seed=1)).digest != result.digest


def test_the_digest_is_the_same_in_another_process_with_another_hash_seed(result):
    program = (
        "from pathlib import Path\n"
        "from mmfw.run import RunRequest, run\n"
        f"toy = Path({str(TOY)!r})\n"
        "request = RunRequest(scenario=str(toy / 'toy-loop.toml'), plugin_files=(toy / 'toy.py',))\n"
        "print(run(request).digest)\n"
    )
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=_env(seed)
        )
        assert out.stdout.strip() == result.digest


def _env(hash_seed: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONHASHSEED": hash_seed}


def test_sanitizing_changes_nothing(result):
    assert run(request(sanitize=True)).digest == result.digest


def test_progress_reaches_the_end(result):
    seen = []
    run(request(duration="300ms"), lambda now, until: seen.append((now, until)))
    assert seen == [(100_000_000, 300_000_000), (200_000_000, 300_000_000), (300_000_000, 300_000_000)]


def test_the_json_has_the_names_scripts_rely_on(result):
    document = json.loads(json.dumps(result.as_json()))
    assert {
        "scenario", "kernel", "plugins", "policies", "seed", "virtual_seconds", "wall_seconds", "digest",
        "metrics", "vmstat", "buddyinfo", "kswapd_wakes_by_order",
    } <= document.keys()  # fmt: skip
    assert all(len(row) == 11 for row in document["buddyinfo"].values())


@pytest.mark.parametrize(
    ("kernel", "rest"),
    [
        ("6.1", ""),
        (
            "7.1",
            "; what the core of 7.1 does otherwise is modelled from its sources and not validated",
        ),
    ],
)
def test_the_result_says_what_of_it_is_validated(result, kernel, rest):
    document = replace(result, kernel=kernel).as_json()
    exact, _, compared = document["validated"].partition("; ")
    assert exact == "allocator, watermarks and do_shrink_slab() exact against 6.1.192"
    assert compared.startswith("reclaim and compaction compared with it, README says how far; ")
    said = f"{CORE_VALIDATED}; drivers modelled after {kernel}, not validated"
    assert document["validated"] == said + rest
    assert not any(word in line for line in document["not_modelled"] for word in ("compaction", "OOM"))


def test_the_readme_s_table_and_the_footer_leave_out_the_same():
    section = README.read_text().partition("## Not modelled")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")][1:]
    heads = [re.sub(r" \(.*?\)|:.*|`", "", row).strip() for row in rows]
    assert ", ".join(heads) == ", ".join(NOT_MODELLED)


def test_a_policy_in_a_file_stops_the_loop(result, tmp_path):
    policy = tmp_path / "quiet.py"
    policy.write_text(
        "from mmfw import WakePlan, hookimpl\n"
        "@hookimpl\n"
        "def mmfw_plan_wakeup(wake):\n"
        "    return WakePlan(kswapd_order=None) if wake.order else None\n"
    )
    quiet = run(request(plugin_files=(TOY / "toy.py", policy)))
    assert quiet.metrics["toy_evictions"] == 0
    assert quiet.kswapd_wakes_by_order == {}


def test_eliding_shrink_slab_keeps_the_objects_but_not_kswapd_asleep(result, tmp_path):
    policy = tmp_path / "elide.py"
    policy.write_text(
        "from mmfw import hookimpl\n"
        "@hookimpl\n"
        "def mmfw_should_shrink_slab(reclaim_context):\n"
        "    return False if reclaim_context.order else None\n"
    )
    elided = run(request(plugin_files=(TOY / "toy.py", policy)))
    assert elided.metrics["toy_evictions"] == 0
    assert sum(elided.kswapd_wakes_by_order.values()) > 0


def test_a_plugin_that_keeps_pages_is_named(tmp_path):
    leaky = tmp_path / "toy.py"
    leaky.write_text((TOY / "toy.py").read_text().replace("objects.drop(number)", "pass"))
    with pytest.raises(PluginError, match=r"plugin toy, mmfw_module_exit: \d+ pages were not given back"):
        run(request(plugin_files=(leaky,), duration="100ms"))


@pytest.mark.parametrize("kept", [0, 1])
def test_kmalloc_keeps_no_page_that_a_plugin_has_given_back(tmp_path, kept):
    keeping = tmp_path / "toy.py"
    source = (TOY / "toy.py").read_text()
    held = (
        "    cache = mm.slab.kmalloc_slab(192, gfp.GFP_KERNEL)\n"
        "    objects.kept = cache.kmem_cache_alloc_bulk(gfp.GFP_KERNEL, 50)\n"
    )
    given = f"    mm.slab.kmalloc_slab(192, gfp.GFP_KERNEL).kmem_cache_free_bulk(objects.kept[{kept}:])\n"
    source = source.replace("    objects = Objects(mm)\n", "    objects = Objects(mm)\n" + held)
    keeping.write_text(source + given)
    if kept:
        with pytest.raises(PluginError, match="plugin toy, mmfw_module_exit: 1 pages were not given back"):
            run(request(plugin_files=(keeping,), duration="10ms"))
    else:
        assert run(request(plugin_files=(keeping,), duration="10ms")).leak_checked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "5.4"}, "kernel profile '5.4' is unknown; known: 6.1, 7.1, 7.2"),
        ({"duration": "soon"}, "'soon' is no duration"),
        ({"machine": "12Q"}, "machine '12Q' is neither a RAM size"),
        ({"plugin_files": ()}, "no loaded plugin offers workload 'toy-loop'"),
        ({"overrides": {"toy.size": 1}}, "params.toy: plugin toy takes no parameters"),
        ({"overrides": {"toi.size": 1}}, "params.toi: no loaded plugin of that name takes parameters"),
        ({"machine": "256M"}, "state.buddyinfo"),
    ],
)
def test_what_cannot_be_run_says_what_would_be_right(changes, message):
    with pytest.raises(InputError) as fault:
        run(request(**changes))
    assert message in str(fault.value)


def test_a_fault_inside_a_plugins_scan_names_plugin_and_method(tmp_path):
    broken = tmp_path / "toy.py"
    broken.write_text((TOY / "toy.py").read_text().replace("return freed or SHRINK_STOP", "return 1 / 0"))
    with pytest.raises(PluginError, match=r"plugin toy, toy\.scan_objects: ZeroDivisionError"):
        run(request(plugin_files=(broken,)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "sc.nr_scanned = max(freed, sc.nr_to_scan)",
            'sc.nr_scanned = "many"',
            "plugin toy, toy.scan_objects: set nr_scanned to 'many'; an int >= 0 is wanted",
        ),
        (
            "sc.nr_scanned = max(freed, sc.nr_to_scan)",
            "sc.nr_scanned = 0\n        return 0",
            "plugin toy, toy.scan_objects: set nr_scanned to 0 in 10000 calls in a row, so that do_shrink_slab() "
            "would never end; return SHRINK_STOP where no progress is possible",
        ),
        (
            "sc.nr_scanned = max(freed, sc.nr_to_scan)",
            "raise SystemExit(0)",
            "plugin toy, toy.scan_objects: SystemExit: 0",
        ),
        (
            "self.mm.free_pages(pfn, order)",
            "self.mm.free_pages(5000, 0)",
            "plugin toy, toy.scan_objects: pfn 0x1388 is not an allocated block of order 0",
        ),
    ],
)
def test_a_shrinker_that_breaks_its_contract_is_named(old, new, message, tmp_path):
    broken = tmp_path / "toy.py"
    source = (TOY / "toy.py").read_text()
    assert old in source
    broken.write_text(source.replace(old, new))
    with pytest.raises(PluginError) as fault:
        run(request(plugin_files=(broken,)))
    assert str(fault.value) == message


def test_a_loop_that_lets_no_time_pass_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfw.watchdog.LOOK_SECONDS", 0.05)
    stuck = tmp_path / "toy.py"
    stuck.write_text((TOY / "toy.py").read_text().replace("mm.sched.nanosleep(1_000_000)", "pass"))
    with pytest.raises(
        LivelockError, match=r"task toy-loop-0-\d+ has kept the CPU .* neither sleeps nor charges"
    ):
        run(request(plugin_files=(stuck,)))


@pytest.mark.parametrize(
    ("plugins", "scenario"),
    [
        (["probe"], "object-loop"),
        (["xe", "ttm"], "webgl-aquarium"),
        (["probe", "ttm", "xe"], "webgl-aquarium"),
    ],
)
def test_the_scenario_for_most_of_the_plugins_is_chosen(plugins: list[str], scenario: str) -> None:
    assert choose_scenario(RunRequest(plugins=tuple(plugins)), load(plugins)).name == scenario


def test_a_loop_that_is_being_compiled_is_no_livelock():
    """A first use may take long on a busy computer."""
    before = compiling()
    with global_compiler_lock:
        during = compiling()
    assert (before, during, compiling()) == (False, True, False)
