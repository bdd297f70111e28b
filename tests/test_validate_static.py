"""The comparison of boot figures: it passes on every capture, and cannot be passed by saying nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mmfw.errors import InputError
from mmfw.validate.common import Comparison, summarize
from mmfw.validate.static import compare_static, derive_figures, read_static_capture, validate_static

DATA = Path(__file__).parent / "data" / "static"
COUNTED = {"256M": 17, "512M": 17, "1G": 17, "2G": 17, "4G": 26, "4G-smp4": 53, "8G": 26, "16G": 26}


@pytest.mark.parametrize("size", sorted(COUNTED))
def test_every_figure_of_every_capture_follows(size: str) -> None:
    comparisons = validate_static(DATA / size)
    assert [c for c in comparisons if not c.within] == []
    assert summarize(comparisons).counted == COUNTED[size]
    assert summarize(comparisons).passed


def test_a_simulator_that_answers_zero_fails() -> None:
    for size in sorted(COUNTED):
        capture = read_static_capture(DATA / size)
        zeros = compare_static(capture, dict.fromkeys(capture.figures, 0))
        summary = summarize(zeros)
        assert not summary.passed
        assert summary.within == 0
        assert summarize(compare_static(capture, {})).within == 0


def test_the_simulated_side_does_not_read_the_captured_figures() -> None:
    capture = read_static_capture(DATA / "1G")
    figures = dict.fromkeys(capture.figures, 12345)
    assert derive_figures(replace(capture, figures=figures).inputs) == derive_figures(capture.inputs)


@pytest.mark.parametrize("change", [-300, 300])
def test_another_machine_does_not_pass(change: int) -> None:
    capture = read_static_capture(DATA / "4G")
    late = capture.inputs.late_freed_pages + change
    wrong = derive_figures(replace(capture.inputs, late_freed_pages=late))
    assert not summarize(compare_static(capture, wrong)).passed


def test_json_of_a_figure() -> None:
    high = next(c for c in validate_static(DATA / "4G-smp4") if c.counter == "high")
    assert json.loads(json.dumps(high.as_json())) == {
        "experiment": "static/4G-smp4",
        "labels": {"figure": "sizing", "zone": "DMA"},
        "counter": "high",
        "real": 96,
        "simulated": 96,
        "ratio": 1.0,
        "within": True,
        "counted": True,
    }


def test_summary_counts_only_what_counts() -> None:
    good = Comparison("e", {}, "c", 0, 0, within=True)
    bad = Comparison("e", {}, "c", 2, 1, within=False)
    assert good.ratio is None
    assert bad.ratio == 0.5
    assert summarize([good] * 19 + [bad], share=0.95).passed
    assert not summarize([good] * 18 + [bad] * 2, share=0.95).passed
    assert summarize([good, replace(bad, counted=False)]).as_json() == {
        "counted": 1,
        "within": 1,
        "required": 1,
        "passed": True,
    }
    assert not summarize([]).passed
    assert not summarize([replace(good, counted=False)]).passed


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "capture.json",
            '"late_freed_pages": 2571',
            '"late_freed_pages": "x"',
            "late_freed_pages: is a text",
        ),
        ("capture.json", '"late_freed_pages": 2571', '"late_freed_pages": 900000', "DMA32 manages"),
        ("capture.json", '"smp": 1', '"smp": 0', "smp: is 0"),
        ("capture.json", "{", "[", "not JSON"),
        ("sys_vm", "min_free_kbytes 45056", "other 1", "no line 'min_free_kbytes'"),
        ("zoneinfo", "Node 0, zone    DMA32", "Node 1, zone    DMA32", "node 1"),
    ],
)
def test_wrong_captures_are_refused(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    where = tmp_path / "1G"
    shutil.copytree(DATA / "1G", where)
    text = (where / name).read_text()
    assert old in text
    (where / name).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        validate_static(where)
    assert caught.value.file == str(where / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"capture\.json: cannot be read"):
        validate_static(tmp_path)
