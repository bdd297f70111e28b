"""``mmfw validate``: what it recognises, its table, its JSON and its exit status."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.cli import main

DATA = Path(__file__).parents[1] / "data"
SHRINK = DATA / "shrink" / "512M-v2"
STATIC = DATA / "static" / "1G"
Validate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str]) -> Validate:
    """Run the command in this process: status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["validate", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, out, err

    return run


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """A capture in which one call started with another delta."""
    path = tmp_path / "wrong"
    shutil.copytree(SHRINK, path)
    text = gzip.decompress((path / "shrink.trace.gz").read_bytes()).decode()
    old = "cache items 500 delta 250 total_scan 250 priority 12"
    assert old in text
    (path / "shrink.trace.gz").write_text(text.replace(old, old.replace("delta 250", "delta 249"), 1))
    return path


def test_static_and_shrink_captures_pass_in_one_table(validate: Validate) -> None:
    status, out, err = validate(STATIC, SHRINK)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["experiment", "figure", "counter", "compared", "equal", "apart", "equal"]
    assert any(line.split() == ["shrink/512M-v2", "start", "delta", "355", "355", "0", "0"] for line in lines)
    assert any(
        line.split() == ["shrink/512M-v2", "end", "new_scan", "345", "345", "10", "10"] for line in lines
    )
    assert any(line.startswith("static/1G") for line in lines)
    assert lines[-1].startswith("passed: ")


def test_json_has_the_promised_keys(validate: Validate) -> None:
    status, out, _ = validate(SHRINK, "--format", "json")
    document = json.loads(out)
    assert status == 0
    assert document["summary"] == {"counted": 2610, "within": 2610, "required": 2610, "passed": True}
    assert len(document["comparisons"]) == 2631
    for one in document["comparisons"]:
        assert set(one) == {
            "experiment", "labels", "counter", "real", "simulated", "ratio", "within", "counted",
        }  # fmt: skip
        assert one["experiment"] == "shrink/512M-v2"
        assert one["ratio"] == (None if one["real"] == 0 else one["simulated"] / one["real"])
    first = next(one for one in document["comparisons"] if one["counter"] == "delta" and one["real"] == 250)
    assert {key: first["labels"][key] for key in ("shrinker", "priority", "figure")} == {
        "shrinker": "seek0",
        "priority": "12",
        "figure": "start",
    }


def test_difference_is_spelt_out_and_status_1(validate: Validate, wrong: Path) -> None:
    status, out, err = validate(wrong)
    lines = out.splitlines()
    assert (status, err) == (1, "")
    assert lines[-3].startswith(
        "differs: shrink/512M-v2 delta: real 249 simulated 250 (shrinker=seek0 priority=12 figure=start line="
    )
    assert lines[-2] == "figures: 2609 of 2610 within, 2610 must"
    assert lines[-1] == "FAILED: 2609 of 2610 figures agree, 2610 must"
    status, out, _ = validate(wrong, "--format=json")
    assert (status, json.loads(out)["summary"]["passed"]) == (1, False)


def test_folder_of_captures_stands_for_them_all(validate: Validate) -> None:
    status, out, _ = validate(DATA / "shrink")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()[1:-2]} == {
        "shrink/256M-v1", "shrink/256M-v3", "shrink/512M-v2",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["compact", "gpu", "lru"])
def test_a_capture_whose_load_is_not_described_is_refused(
    validate: Validate, kind: str, tmp_path: Path
) -> None:
    about = tmp_path / "capture.json"
    about.write_text(json.dumps({"kind": kind, "name": "x"}))
    assert validate(SHRINK, tmp_path) == (2, "", f"mmfw: {about}: the record: has no key 'mem'\n")


@pytest.mark.parametrize(
    ("kind", "variant", "known"),
    [
        ("compact", "z9", "uN"),
        ("compact", "u0", "uN"),
        ("gpu", "frog16", "fragN"),
        ("lru", "r9", "r1 and r2"),
    ],
)
def test_an_unknown_variant_is_refused_with_the_known_ones(
    validate: Validate, kind: str, variant: str, known: str, tmp_path: Path
) -> None:
    about = {"kind": kind, "name": "x", "mem": "256M", "variant": variant, "order": 9, "requests": 1}
    (tmp_path / "capture.json").write_text(json.dumps(about))
    trace = {"compact": "KERNEL", "gpu": "gpu", "lru": "lru"}[kind]
    for file in ("KERNEL.before.txt", "KERNEL.after.txt", "before.txt", "mid.txt", "after.txt"):
        (tmp_path / file).write_text("== vmstat\nnr_free_pages 1\n")
    said = (
        "req 0 mask=KERNEL order=9 pfn=-1"
        if kind == "compact"
        else "gpu_snap end step=1 evict=0 got9=0 fail9=0"
    )
    end = f"init-1       [000] .....     1.000000: gpu_snap: probe: {said}\n"
    (tmp_path / f"{trace}.trace.gz").write_bytes(gzip.compress(f"            {end}".encode(), mtime=0))
    status, out, err = validate(tmp_path)
    assert (status, out) == (2, "")
    assert f"variant {variant!r}" in err
    assert known in err
    assert str(tmp_path) in err


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (("gpu.trace.gz",), "gpu.trace.gz: has no 'gpu_snap end' line: the loop did not end"),
        (("lru.trace.gz",), "before.txt: is missing; a capture has snapshots of /proc before and after"),
        (("KERNEL.trace.gz", "KERNEL.before.txt"), "KERNEL.before.txt: has no section '== vmstat'"),
    ],
)
def test_kind_is_told_by_the_files_without_capture_json(
    validate: Validate, files: tuple[str, ...], missing: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert validate(tmp_path) == (2, "", f"mmfw: {tmp_path}/{missing}\n")


def test_files_beside_captures_are_passed_over(validate: Validate, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    summary.touch()
    status, _, err = validate(SHRINK, summary)
    assert (status, err) == (0, f"mmfw: {summary}: is a file, not a capture; passed over\n")
    status, _, err = validate(summary)
    assert (status, err) == (2, f"mmfw: {summary}: is a file; a capture is a folder with capture.json\n")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"kind": "shrnk", "name": "x"}', "kind: is 'shrnk'; did you mean 'shrink'?"),
        ('{"name": "x"}', "the record: has no key 'kind'"),
        ("[]", "the record: is an array; it should be an object"),
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_wrong_capture_json(validate: Validate, document: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text(document)
    assert validate(tmp_path) == (2, "", f"mmfw: {tmp_path / 'capture.json'}: {message}\n")


def test_what_is_no_capture_is_status_2(validate: Validate, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert validate(missing) == (
        2, "", f"mmfw: {missing}: no such folder; a capture is a folder with capture.json\n",
    )  # fmt: skip
    status, out, err = validate(tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"mmfw: {tmp_path}: is no capture: it has no capture.json, nor the files of ")
    (tmp_path / "capture.json").write_text('{"kind": "shrink", "name": "x"}')
    trace = tmp_path / "shrink.trace.gz"
    assert validate(tmp_path) == (2, "", f"mmfw: {trace}: cannot be read: No such file or directory\n")
