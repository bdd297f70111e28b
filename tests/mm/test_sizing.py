"""Sizing formulas against figures of real machines and against their stated edges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw.machine.image import LATE_FREED_PAGES
from mmfw.mm import sizing
from mmfw.state import ZONE_NAMES

DATA = Path(__file__).parents[1] / "data" / "static"
MANAGED = st.lists(st.integers(0, 1 << 30), min_size=5, max_size=5)


@pytest.mark.parametrize("mem", ["256M", "1G", "6G"])
def test_state_records_of_traces_follow_from_managed(mem: str) -> None:
    record = json.loads((DATA / "trace-zones.json").read_text())[mem]
    managed = [0] * 5
    for zone in record["zones"]:
        managed[ZONE_NAMES.index(zone["zone"])] = zone["managed"]
    managed[1] -= LATE_FREED_PAGES
    sizes = sizing.boot_sizes(managed, 1, nr_populated_zones=len(record["zones"]))
    assert sizes.totalreserve_pages == record["totalreserve_pages"]
    for zone in record["zones"]:
        size = sizes.zones[ZONE_NAMES.index(zone["zone"])]
        assert size.watermark._asdict() == zone["watermark"]
        assert list(size.lowmem_reserve) == zone["lowmem_reserve"]
        for name in ("pageset_high", "pageset_batch", "stat_threshold", "percpu_drift_mark"):
            assert getattr(size, name) == zone[name]


def test_min_free_kbytes_edges() -> None:
    assert sizing.calculate_min_free_kbytes(117497) == 2742  # 512M
    assert sizing.calculate_min_free_kbytes(1) == 128
    assert sizing.calculate_min_free_kbytes(1 << 40) == 262144
    assert sizing.calculate_min_free_kbytes(117497, 2742, 4096) == 4096
    assert sizing.calculate_min_free_kbytes(117497, 2741, 4096) == 2742


def test_khugepaged_raises_but_never_lowers() -> None:
    assert sizing.set_recommended_min_free_kbytes(1000, 3, 1 << 30) == 5632 * 3 * 4
    assert sizing.set_recommended_min_free_kbytes(100000, 3, 1 << 30) == 100000
    assert sizing.set_recommended_min_free_kbytes(1000, 3, 20 * 1000 + 19) == 4000


def test_khugepaged_stays_off_below_512_mib() -> None:
    on = sizing.boot_sizes([3840, 131072 - 3840, 0, 0, 0], 1, nr_populated_zones=2)
    off = sizing.boot_sizes([3840, 131071 - 3840, 0, 0, 0], 1, nr_populated_zones=2)
    never = sizing.boot_sizes([3840, 1 << 20, 0, 0, 0], 1, nr_populated_zones=2, transparent_hugepage=False)
    assert (on.min_free_kbytes, off.min_free_kbytes, never.min_free_kbytes) == (6499 * 4, 2896, 8206)


def test_wmarks_scale_factor_and_empty_zones() -> None:
    marks = sizing.setup_per_zone_wmarks(4000, [1000, 9000, 0, 0, 0], 3000)
    assert marks[0] == (100, 400, 700, 1000)
    assert marks[1] == (900, 3600, 6300, 9000)
    assert marks[2] == (0, 0, 0, 0)
    assert sizing.setup_per_zone_wmarks(4000, [0] * 5)[0] == (0, 0, 0, 0)


def test_lowmem_reserve_skips_zones_without_pages_or_ratio() -> None:
    rows = sizing.setup_per_zone_lowmem_reserve([0, 2560, 512, 0, 0])
    assert rows[0] == (0, 0, 0, 0, 0)
    assert rows[1] == (0, 0, 2, 2, 2)
    rows = sizing.setup_per_zone_lowmem_reserve([10, 2560, 512, 320, 0], (0, 256, 32, 0, 0))
    assert rows == ((0,) * 5, (0, 0, 2, 3, 3), (0, 0, 0, 10, 10), (0,) * 5, (0,) * 5)


@pytest.mark.parametrize(
    ("managed", "batch"),
    [(0, 1), (3840, 1), (16384, 3), (51812, 15), (116228, 31), (245060, 63), (262144, 63), (1 << 30, 63)],
)
def test_batch(managed: int, batch: int) -> None:
    assert sizing.zone_batchsize(managed) == batch


def test_high() -> None:
    assert sizing.zone_highsize(3840, 80, 1, 4) == 20
    assert sizing.zone_highsize(3840, 8, 1, 4) == 4
    assert sizing.zone_highsize(80000, 80, 63, 4, percpu_pagelist_high_fraction=8) == 2500


def test_thresholds() -> None:
    assert sizing.calculate_normal_threshold(757814, 4) == 36
    assert sizing.calculate_normal_threshold(1 << 40, 1024) == 125
    assert sizing.calculate_pressure_threshold(100, 100, 4) == 1
    assert sizing.calculate_pressure_threshold(180, 100, 4) == 20
    assert sizing.calculate_pressure_threshold(10000, 100, 4) == 125


def test_drift_mark_only_where_private_counts_can_hide_the_gap() -> None:
    marks = sizing.Watermarks(64, 80, 96, 112)
    assert sizing.percpu_drift_mark(marks, 4, 4) == 0
    assert sizing.percpu_drift_mark(marks, 6, 4) == 96 + 24


def test_mobility_grouping_needs_2560_pages() -> None:
    assert sizing.page_group_by_mobility_disabled([2559, 0, 0, 0, 0], [0] * 5)
    assert not sizing.page_group_by_mobility_disabled([2560, 0, 0, 0, 0], [0] * 5)


@given(MANAGED, st.integers(128, 1 << 24), st.integers(1, 3000))
def test_watermarks_ascend_and_share_out_the_minimum(managed: list[int], kbytes: int, scale: int) -> None:
    marks = sizing.setup_per_zone_wmarks(kbytes, managed, scale)
    for mark in marks:
        assert 0 <= mark.min <= mark.low <= mark.high <= mark.promo
        assert mark.low - mark.min == mark.high - mark.low == mark.promo - mark.high
    total = sum(mark.min for mark in marks)
    assert (kbytes >> 2) - 5 < total <= kbytes >> 2 or not any(managed)


@given(MANAGED)
def test_totalreserve_never_exceeds_memory(managed: list[int]) -> None:
    marks = sizing.setup_per_zone_wmarks(67584, managed)
    reserve = sizing.setup_per_zone_lowmem_reserve(managed)
    total = sizing.calculate_totalreserve_pages(managed, [mark.high for mark in marks], reserve)
    assert 0 <= total <= sum(managed)


@given(st.integers(0, 1 << 32))
def test_batch_is_one_less_than_a_power_of_two(managed: int) -> None:
    batch = sizing.zone_batchsize(managed)
    assert batch == 1 or (batch + 1) & batch == 0
    assert 1 <= batch <= 63


@given(st.integers(0, 1 << 64), st.integers(1, 10000), st.integers(1, 10000))
def test_mult_frac_is_exact(x: int, numer: int, denom: int) -> None:
    assert sizing.mult_frac(x, numer, denom) == x * numer // denom
