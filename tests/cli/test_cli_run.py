"""``mmfw run``'s options for observers: what they write, and one clear line where they cannot."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.cli import main
from mmfw.proc.ftrace import FtraceReader
from mmfw.proc.snapshot import PROC_FILES
from traced import read_lines

TOY = Path(__file__).parents[1] / "data" / "toy"
SCENARIO = (str(TOY / "toy-loop.toml"), "--plugin-file", str(TOY / "toy.py"), "--duration", "10ms")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: status, stdout, stderr."""

    def call(*arguments: object, scenario: tuple[str, ...] = SCENARIO) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["run", *scenario, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, out, err

    return call


def test_a_trace_and_proc_files_in_one_go(run: Run, tmp_path: Path) -> None:
    trace, proc = tmp_path / "out" / "t.gz", tmp_path / "out"
    status, out, err = run(
        "--trace", trace, "--events", "compaction,vmscan", "--proc", proc, "--format", "json"
    )
    assert (status, err) == (0, "")
    lines = list(FtraceReader(trace))
    assert {line.event.split("_")[1] for line in lines} == {"vmscan", "compaction", "shrink"}
    for moment in ("before", "after"):
        for name in PROC_FILES:
            assert (proc / moment / name).stat().st_size > 0
    document = json.loads(out)
    _, plain, _ = run("--format", "json")
    same = {"digest", "metrics", "vmstat", "buddyinfo", "shrinker_calls"}
    assert {name: document[name] for name in same} == {name: json.loads(plain)[name] for name in same}
    buddyinfo = [line.split()[3:] for line in (proc / "after" / "buddyinfo").read_text().splitlines()]
    assert {zone: [str(n) for n in row] for zone, *row in buddyinfo} == {
        zone: [str(n) for n in row] for zone, row in document["buddyinfo"].items()
    }


def test_without_events_all_but_single_pages_are_traced(run: Run, tmp_path: Path) -> None:
    assert run("--trace", tmp_path / "t")[0] == 0
    assert not any(line.event.startswith("mm_page_") for line in read_lines(tmp_path / "t"))
    assert run("--trace", tmp_path / "k", "--events", "kmem:*", "--trace-options", "noirq-info")[0] == 0
    lines = read_lines(tmp_path / "k")
    assert all(line.event.startswith("mm_page_") and line.flags is None for line in lines)
    assert lines


def test_an_earlier_runs_proc_files_are_a_machine(run: Run, tmp_path: Path) -> None:
    pressure = Path(__file__).parents[1] / "data" / "trace"
    scenario = (str(pressure / "pressure.toml"), "--plugin-file", str(pressure / "pressure.py"))
    assert run("--proc", tmp_path, "--duration", "10ms", scenario=scenario)[0] == 0
    again = ("--machine", tmp_path / "after", "--duration", "1ms", "--proc", tmp_path / "again")
    status, _, err = run(*again, scenario=scenario)
    assert (status, err) == (0, "")
    for name in ("buddyinfo", "pagetypeinfo", "unusable_index"):
        assert (tmp_path / "again" / "before" / name).read_text() == (tmp_path / "after" / name).read_text()


NO_FILE = "says what --trace writes; name a file with --trace"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--trace", "{}/t", "--events", "vmscna"],
            "--events 'vmscna': no event or system 'vmscna' is traced; did you mean 'vmscan'?",
        ),
        (
            ["--trace", "{}/t", "--events", ""],
            "--events '': an empty name; write systems or events with commas between, such as vmscan,compaction",
        ),
        (["--events", "vmscan"], f"--events {NO_FILE}"),
        (["--trace-options", "irq-info"], f"--trace-options {NO_FILE}"),
        (
            ["--trace", "{}/t", "--trace-options", "noirq"],
            "--trace-options 'noirq': no option 'noirq'; did you mean 'noirq-info'?",
        ),
        (["--trace", "{}"], "{}: --trace: is a folder; name a file"),
        (["--trace", "{}/none/t"], "{}/none/t: --trace: cannot be written: No such file or directory"),
        (
            ["--trace", "/dev/null"],
            "/dev/null: --trace: is not a regular file; name one that may be replaced",
        ),
        (["--proc", "/dev/null"], "/dev/null: --proc: is a file; name a folder"),
        (["--proc", "{}/file/x"], "{}/file/x: --proc: cannot be written: Not a directory"),
        (
            ["--trace", "{}/p/after", "--proc", "{}/p"],
            "{}/p/after: --trace: lies where --proc writes; name another place",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(
    run: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "file").touch()
    status, out, err = run(*(word.format(tmp_path) for word in arguments))
    assert (status, out, err) == (2, "", f"mmfw: {said.format(tmp_path)}\n")
    assert os.listdir(tmp_path) == ["file"]


def test_another_mistake_leaves_neither_trace_nor_folder(run: Run, tmp_path: Path) -> None:
    status, out, err = run("--trace", tmp_path / "t", "--proc", tmp_path / "p", "--kernel", "5.4")
    assert (status, out) == (2, "")
    assert err == "mmfw: kernel profile '5.4' is unknown; known: 6.1, 7.1, 7.2\n"
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line_and_status_2(
    mmfw_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The trace of some hundred KiB does not fit; what was there stays."""
    (tmp_path / "t").write_text("old")
    (tmp_path / "toy.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, -1))\n"
        + (TOY / "toy.py").read_text()
    )
    arguments = (SCENARIO[0], "--plugin-file", str(tmp_path / "toy.py"), "--duration", "10ms")
    done = mmfw_command("run", *arguments, "--trace", str(tmp_path / "t"), "--proc", str(tmp_path / "p"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mmfw: {tmp_path / 't'}: --trace: cannot be written: File too large\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["t", "toy.py"]
    assert (tmp_path / "t").read_text() == "old"


def test_a_name_with_a_newline_makes_one_line(capsys, tmp_path):
    from mmfw.cli import main

    broken = tmp_path / "broken.toml"
    broken.write_text('"a\\nb" = 1\nname = "x"\n')
    with pytest.raises(SystemExit) as done:
        main(["run", str(broken)])
    said = capsys.readouterr().err
    assert done.value.code == 2
    assert said.count("\n") == 1
    assert r"a\nb: no such key" in said
