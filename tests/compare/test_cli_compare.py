"""``mmfw compare`` and ``mmfw diff`` in processes of their own: status, stdout, stderr, and being killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.cli import main
from mmfw.compare import CompareRequest, compare

pytest.importorskip("scipy")
pytest.importorskip("pyarrow")
Command = Callable[..., subprocess.CompletedProcess[str]]
InProcess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mmfw(capfd: pytest.CaptureFixture[str]) -> InProcess:
    """Run the command line in this process: status, stdout and stderr, those of its workers included."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in words])
        assert isinstance(done.value.code, int)
        return done.value.code, *capfd.readouterr()

    return call


@pytest.mark.slow
def test_a_study_killed_on_the_way_ends_as_one_that_was_not(
    mmfw_lab: Command, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy kills the parent at the first of its runs; its own process must go, too, and leave nothing half-made."""
    words = (lab, "--policies", "assassin,quiet", "--seeds", 1, "--duration", "50ms", "--jobs", 1)
    killed = mmfw_lab("compare", *words, "--out", tmp_path / "a")
    assert killed.returncode == -9
    assert not (tmp_path / "a" / "compare.json").exists()
    done = [path.parent.name for path in (tmp_path / "a").glob("runs/*/*/seed-*")]
    assert done == ["mainline"]
    resumed = mmfw_lab("compare", *words, "--out", tmp_path / "a")
    assert resumed.returncode == 0, resumed.stderr
    assert not list((tmp_path / "a").rglob("*mmfw-tmp*"))
    # The same without a murder.
    monkeypatch.setenv("LAB_MARKER", str(tmp_path / "marker"))
    asked = CompareRequest((str(lab),), ("assassin", "quiet"), 1, tmp_path / "b", duration="50ms")
    compare(asked)
    assert (tmp_path / "a" / "compare.json").read_bytes() == (tmp_path / "b" / "compare.json").read_bytes()


@pytest.mark.slow
def test_ctrl_c_ends_processes_and_keeps_what_is_done(mmfw_lab: Command, lab: Path, tmp_path: Path) -> None:
    """The policy presses it, and waits to be ended."""
    words = (lab, "--policies", "interrupts", "--seeds", 1, "--duration", "50ms", "--jobs", 1)
    done = mmfw_lab("compare", *words, "--out", tmp_path / "a")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mmfw: interrupted\n")
    assert [path.parent.name for path in (tmp_path / "a").glob("runs/*/*/seed-*")] == ["mainline"]
    assert not list((tmp_path / "a").rglob("*mmfw-tmp*"))
    assert not (tmp_path / "a" / "compare.json").exists()


def test_tables_and_json_and_status(lab: Path, tmp_path: Path, mmfw: InProcess) -> None:
    words = ("compare", lab, "--policies", "prints,raises,elsewhere", "--seeds", 1, "--duration", "100ms")
    status, out, err = mmfw(*words, "--out", tmp_path / "a")
    assert status == 3
    assert "this is no part of the answer" not in out
    decides, _, beside = out.partition("\n\n  beside it: ")
    assert "beside" not in decides
    assert "loss W, pages" in beside
    lines = {line.split()[0]: line for line in decides.splitlines() if line.startswith("  ")}
    assert lines["elsewhere"].endswith("does not act here")
    assert lines["raises"].split()[1:] == ["-", "too", "few", "pairs"]
    assert "lab-loop: objects touched in turn on fragmented memory" in out
    said = "mmfw: lab-loop, raises, seed 0: plugin raises, mmfw_module_init: ValueError: no such thing; to repeat it: "
    assert said in err
    status, out, _ = mmfw(*words, "--out", tmp_path / "a", "--format", "json")
    assert status == 3
    document = json.loads(out)
    assert out == (tmp_path / "a" / "compare.json").read_text()
    assert [each["policy"] for each in document["missing"]] == ["raises"]
    assert document["study"]["command"][:2] == ["mmfw", "compare"]


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "--policies", "a,,b", "--out", "o"], "--policies 'a,,b': an empty name"),
        (["x", "--policies", "quiet", "--out", "o"], "no scenario 'x'"),
        (["x", "--out", "o"], "Missing option '--policies'."),
    ],
)
def test_wrong_words_are_one_line_and_status_2(
    mmfw: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = mmfw("compare", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"mmfw: {said}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_diff_of_two_runs(lab: Path, tmp_path: Path, mmfw: InProcess) -> None:
    for name, policy in (("a", "mainline"), ("b", "prints"), ("c", "quiet")):
        words = ("run", lab, "--duration", "300ms", "--policy", policy, "--out", tmp_path / name)
        assert mmfw(*words)[0] == 0
    status, out, _ = mmfw("diff", tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert out.startswith("same result, digest ")
    assert "policies" in out
    status, out, _ = mmfw("diff", tmp_path / "a", tmp_path / "c")
    assert status == 1
    assert "toy_evictions" in out
    document = json.loads(mmfw("diff", tmp_path / "a", tmp_path / "c", "--format", "json")[1])
    assert document["same_result"] is False
    assert {"name": "policies", "old": [], "new": ["quiet"]} in document["inputs"]
    status, out, err = mmfw("diff", tmp_path / "a", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"mmfw: {tmp_path / 'manifest.json'}: no run directory")


def test_the_threshold_is_said_and_can_be_set(lab: Path, tmp_path: Path, mmfw: InProcess) -> None:
    words = (
        "compare",
        lab,
        "--policies",
        "quiet",
        "--seeds",
        1,
        "--duration",
        "100ms",
        "--out",
        tmp_path / "a",
    )
    status, out, _ = mmfw(*words)
    assert status == 0
    assert "What matters is 1% of mainline's median or more" in " ".join(out.split())
    status, out, _ = mmfw(*words, "--least-effect", "0.2", "--format", "json")
    document = json.loads(out)
    assert (status, document["study"]["least_effect"]) == (0, 0.2)
    assert "20% of mainline's median" in document["method"]
    assert "20% of mainline&#39;s median" in (tmp_path / "a" / "report.html").read_text()
