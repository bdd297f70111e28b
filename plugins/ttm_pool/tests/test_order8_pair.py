"""The scenario ttm-order8-pair: what follows from do_shrink_slab()'s arithmetic, and what the third method changes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmfw_demand", reason="the scenario's requests come from mmfw-demand")

from mmfw.run import RunRequest, RunResult, run

THIRD_METHOD = """
from mmfw import CompactionScan, ScanPhase, hookimpl

@hookimpl
def mmfw_plan_compaction_scan(cc, phase):
    if phase is ScanPhase.PAGEBLOCK or cc.order < 1:
        return None
    return CompactionScan.of(cc, phase, opportunistic=True)
"""


def play(kernel: str = "7.1", policy: Path | None = None, **overrides: object) -> RunResult:
    return run(
        RunRequest(
            scenario="ttm-order8-pair",
            kernel=kernel,
            short=True,
            plugin_files=() if policy is None else (policy,),
            overrides=overrides,
        )
    )


@pytest.fixture
def third_method(tmp_path: Path) -> Path:
    path = tmp_path / "third_method.py"
    path.write_text(THIRD_METHOD)
    return path


@pytest.mark.parametrize("kernel", ["6.1", "7.1"])
def test_mainline_asks_the_pool_in_vain_while_there_is_page_cache(kernel):
    result = play(kernel)
    assert (result.metrics["demand_requests"], result.metrics["demand_failures"]) == (2, 2)
    assert result.metrics["ttm_pool_pages"] == 512
    assert result.vmstat["slabs_scanned"] == 0
    assert result.buddyinfo["Normal"][8:] == [0, 0, 0]


@pytest.mark.parametrize(("kernel", "asked_for"), [("6.1", 128), ("7.1", 512)])
def test_mainline_frees_the_pool_where_nothing_else_can_be_reclaimed(kernel, asked_for):
    result = play(kernel, page_cache_pages=0)
    assert result.metrics["demand_failures"] == 0
    # Two times two blocks, a block of 1 MiB a call in 6.1, which says that it looked at the 128 pages asked for.
    calls = 4 if kernel == "6.1" else 2
    assert result.vmstat["slabs_scanned"] == calls * asked_for


def test_the_third_method_frees_both_and_they_merge(third_method):
    result = play(policy=third_method)
    assert result.metrics["demand_failures"] == 0
    assert result.vmstat["compact_success"] == 2
    assert result.vmstat["slabs_scanned"] == 0  # reclaim's own way to the pool was not taken
    # Two blocks were freed for each request, and the next objects of the driver wanted them back.
    losses = result.losses["ttm"]
    assert (losses.nr_objects_evicted, losses.nr_objects_lost) == (4, 2)


def test_nothing_helps_where_the_halves_do_not_belong_together(third_method):
    for policy in (None, third_method):
        result = play(policy=policy, buddies=False)
        assert (result.metrics["demand_failures"], result.metrics["ttm_pool_pages"]) == (2, 512)
