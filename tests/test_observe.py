"""What a run leaves for other tools: everything or nothing, and never in the place of something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmfw.errors import InputError
from mmfw.machine import load_machine
from mmfw.mm.core import Mm
from mmfw.mm.trace import MmVmscanKswapdSleep
from mmfw.observe import Observer, ProcFolder
from mmfw.proc.ftrace import FtraceReader
from mmfw.proc.snapshot import PROC_FILES, proc_files
from mmfw.testing import make_mm

Tree = dict[str, str | None]


@pytest.fixture(scope="module")
def mm() -> Mm:
    return make_mm("256M")


@pytest.fixture(scope="module")
def other() -> Mm:
    return make_mm("512M")


def tree(folder: Path) -> Tree:
    """Every path below a folder, with a file's text."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def observer(trace: Path | None = None, proc: Path | None = None, events: str | None = None) -> Observer:
    return Observer(trace=trace, events=events, trace_options=None, proc=proc)


def observe(watch: Observer, before: Mm, after: Mm | None = None) -> None:
    """A run that only says that kswapd sleeps."""
    watch.start(before)
    before.trace.emit(MmVmscanKswapdSleep(0))
    watch.finish(after or before)


def snapshot(folder: ProcFolder, before: Mm, after: Mm) -> None:
    folder.take("before", before)
    folder.take("after", after)
    folder.prepare()
    folder.publish()
    folder.discard()


# --- /proc files ----------------------------------------------------------------------------------------


def test_the_folder_holds_the_machines_files_before_and_after(tmp_path: Path, mm: Mm, other: Mm) -> None:
    path = tmp_path / "a" / "b"
    snapshot(ProcFolder(path), mm, other)
    assert sorted(os.listdir(path)) == ["after", "before"]
    for moment, machine in (("before", mm), ("after", other)):
        texts = proc_files(machine)
        assert texts.keys() == set(PROC_FILES)
        found = {name: text for name, text in tree(path / moment).items() if text is not None}
        assert found == texts
    assert (
        load_machine(str(path / "after")).node_state(0).zones[1].managed
        == other.pgdat.node_zones[1].managed_pages
    )


def test_another_run_replaces_both_and_nothing_else(tmp_path: Path, mm: Mm, other: Mm) -> None:
    (tmp_path / "note").write_text("mine")
    snapshot(ProcFolder(tmp_path), mm, mm)
    first = tree(tmp_path)
    snapshot(ProcFolder(tmp_path), other, other)
    second = tree(tmp_path)
    assert second.keys() == first.keys()
    assert second["note"] == "mine"
    assert second["before/meminfo"] == second["after/meminfo"] != first["before/meminfo"]


def test_a_folder_made_for_nothing_is_taken_away_with_those_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    folder = ProcFolder(path)
    assert path.is_dir()
    folder.discard()
    assert os.listdir(tmp_path) == []
    (tmp_path / "a").mkdir()
    ProcFolder(path).discard()
    assert os.listdir(tmp_path) == ["a"]
    folder = ProcFolder(path)
    (tmp_path / "a" / "b" / "file").touch()
    folder.discard()
    assert tree(tmp_path).keys() == {"a", "a/b", "a/b/file"}
    ProcFolder(tmp_path / "a").discard()
    assert tree(tmp_path).keys() == {"a", "a/b", "a/b/file"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file", "--proc: is a file; name a folder"),
        ("file/x", "--proc: cannot be written: Not a directory"),
        ("a\0b", "--proc: cannot be written: "),
        ("dangling", "--proc: cannot be written: File exists"),
        ("n" * 256, "--proc: cannot be written: File name too long"),
        ("theirs", "--proc: has a 'after' that no run wrote; name another folder"),
        ("link", "--proc: has a 'before' that no run wrote; name another folder"),
        ("more", "--proc: has a 'before' that no run wrote; name another folder"),
    ],
)
def test_a_place_that_is_not_for_proc_files(tmp_path: Path, mm: Mm, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "theirs" / "after").mkdir(parents=True)
    for folder in ("link", "more"):
        snapshot(ProcFolder(tmp_path / folder), mm, mm)
    (tmp_path / "more" / "before" / "mine").touch()
    (tmp_path / "link" / "before").rename(tmp_path / "moved")
    (tmp_path / "link" / "before").symlink_to(tmp_path / "moved")
    (tmp_path / "none-of-it").mkdir()
    before = tree(tmp_path)
    path = tmp_path / name
    with pytest.raises(InputError) as fault:
        ProcFolder(path)
    assert str(fault.value).startswith(f"{path}: {said}")
    assert "\n" not in str(fault.value)
    assert tree(tmp_path) == before


def test_a_folder_that_nothing_can_be_written_to_is_refused_before_the_run() -> None:
    """/proc itself: no folder can be made in it, not even by root."""
    with pytest.raises(InputError, match=r"^/proc/self: --proc: cannot be written: "):
        ProcFolder(Path("/proc/self"))
    with pytest.raises(InputError, match=r"^/proc/none/of/it: --proc: cannot be written: "):
        ProcFolder(Path("/proc/none/of/it"))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rename_that_fails_puts_everything_back(tmp_path: Path, mm: Mm, other: Mm, moment: str) -> None:
    snapshot(ProcFolder(tmp_path), mm, mm)
    first = tree(tmp_path)
    folder = ProcFolder(tmp_path)
    folder.take("before", other)
    folder.take("after", other)
    folder.prepare()
    (stage,) = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    moved = stage / moment
    moved.rename(tmp_path / "away")  # as if somebody had cleaned up
    with pytest.raises(InputError, match="--proc: cannot be written: No such file or directory"):
        folder.publish()
    folder.discard()
    found = {name: text for name, text in tree(tmp_path).items() if not name.startswith("away")}
    assert found == first


# --- both together --------------------------------------------------------------------------------------


def test_trace_and_proc_files_may_stand_side_by_side(tmp_path: Path, mm: Mm) -> None:
    watch = observer(tmp_path / "new" / "t", tmp_path / "new")
    observe(watch, mm)
    assert sorted(os.listdir(tmp_path / "new")) == []
    watch.commit(1)
    watch.close()
    assert sorted(os.listdir(tmp_path / "new")) == ["after", "before", "t"]
    assert [line.event for line in FtraceReader(tmp_path / "new" / "t")] == ["mm_vmscan_kswapd_sleep"]


def test_nothing_asked_for_is_nothing_done(tmp_path: Path, mm: Mm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    watch = observer()
    observe(watch, mm)
    watch.commit(1)
    watch.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("finished", [False, True])
def test_without_commit_nothing_is_left(tmp_path: Path, mm: Mm, finished: bool) -> None:
    (tmp_path / "t").write_text("old")
    watch = observer(tmp_path / "t", tmp_path / "p" / "q")
    if finished:
        observe(watch, mm)
    watch.close()
    watch.close()
    assert tree(tmp_path) == {"t": "old"}


def test_proc_files_that_cannot_be_written_keep_the_old_trace(tmp_path: Path, mm: Mm) -> None:
    (tmp_path / "t").write_text("old")
    watch = observer(tmp_path / "t", tmp_path / "p")
    observe(watch, mm)
    (tmp_path / "p").rmdir()
    with pytest.raises(InputError, match="p: --proc: cannot be written: No such file or directory"):
        watch.commit(1)
    watch.close()
    assert tree(tmp_path) == {"t": "old"}


def test_a_trace_that_cannot_be_renamed_keeps_the_old_proc_files(tmp_path: Path, mm: Mm, other: Mm) -> None:
    snapshot(ProcFolder(tmp_path / "p"), mm, mm)
    first = tree(tmp_path / "p")
    watch = observer(tmp_path / "t", tmp_path / "p")
    observe(watch, other)
    (tmp_path / "t" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match="t: --trace: cannot be written: Is a directory"):
        watch.commit(1)
    watch.close()
    assert tree(tmp_path / "p") == first
    assert tree(tmp_path).keys() == {"t", "t/x", "p", *(f"p/{name}" for name in first)}


def test_a_trace_that_cannot_be_opened_takes_the_new_folder_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--trace: is a folder; name a file"):
        observer(tmp_path / "p", tmp_path / "p")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "trace", ["p/before", "p/after/t", "p/after/sys/vm/t", "q/../p/before/t", "link/after/t"]
)
def test_a_trace_in_the_place_of_proc_files_is_refused(tmp_path: Path, mm: Mm, trace: str) -> None:
    if trace != "p/before":
        snapshot(ProcFolder(tmp_path / "p"), mm, mm)
    (tmp_path / "q").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "p")
    before = tree(tmp_path)
    with pytest.raises(InputError) as fault:
        observer(tmp_path / trace, tmp_path / "p")
    assert str(fault.value) == f"{tmp_path / trace}: --trace: lies where --proc writes; name another place"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"events": "vmscan"}, "--events says what --trace writes; name a file with --trace"),
        ({"trace_options": "irq-info"}, "--trace-options says what --trace writes; name a file with --trace"),
    ],
)
def test_options_of_a_trace_without_a_trace(given: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as fault:
        Observer(**{"trace": None, "events": None, "trace_options": None, "proc": None} | given)
    assert str(fault.value) == said


def test_a_wrong_event_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'kmem'"):
        observer(tmp_path / "t", tmp_path / "p", "kmen")
    assert os.listdir(tmp_path) == []
