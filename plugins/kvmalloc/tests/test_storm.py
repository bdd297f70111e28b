from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw_kvmalloc.storm import StormParams


def test_rate_sizes_and_holding_time(bench):
    b = bench(start=True, nr_cpus=2)
    before = b.free_pages()
    task = b.storm(calls_per_second=1000, hold_ms=200)
    b.run_ms(2_000)
    figures = b.metrics()
    assert figures["kvmalloc_calls"] == pytest.approx(2_000, abs=3)
    assert figures["kvmalloc_vmalloc_fallbacks"] == 0
    by_order = b.kv.stats.calls
    # 16, 32, 64, 128, 256 KiB: orders 2 to 6, 400 calls each (a standard deviation is 18).
    assert all(330 < n < 470 for n in by_order[2:7])
    assert sum(by_order) == sum(by_order[2:7])
    # Half of the calls of the last 0.2 s are held: 100 of 24.8 pages on the average.
    assert 1_500 < before - b.free_pages() < 3_700
    b.kill(task)
    assert b.free_pages() == before


def test_all_short_lived_holds_nothing(bench):
    b = bench(start=True)
    before = b.free_pages()
    b.storm(calls_per_second=500, short_lived_percent=100)
    b.run_ms(500)
    assert b.free_pages() == before
    assert b.metrics()["kvmalloc_calls"] >= 249


def test_storms_draw_differently(bench):
    b = bench(start=True)
    b.storm(calls_per_second=500)
    b.run_ms(1_000)
    alone = list(b.kv.stats.calls)
    both = bench(start=True)
    both.storm(calls_per_second=500)
    both.storm(calls_per_second=500)
    both.run_ms(1_000)
    assert both.kv.stats.calls != [2 * n for n in alone]


@pytest.mark.parametrize("rules", ["6.1", "6.16"])
def test_where_blocks_run_out_vmalloc_serves_and_nothing_is_lost(bench, rules):
    b = bench(rules, [6000, 6000, 100, 0, 0, 0, 0, 0, 0, 0, 0], start=True, seed=3)
    task = b.storm(calls_per_second=300, hold_ms=100)
    b.run_ms(1_000)
    figures = b.metrics()
    assert figures["kvmalloc_failures"] == 0
    assert figures["kvmalloc_vmalloc_fallbacks"] > 150
    assert figures["kvmalloc_vmalloc_fallbacks"] == sum(
        figures[f"kvmalloc_vmalloc_fallbacks_order_{order}"] for order in range(2, 9)
    )
    assert 0 < figures["kvmalloc_latency_p50_ns"] <= figures["kvmalloc_latency_p99_ns"]
    assert (b.mm.vmstat.as_dict()["compact_stall"] > 0) == (rules == "6.1")
    b.kill(task)
    assert b.kv.vmalloc.nr_pages == 0
    b.free_pages()
    assert [cache.nr_objects for cache in b.mm.slab.caches if cache.name.startswith("kmalloc")] == [0] * len(
        [cache for cache in b.mm.slab.caches if cache.name.startswith("kmalloc")]
    )


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"min_kib": 12}, "power of two from 1 to 1024"),
        ({"max_kib": 2048}, "power of two from 1 to 1024"),
        ({"min_kib": 64, "max_kib": 32}, "min_kib 64 is above max_kib 32"),
        ({"calls_per_second": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_parameters_are_refused(params, says):
    with pytest.raises(ValidationError, match=says):
        StormParams.model_validate(params)
