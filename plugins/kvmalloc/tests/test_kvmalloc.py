from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw import gfp
from mmfw.mm.trace import MmVmscanWakeupKswapd
from mmfw.testing import recorded
from mmfw_kvmalloc import Rules, kmalloc_gfp_adjust
from mmfw_kvmalloc.stats import Latencies

#: 24,000 free pages, none above order 1.
SMALL_BLOCKS = [8000, 8000, 0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("size", "mask", "old", "new"),
    [
        # A page or less: as the caller says.
        (4096, 0xCC0, 0xCC0, 0xCC0),
        (4096, gfp.GFP_KERNEL | gfp.NOFAIL, 0x8CC0, 0x8CC0),
        # GFP_KERNEL: 6.1 adds NOWARN (0x2000) and NORETRY (0x10000); 6.16 adds NOWARN and drops DIRECT_RECLAIM (0x400).
        (4097, 0xCC0, 0x12CC0, 0x28C0),
        (1 << 20, 0xCC0, 0x12CC0, 0x28C0),
        (65536, gfp.GFP_NOFS, 0x12C40, 0x2840),
        # RETRY_MAYFAIL (0x4000) may try in both.
        (65536, gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, 0x6CC0, 0x6CC0),
        # NOFAIL (0x8000) is vmalloc's.
        (65536, gfp.GFP_KERNEL | gfp.NOFAIL, 0x12CC0, 0x28C0),
    ],
)
def test_masks_of_the_first_attempt(size, mask, old, new):
    assert kmalloc_gfp_adjust(mask, size, Rules.V6_1) == old
    assert kmalloc_gfp_adjust(mask, size, Rules.V6_16) == new


@pytest.mark.parametrize(
    ("kernel", "rules"), [("6.1", Rules.V6_1), ("7.1", Rules.V6_16), ("7.2", Rules.V6_16)]
)
def test_rules_are_the_kernels_unless_they_are_named(bench, kernel, rules):
    assert bench(kernel=kernel).kv.rules is rules
    assert bench("6.1", kernel=kernel).kv.rules is Rules.V6_1


@pytest.mark.parametrize(
    ("size", "pages"),
    [(8193, 4), (16384, 4), (16385, 8), (65536, 16), (262144, 64), (262145, 128), (1 << 20, 256)],
)
def test_above_8_kib_a_whole_order_is_taken(bench, size, pages):
    b = bench()
    before = b.free_pages()
    found = b.kv.kvmalloc(size)
    assert (before - b.free_pages(), found.pfn >= 0, found.area) == (pages, True, None)
    b.kv.kvfree(found)
    assert b.free_pages() == before


@pytest.mark.parametrize(
    ("size", "cache"), [(100, "kmalloc-128"), (4096, "kmalloc-4k"), (8192, "kmalloc-8k")]
)
def test_up_to_8_kib_a_cache_serves(bench, size, cache):
    b = bench()
    found = b.kv.kvmalloc(size)
    assert found.slab[0].name == cache
    assert found.slab[0].nr_objects == 1
    b.kv.kvfree(found)
    assert found.slab[0].nr_objects == 0


@pytest.mark.parametrize("rules", ["6.1", "6.16"])
@pytest.mark.parametrize(("size", "pages"), [(16384, 4), (20480, 5), (262144, 64), (262145, 65)])
def test_without_a_block_single_pages_serve(bench, rules, size, pages):
    b = bench(rules, SMALL_BLOCKS)
    before = b.free_pages()
    found = b.kv.kvmalloc(size)
    assert len(found.area.pfns) == pages == b.kv.vmalloc.nr_pages
    # struct vm_struct and the array of pointers: a slab page each, or one where both are of one cache.
    caches = {cache.name for cache, _ in found.area.objects}
    assert caches == {
        "kmalloc-96",
        {4: "kmalloc-32", 5: "kmalloc-64", 64: "kmalloc-512", 65: "kmalloc-1k"}[pages],
    }
    assert sum(b.kv.stats.fallbacks) == 1
    b.kv.kvfree(found)
    assert (b.free_pages(), b.kv.vmalloc.nr_pages) == (before, 0)


def test_a_miss_compacts_by_the_old_rule_and_only_wakes_kswapd_by_the_new_one(bench):
    stalls = {}
    for rules in ("6.1", "6.16"):
        b = bench(rules, SMALL_BLOCKS, start=True)
        b.run_ms(10)  # kswapd goes to sleep, as it must be to be woken
        events = recorded(b.mm)
        task = b.mm.sched.spawn(b.kv.kvmalloc, 65536, name="caller")
        b.run_ms(100)
        assert task.result.area is not None
        assert {event.order for event in events if isinstance(event, MmVmscanWakeupKswapd)} == {4}
        counts = b.mm.vmstat.as_dict()
        stalls[rules] = counts["compact_stall"] > 0
    assert stalls == {"6.1": True, "6.16": False}


@pytest.mark.parametrize("rules", ["6.1", "6.16"])
def test_who_may_not_block_gets_nothing(bench, rules):
    b = bench(rules, SMALL_BLOCKS)
    assert b.kv.kvmalloc(65536, gfp.GFP_NOWAIT) is None
    assert (b.kv.stats.failures, sum(b.kv.stats.fallbacks)) == (1, 0)


def test_no_memory_for_all_pages_gives_all_back(bench):
    b = bench("6.16", [60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    before = b.free_pages()
    # May block, but neither reclaim nor retry long: 100 pages are not to be had of 60.
    assert b.kv.kvmalloc(400 * 1024, gfp.GFP_KERNEL | gfp.NORETRY) is None
    assert b.free_pages() == before
    assert b.kv.stats.failures == 1


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=200), st.integers(1, 100))
def test_a_quantile_is_at_most_an_eighth_too_high(times, percent):
    latencies = Latencies()
    for ns in times:
        latencies.add(ns)
    exact = sorted(times)[-(-len(times) * percent // 100) - 1]
    assert exact <= latencies.quantile(percent) <= exact + exact // 8
    assert latencies.total_ns == sum(times)
