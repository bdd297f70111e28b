"""What the policy makes of the dentry and inode caches' shrinker, and that it does nothing else."""

from __future__ import annotations

import pytest

from mmfw.run import RunRequest, run

pytest.importorskip("mmfw_dcache", reason="needs mmfw-dcache")


def mixed(*plugins: str, **overrides: object):
    """The scenario on 256 MiB: one file in fifty held, a fifth of the objects reclaimed twice."""
    small = {"files": 40_000, "pinned_percent": 2, "percent": 20}
    return run(
        RunRequest(
            scenario="slab-mixed-lifetimes",
            machine="256M",
            plugins=plugins,
            overrides={**small, **overrides},
        )
    )


def test_it_is_the_option_of_dcache_and_not_mainline():
    policy = mixed("slab-page-reclaim")
    assert policy.digest == mixed(slab_page_reclaim=True).digest
    assert policy.digest != mixed().digest
    assert policy.leak_checked


def test_options_reach_the_caches_and_more_pages_come_with_each_object():
    plain = mixed()
    policy = mixed("slab-page-reclaim", **{"slab-page-reclaim.sparse_percent": 100})
    assert policy.digest == mixed(slab_page_reclaim=True, slab_page_percent=100).digest
    yields = []
    for result in (plain, policy):
        reclaim = result.phases[1]
        assert reclaim.metrics["dcache_objects_freed"] > 15_000
        yields.append(reclaim.metrics["dcache_slab_pages_freed"] / reclaim.metrics["dcache_objects_freed"])
    assert yields[1] > 1.4 * yields[0]


WITHOUT_DCACHE = """
name = "no-dcache"
description = "anonymous memory beyond RAM"
plugins = ["demand"]
machine = "256M"
nr_swap_pages = 100000
duration = "1s"

[[workloads]]
name = "anon-pressure"
[workloads.params]
percent_of_ram = 110
pages_per_second = 100000
"""


def test_a_run_without_the_caches_is_mainlines(tmp_path):
    pytest.importorskip("mmfw_demand", reason="needs mmfw-demand")
    scenario = tmp_path / "no-dcache.toml"
    scenario.write_text(WITHOUT_DCACHE)
    plain, policy = (
        run(RunRequest(scenario=str(scenario), plugins=names)) for names in ((), ("slab-page-reclaim",))
    )
    assert plain.vmstat["pswpout"] > 0
    assert policy.digest == plain.digest


IDLE = """
name = "idle"
description = "a cache that nobody reclaims"
plugins = ["dcache"]
machine = "256M"
duration = "100ms"

[params.dcache]
initial_files = 20000

[[workloads]]
name = "stat-storm"
"""


def test_a_run_without_reclaim_is_mainlines(tmp_path):
    scenario = tmp_path / "idle.toml"
    scenario.write_text(IDLE)
    plain, policy = (
        run(RunRequest(scenario=str(scenario), plugins=names)) for names in ((), ("slab-page-reclaim",))
    )
    assert plain.metrics["dcache_lookups"] > 0
    assert policy.digest == plain.digest
