"""Rebuilt experiments against captures: what is read, how it is judged, and that nothing passes by saying nothing."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mmfw.cli import main
from mmfw.errors import InputError
from mmfw.validate import bounds
from mmfw.validate.bounds import judge
from mmfw.validate.common import Comparison
from mmfw.validate.compact import compare_mask, masks_of, real_figures
from mmfw.validate.dynamic import compare
from mmfw.validate.experiment import CaptureSpec, Figures, find_rebuild, read_spec, run_experiment
from mmfw.validate.gpu import boots_of
from mmfw.validate.gpu import real_figures as real_loop
from mmfw.validate.lru import real_figures as real_stream
from mmfw.validate.recognise import find_captures

DATA = Path(__file__).parent / "data"
COMPACT = DATA / "compact" / "512M-u8-o9"
GPU = DATA / "gpu" / "1G-frag16-s1"
LRU = DATA / "lru" / "256M-r1"


def spec_of(path: Path) -> CaptureSpec:
    (capture,) = find_captures(path)
    return read_spec(path, capture.kind, capture.name, capture.document, str(path / "capture.json"))


def figure(kind: str, real: float, ours: float, within: bool, counter: str = "pgscan_kswapd") -> Comparison:
    return Comparison("x", {"figure": kind}, counter, real, ours, within)


Validate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str]) -> Validate:
    """Run ``mmfw validate``; its status, output and complaints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["validate", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


# --- reading ----------------------------------------------------------------------------------------------


def test_what_is_read_of_a_capture_of_high_order_requests() -> None:
    assert masks_of(COMPACT) == ["KERNEL", "NORETRY", "RETRY_MAYFAIL", "THP", "THP_LIGHT", "TTM"]
    real = real_figures(COMPACT, "KERNEL")
    assert (real["requested"], real["success"], real["kswapd_wakes"], real["slabs_scanned"]) == (
        120,
        6,
        16,
        10,
    )


def test_what_is_read_of_a_capture_of_the_object_loop() -> None:
    real = real_loop(GPU)
    assert real.counters == {
        "evictions": 2970,
        "kswapd_wakes_order9": 2034,
        "direct_reclaim_begins": 1388,
        "got9": 2045,
        "fail9": 955,
    }
    assert real.scans_by_priority == {8: 1782, 7: 1107, 6: 81}
    assert len(real.nr_free_at_eviction) == 2970


def test_what_is_read_of_a_capture_of_streaming_reads() -> None:
    real = real_stream(LRU)
    assert [real[part]["pgscan_kswapd"] for part in ("pass1", "pass2")] == [124745, 128167]
    assert [real[part]["kswapd_wakes"] for part in ("pass1", "pass2")] == [721, 1101]


# --- judging ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "ours", "within"),
    [(40, 50, True), (40, 51, False), (40, 29, False), (39, 20, True), (39, 21, False), (0, 20, True)],
)
def test_a_counter_is_judged_by_its_size(real: int, ours: int, within: bool) -> None:
    assert bounds.counter_within(real, ours) is within


def test_which_rule_judges_a_counter() -> None:
    assert [bounds.counter_figure(n) for n in (10, 11, 39, 40)] == [
        bounds.SMALL_COUNTER,
        bounds.REPORTED,
        bounds.REPORTED,
        bounds.COUNTER,
    ]


def test_small_figures_of_the_loop_may_differ_by_ten_events() -> None:
    assert bounds.loop_within(50, 60)
    assert not bounds.loop_within(50, 61)
    assert bounds.loop_within(1000, 1100)
    assert not bounds.loop_within(1000, 1101)


def test_the_band_of_boots_is_widened_by_half_of_its_width() -> None:
    assert bounds.band([43, 54, 50]) == (37.5, 59.5)


def test_one_boot_or_two_have_no_range_so_each_is_a_counter_like_any_other() -> None:
    assert bounds.band([80]) == (60, 100)
    assert bounds.band([20, 24]) == (10, 34)


def boots_beside(folder: Path) -> list[int]:
    """Evictions of the boots that a capture's band is made of."""
    return [boot.counters["evictions"] for boot in boots_of(spec_of(folder), real_loop(folder))]


def put_boot(folder: Path, evictions: int, end: str = "", **change: object) -> None:
    about = {"kind": "gpu", "mem": "1G", "smp": 1, "variant": "cache2", "kernel": "6.1.192", "data_mb": 550}
    folder.mkdir()
    (folder / "capture.json").write_text(json.dumps({**about, "name": folder.name, **change}))
    end = end or f"evict={evictions} got9=1 fail9=2"
    with gzip.open(folder / "gpu.trace.gz", "wt") as file:
        file.write(f"            init-1       [000] .....     9.000000: probe_write: gpu_snap end {end}\n")


def test_boots_are_known_by_what_they_are_and_each_counts_once(tmp_path: Path) -> None:
    put_boot(tmp_path / "asked", 1, seed=6)
    put_boot(tmp_path / "1G-cache2-s7", 2, seed=7)
    put_boot(tmp_path / "copy", 1, seed=6, name="asked")
    (tmp_path / "link").symlink_to(tmp_path / "1G-cache2-s7")
    put_boot(tmp_path / "other variant", 3, variant="cache3")
    put_boot(tmp_path / "other size", 3, mem="2G")
    put_boot(tmp_path / "other disk", 3, data_mb=5)
    assert boots_beside(tmp_path / "asked") == [1, 2]
    assert boots_beside(tmp_path / "link") == [2, 1]


def test_what_lies_beside_a_capture_and_is_broken_is_passed_over(tmp_path: Path) -> None:
    put_boot(tmp_path / "asked", 1)
    put_boot(tmp_path / "old", 3, kernel="5.10")
    put_boot(tmp_path / "endless", 3, end="got9=1 fail9=2")
    put_boot(tmp_path / "cut", 3)
    (tmp_path / "cut" / "gpu.trace.gz").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    (tmp_path / "no capture").mkdir()
    assert boots_beside(tmp_path / "asked") == [1]
    with pytest.raises(InputError, match="'gpu_snap end' line has no evict="):
        real_loop(tmp_path / "endless")


def test_four_of_five_counters_must_be_within_and_every_success() -> None:
    good, bad = figure(bounds.COUNTER, 100, 100, True), figure(bounds.COUNTER, 100, 10, False)
    assert judge([good] * 4 + [bad])[0].passed
    assert not judge([good] * 3 + [bad])[0].passed
    success = figure(bounds.SUCCESS, 10, 99, False, "success")
    assert not judge([good] * 100 + [success])[0].passed


def test_a_compaction_counter_is_judged_alone_too() -> None:
    good = figure(bounds.COUNTER, 100, 100, True)
    stalls = [figure(bounds.COUNTER, 100, 100, n < 6, "compact_stall") for n in range(10)]
    summary, rules = judge([good] * 100 + stalls)
    assert not summary.passed
    assert [rule.name for rule in rules if not rule.passed] == ["compact_stall"]


def test_nothing_is_no_pass() -> None:
    assert not judge([])[0].passed


def test_a_simulator_that_answers_zero_fails() -> None:
    zeros = [
        one
        for mask in masks_of(COMPACT)
        for one in compare_mask("x", mask, real_figures(COMPACT, mask), Figures())
    ]
    summary, rules = judge(zeros)
    assert not summary.passed
    assert {rule.name for rule in rules if not rule.passed} >= {"counters", "compact_stall"}
    assert not any(one.within for one in zeros if one.labels["figure"] == bounds.COUNTER)


def test_the_real_figures_themselves_pass() -> None:
    same = [
        one
        for mask in masks_of(COMPACT)
        for one in compare_mask(
            "x", mask, real_figures(COMPACT, mask), Figures(dict(real_figures(COMPACT, mask)))
        )
    ]
    assert judge(same)[0].passed


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMPACT, LRU], ids=lambda path: path.name)
def test_a_rebuilt_experiment_is_within_bounds(path: Path) -> None:
    (capture,) = find_captures(path)
    comparisons = compare(capture)
    assert [one for one in comparisons if one.counted and not one.within] == []
    assert judge(comparisons)[0].passed


def test_two_runs_give_the_same_figures_and_another_load_does_not() -> None:
    spec = spec_of(LRU)
    first = run_experiment(spec)
    assert run_experiment(spec) == first
    assert run_experiment(replace(spec, data_mb=300)) != first


def test_text_and_json_of_the_command_line(validate: Validate) -> None:
    status, out, _ = validate("--format", "json", LRU)
    assert status == 0
    assert json.loads(out)["summary"] == {"counted": 8, "within": 8, "required": 8, "passed": True}
    status, out, _ = validate(LRU)
    assert status == 0
    assert "256M-r1" in out
    assert "passed: 8 of 8" in out


# --- what is wrong with a capture is said in one line -------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return Path(shutil.copytree(COMPACT, tmp_path / "512M-u8-o9"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("variant", "z8", "variant 'z8'"),
        ("variant", "u0", "variant 'u0'"),
        ("mem", "lots", "lots"),
        ("requests", "many", "requests"),
        ("requests", 0, "requests is 0"),
        ("requests", 119, "requests is 119 in capture.json, but KERNEL.trace.gz has 120"),
        ("order", 11, "order: is 11; it should be 0..10"),
        ("data_mb", 99_999_999_999, "data_mb: is 99999999999"),
        ("kernel", "6.12.3", "kernel '6.12.3'"),
    ],
)
def test_a_load_that_is_not_known(
    validate: Validate, damaged: Path, key: str, value: object, said: str
) -> None:
    file = damaged / "capture.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, key: value}))
    status, out, err = validate(damaged)
    assert status == 2
    assert out == ""
    assert said in err
    assert str(damaged) in err
    assert len(err.strip().splitlines()) == 1


def test_a_trace_of_no_known_mask(damaged: Path) -> None:
    for part in ("trace.gz", "before.txt", "after.txt"):
        shutil.copy(damaged / f"TTM.{part}", damaged / f"ATOMIC.{part}")
    with pytest.raises(InputError, match=r"ATOMIC\.trace\.gz is of a mask that is not known"):
        compare(find_captures(damaged)[0])


def test_a_loop_that_did_not_end(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GPU, tmp_path / "1G-frag16-s1"))
    shutil.copy(GPU / "pattern.trace.gz", path / "gpu.trace.gz")
    with pytest.raises(InputError, match="the loop did not end"):
        real_loop(path)


def test_a_kind_that_no_plugin_rebuilds() -> None:
    with pytest.raises(InputError, match=r"no installed plugin rebuilds captures of kind 'zram'"):
        find_rebuild("zram")
