"""Each scenario is what its file says, and shows under mainline what it is there to show."""

from __future__ import annotations

import json

import pytest

from mmfw.errors import InputError
from mmfw.figures import check_names
from mmfw.plugins import load
from mmfw.run import RunRequest, run
from mmfw.scenario import find_scenarios, load_scenario

NAMES = ("copy-vs-xe", "order0-pressure", "ping-pong", "xe-vs-dcache")
MIB_PER_PAGE = 4 / 1024


def short(name: str, **overrides):
    return run(RunRequest(scenario=name, short=True, overrides=overrides))


def test_they_are_all_found_here():
    ours = {name for name, file in find_scenarios().items() if file.origin == "mmfw-scenarios"}
    assert ours == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_load_takes_the_parameters_it_is_given(name):
    scenario = load_scenario(name)
    offered = load(list(scenario.plugins)).workloads()
    for spec in scenario.workloads:
        params = offered[spec.name].params
        assert params is not None
        assert set(spec.params) <= set(params.model_fields)
        params.model_validate(spec.params)
    check_names(scenario.metrics, scenario.progress, load(list(scenario.plugins)).metrics())


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_or_is_called_an_assumption(name):
    text = find_scenarios()[name].text
    assert "ssumption" in text
    assert "source:" in text or "Assumption throughout" in text


def test_the_sizes_that_make_two_loads_110_percent_of_memory():
    scenario = load_scenario("ping-pong")
    client, stream = scenario.workloads
    managed = 2_007_000
    objects = client.count * client.params["working_set_pages"]
    file = stream.params["size_gib"] * 262_144
    assert objects / managed == pytest.approx(0.55, abs=0.005)
    assert file / managed == pytest.approx(0.55, abs=0.005)


def test_a_client_more_than_swap_holds_is_refused_in_one_line():
    with pytest.raises(InputError, match="no such parameter"):
        short("copy-vs-xe", client=3)


@pytest.mark.slow
def test_a_copy_evicts_objects_again_and_again_with_memory_free():
    result = short("copy-vs-xe")
    _, copy = result.phases
    copied = copy.metrics["page_cache_copy_copied_pages"]
    assert copied * MIB_PER_PAGE > 300
    # More pages of objects go than the copy brings in, though nobody is short of single pages.
    assert copy.metrics["xe_bo_evicted_pages"] > copied
    assert copy.metrics["xe_bo_restores"] > 100
    assert result.metrics["nr_free_pages_median"] > 200_000
    assert result.metrics["order_0_failures"] == result.metrics["oom_kills"] == 0
    assert {"8", "9"} <= result.kswapd_wakes_by_order.keys()


@pytest.mark.slow
def test_dentries_and_inodes_go_for_blocks_that_they_cannot_give():
    result = short("xe-vs-dcache")
    metrics = result.metrics
    assert metrics["dcache_objects_freed"] > 100_000
    # A page of slab holds about 8 of these objects; hardly any came back whole.
    assert metrics["dcache_slab_pages_freed"] < 0.15 * metrics["dcache_objects_freed"]
    assert metrics["dcache_misses"] > 0.05 * metrics["dcache_lookups"]
    assert metrics["nr_free_pages_min"] > 500_000
    assert metrics["contiguity_yield"] in (None, pytest.approx(0, abs=0.05))


@pytest.mark.slow
def test_two_loads_of_110_percent_evict_one_another():
    result = short("ping-pong")
    assert result.metrics["xe_bo_evictions"] > 300
    assert result.metrics["xe_bo_restores"] > 300
    assert result.vmstat["workingset_refault_file"] > 10_000


@pytest.mark.slow
def test_the_control_is_short_of_single_pages_and_kills_nobody():
    result = short("order0-pressure")
    metrics = result.metrics
    assert metrics["nr_free_pages_end"] < 150_000
    assert metrics["xe_bo_evictions"] > 100
    assert metrics["oom_kills"] == metrics["order_0_failures"] == 0
    assert "0" in result.kswapd_wakes_by_order


def test_the_same_seed_gives_the_same_digest():
    request = RunRequest(scenario="order0-pressure", duration="300ms")
    first, second = run(request), run(request)
    assert json.dumps(first.phases) == json.dumps(second.phases)
    assert first.digest == second.digest


def test_a_reader_whose_folio_reclaim_took_reads_on():
    """It holds no reference to the folio whose readahead mark it met; on this machine that once read beyond memory."""
    result = run(RunRequest(scenario="ping-pong", machine="1G", duration="40ms"))
    assert result.metrics["page_cache_copy_streamed_pages"] > 0
