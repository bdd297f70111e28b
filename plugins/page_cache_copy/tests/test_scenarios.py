from __future__ import annotations

import json

import pytest

from mmfw.cli import main
from mmfw.scenario import load_scenario
from mmfw_page_cache_copy.copy import CopyParams


def run(capsys, *args):
    with pytest.raises(SystemExit) as done:
        main(["run", *args, "--format", "json"])
    return done.value.code, json.loads(capsys.readouterr().out)


def test_the_scenarios_parameters_are_those_that_were_proposed():
    scenario = load_scenario("file-copy")
    (load,) = [each for each in scenario.workloads if each.name == "file-copy"]
    params = CopyParams.model_validate(load.params)
    assert (params.size_gib, params.chunk_kib, params.read_ahead_kib) == (40, 1024, 4096)
    assert scenario.progress == "page_cache_copy_copied_pages"


@pytest.mark.slow
def test_a_copy_on_fragmented_memory_drains_the_cache_while_memory_is_free(capsys):
    """The pathology: requests for 1 and 2 MiB wake kswapd again and again, and it reclaims with over a gigabyte free."""
    status, document = run(capsys, "file-copy", "--short")
    assert (status, document["leak_checked"]) == (0, True)
    metrics = document["metrics"]
    assert metrics["nr_free_pages_min"] > 262_144
    assert document["vmstat"]["pgsteal_kswapd"] > 100_000
    assert {"8", "9"} <= document["kswapd_wakes_by_order"].keys()
    assert metrics["page_cache_copy_fallbacks"] > 50
    assert metrics["page_cache_copy_mib_per_second"] > 900


def test_the_same_copy_of_single_pages_asks_for_no_large_block(capsys):
    status, document = run(
        capsys, "file-copy", "--duration", "300ms", "--kernel", "6.1", "--set", "source=ext4"
    )
    assert (status, document["leak_checked"]) == (0, True)
    assert document["kswapd_wakes_by_order"].keys() <= {"0"}
    assert document["metrics"]["page_cache_copy_fallbacks"] == 0
    assert document["metrics"]["page_cache_copy_copied_pages"] > 50_000
