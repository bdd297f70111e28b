from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import mmfw_probe.compact
import mmfw_probe.gpu
import mmfw_probe.lru
from mmfw import InputError, gfp
from mmfw.validate.experiment import CaptureSpec, Meter, build_mm, find_rebuild
from mmfw_probe.compact import parse_variant
from mmfw_probe.masks import JOB_ORDER, MASKS
from mmfw_probe.objects import ObjectLoop
from mmfw_probe.rng import Xorshift


def make_spec(kind, variant, **more):
    values = {"mem": "256M", "nr_cpus": 1, "seed": 1, "order": 0, "requests": 0, "data_mb": 0} | more
    return CaptureSpec(path=Path("x"), kind=kind, name="x", variant=variant, **values)


def rebuild(spec):
    """Figures by part, and the machine they were read from."""
    mm = build_mm(spec)
    meter = Meter(mm)
    with mm.sched:
        find_rebuild(spec.kind)(mm, spec, meter)
    return meter.parts, mm


def test_entry_points_lead_here():
    assert find_rebuild("compact") is mmfw_probe.compact.rebuild
    assert find_rebuild("gpu") is mmfw_probe.gpu.rebuild
    assert find_rebuild("lru") is mmfw_probe.lru.rebuild


@pytest.mark.parametrize(
    ("variant", "parsed"),
    [("u8", ("u", 8)), ("p16", ("p", 16)), ("m2", ("m", 2)), ("k4", ("k", 4)), ("x1024", ("x", 1024))],
)
def test_variant(variant, parsed):
    assert parse_variant(variant) == parsed


@pytest.mark.parametrize(
    "variant",
    ["", "u", "8", "u0", "u000", "z3", "U8", "u8x", "xu8", " u8", "u8\n", "u-8", "u10000", "u\u0668", "u2.5"],
)
def test_no_such_variant(variant):
    with pytest.raises(InputError, match=r"uN .*pN .*mN, kN .*xN .*are known"):
        parse_variant(variant)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (make_spec("compact", "q8"), "are known"),
        (make_spec("compact", "x2", order=2, requests=1), "data_mb is not given"),
        (make_spec("gpu", "frag"), r"variant 'frag': fragN, fragNr, cache"),
        (make_spec("gpu", "frag16rr"), "are known"),
        (make_spec("lru", "r3", data_mb=10), "variant 'r3': r1 and r2 are known"),
        (make_spec("lru", "r1"), "data_mb is missing"),
    ],
)
def test_what_cannot_be_rebuilt_is_wrong_input(spec, says):
    with pytest.raises(InputError, match=says):
        rebuild(spec)


def test_masks_are_the_kernels():
    # Values of 6.1's gfp_types.h; the capture module prints them so.
    assert MASKS["KERNEL"] == 0x2CC0
    assert MASKS["NORETRY"] == 0x12CC0
    assert MASKS["RETRY_MAYFAIL"] == 0x6CC0
    assert MASKS["TTM"] & gfp.NORETRY
    assert not MASKS["THP_LIGHT"] & gfp.DIRECT_RECLAIM
    assert MASKS["THP"] == MASKS["THP_LIGHT"] | gfp.DIRECT_RECLAIM
    assert sorted(JOB_ORDER) == sorted(MASKS)


@pytest.mark.parametrize("variant", ["u8", "p16", "k4"])
def test_compact_serves_small_orders_under_each_mask_and_leaves_the_trace_buffer_alone(unowned, variant):
    parts, mm = rebuild(make_spec("compact", variant, order=1, requests=20))
    assert list(parts) == list(JOB_ORDER)
    for figures in parts.values():
        assert (figures.counters["success"], figures.counters["requested"]) == (20, 20)
        assert figures.counters["allocstall_normal"] == figures.counters["compact_stall"] == 0
    assert unowned(mm) == 2510 - 354
    assert mm.memory.vmas == ()


def test_compact_order_9_fails_without_direct_reclaim_where_every_eighth_page_is_free():
    parts, _ = rebuild(make_spec("compact", "u8", order=9, requests=15))
    light = parts["THP_LIGHT"].counters
    assert light["success"] < 15
    assert (light["compact_stall"], light["allocstall_movable"]) == (0, 0)
    assert parts["THP"].counters["compact_stall"] > 0


def test_compact_asks_when_the_capture_did_and_never_sooner_than_its_sleep(monkeypatch):
    """Request 3 came 50 ms late; what came before the first known one, or after the last, has the usual pauses."""
    starts = {1: 0, 2: 300_000, 3: 50_000_000, 4: 50_000_001}
    spec = make_spec("compact", "u8", order=1, requests=7, starts={"THP": starts})
    mm = build_mm(spec)
    asked = []
    alloc_pages = mm.alloc_pages

    def noting(gfp_mask, order):
        asked.append((gfp_mask, mm.sched.now))
        return alloc_pages(gfp_mask, order)

    monkeypatch.setattr(mm, "alloc_pages", noting)
    with mm.sched:
        find_rebuild("compact")(mm, spec, Meter(mm))

    def gaps(mask):
        times = [now for gfp_mask, now in asked if gfp_mask == MASKS[mask]]
        return [b - a for a, b in pairwise(times)]

    switch = 2 * mm.sched.costs.context_switch
    usual = range(210_000, 400_000)
    known = gaps("THP")
    assert known[1] == pytest.approx(300_000, abs=switch)
    assert known[2] == pytest.approx(50_000_000 - 300_000, abs=2 * switch)
    assert 210_000 < known[3] < 210_000 + 60_000  # at once would be sooner than the module sleeps
    assert all(gap in usual for gap in (known[0], *known[4:]))
    assert all(gap in usual or gap > 4_000_000 for gap in gaps("KERNEL"))


def test_compact_counts_successes_from_the_first_request_that_the_trace_has():
    parts, _ = rebuild(make_spec("compact", "u8", order=1, requests=6, starts={"THP": {4: 0, 5: 300_000}}))
    counted = {mask: (each.counters["success"], each.counters["requested"]) for mask, each in parts.items()}
    assert counted == dict.fromkeys(JOB_ORDER, (6, 6)) | {"THP": (2, 2)}


def test_gpu_on_clean_memory_restores_each_object_once(monkeypatch):
    monkeypatch.setattr(mmfw_probe.gpu, "STEPS", 130)
    parts, _ = rebuild(make_spec("gpu", "clean", mem="512M"))
    counters = parts["loop"].counters
    assert (counters["restores"], counters["evictions"]) == (60, 0)
    assert (counters["got9"], counters["fail9"], counters["gotmid"], counters["got0"]) == (60, 0, 0, 0)


def test_gpu_steps_begin_when_the_captured_ones_did(monkeypatch):
    """In turn, so step k touches object k % 60; step 3 came 20 ms late, and nothing is known behind it."""
    monkeypatch.setattr(mmfw_probe.gpu, "STEPS", 6)
    spec = make_spec(
        "gpu", "clean", mem="512M", starts={"loop": {0: 0, 1: 1_500_000, 2: 2_600_000, 3: 22_600_000}}
    )
    mm = build_mm(spec)
    touched = []
    touch = ObjectLoop.touch

    def noting(self, number):
        touched.append(mm.sched.now)
        touch(self, number)

    monkeypatch.setattr(ObjectLoop, "touch", noting)
    with mm.sched:
        find_rebuild("gpu")(mm, spec, Meter(mm))
    gaps = [b - a for a, b in pairwise(touched)]
    switch = 4 * mm.sched.costs.context_switch
    assert gaps[0] == pytest.approx(1_500_000, abs=switch)
    assert gaps[1] == pytest.approx(1_100_000, abs=switch)
    assert gaps[2] == pytest.approx(20_000_000, abs=switch)
    assert all(1_020_000 < gap < 1_300_000 for gap in gaps[3:])


def test_gpu_order0_asks_for_single_pages_and_evicts_nothing(monkeypatch):
    monkeypatch.setattr(mmfw_probe.gpu, "STEPS", 130)
    parts, _ = rebuild(make_spec("gpu", "order0", mem="512M"))
    counters = parts["loop"].counters
    assert (counters["restores"], counters["evictions"], counters["got0"]) == (60, 0, 60 * 512)
    assert (counters["got9"], counters["fail9"], counters["gotmid"]) == (0, 0, 0)
    assert counters.get("kswapd_wakes", 0) == 0


def test_gpu_seed_decides_the_objects_of_a_random_variant(monkeypatch):
    monkeypatch.setattr(mmfw_probe.gpu, "STEPS", 40)

    def restores(variant):
        return rebuild(make_spec("gpu", variant, mem="512M", seed=5))[0]["loop"].counters["restores"]

    rng = Xorshift(5)
    drawn = len({rng.below(60) for _ in range(40)})
    # In turn, no object comes up twice in 40 steps; drawn, some do, and are still there if they were not evicted.
    assert restores("frag16") == 40
    assert drawn <= restores("frag16r") < 40


def test_lru_second_pass_of_a_small_disk_reads_nothing():
    parts, _ = rebuild(make_spec("lru", "r1", data_mb=8))
    assert list(parts) == ["pass1", "pass2"]
    assert [figures.counters["pgpgin"] for figures in parts.values()] == [8192, 0]


def test_lru_hog_makes_the_disk_too_large_for_memory():
    plain, _ = rebuild(make_spec("lru", "r1", data_mb=130))
    hogged, _ = rebuild(make_spec("lru", "r2", data_mb=130))
    assert plain["pass2"].counters["pgpgin"] == 0
    assert hogged["pass2"].counters["pgpgin"] > 0
