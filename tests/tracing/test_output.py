"""A trace's file: whole or not at all, the same bytes for the same lines, and nothing left beside it."""

from __future__ import annotations

import gzip
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmfw.errors import InputError
from mmfw.proc.ftrace import FtraceReader
from mmfw.tracing.options import TraceOptions
from mmfw.tracing.output import TraceFile

DEFAULT = TraceOptions()
LINE = "            test-5       [000] .....     0.{:06d}: mm_vmscan_kswapd_sleep: nid=0\n"


def write(path: Path, nr_lines: int = 3, options: TraceOptions = DEFAULT, nr_cpus: int = 4) -> Path:
    out = TraceFile(path, options)
    for number in range(nr_lines):
        out.write(LINE.format(number))
    out.prepare(nr_cpus)
    out.publish()
    out.discard()
    return path


@contextmanager
def file_size_limit(nr_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond a size: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nr_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_header_and_lines(tmp_path: Path) -> None:
    assert write(tmp_path / "t").read_text() == (
        "# tracer: nop\n"
        "#\n"
        "# entries-in-buffer/entries-written: 3/3   #P:4\n"
        "#\n"
        "#                                _-----=> irqs-off/BH-disabled\n"
        "#                               / _----=> need-resched\n"
        "#                              | / _---=> hardirq/softirq\n"
        "#                              || / _--=> preempt-depth\n"
        "#                              ||| / _-=> migrate-disable\n"
        "#                              |||| /     delay\n"
        "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
        "#              | |         |   |||||     |         |\n" + "".join(map(LINE.format, range(3)))
    )


def test_header_without_irq_info(tmp_path: Path) -> None:
    assert write(tmp_path / "t", 0, TraceOptions(irq_info=False), 1).read_text() == (
        "# tracer: nop\n"
        "#\n"
        "# entries-in-buffer/entries-written: 0/0   #P:1\n"
        "#\n"
        "#           TASK-PID     CPU#     TIMESTAMP  FUNCTION\n"
        "#              | |         |         |         |\n"
    )


def test_many_lines_are_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "t", 15_000)  # more than one chunk
    assert [line.usecs for line in FtraceReader(path)] == list(range(15_000))


def test_gz_holds_the_same_text_and_depends_on_nothing_else(tmp_path: Path) -> None:
    plain = write(tmp_path / "t").read_bytes()
    first = write(tmp_path / "a.gz").read_bytes()
    (tmp_path / "folder").mkdir()
    now = time.time() + 5e6
    second = write(tmp_path / "folder" / "other.name.gz")
    os.utime(second, (now, now))
    assert second.read_bytes() == first
    assert gzip.decompress(first) == plain
    assert first[4:8] == b"\0\0\0\0"  # no time
    assert not first[3] & 8  # no name
    assert len(list(FtraceReader(second))) == 3


def test_nothing_shows_before_publish_and_nothing_stays_after_discard(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("old")
    out = TraceFile(path, DEFAULT)
    out.write(LINE.format(1))
    assert os.listdir(tmp_path) == ["t"]
    out.prepare(1)
    assert path.read_text() == "old"
    out.discard()
    assert os.listdir(tmp_path) == ["t"]
    assert path.read_text() == "old"
    write(path)
    assert os.listdir(tmp_path) == ["t"]
    assert path.read_text() != "old"


NR_LINES = 15_000
NR_BYTES = NR_LINES * len(LINE.format(0))


# The last has room for the lines, but not for the header too.
@pytest.mark.parametrize(
    ("name", "limit"), [("t", 0), ("t.gz", 0), ("t.gz", 1000), ("t.gz", NR_BYTES - 1), ("t", NR_BYTES + 500)]
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, name: str, limit: int) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    out = TraceFile(path, DEFAULT)
    with file_size_limit(limit):
        for number in range(NR_LINES):
            out.write(LINE.format(number))
        with pytest.raises(InputError) as fault:
            out.prepare(1)
    assert str(fault.value) == f"{path}: --trace: cannot be written: File too large"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_a_place_that_is_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    out = TraceFile(folder / "t", DEFAULT)
    folder.rmdir()
    with pytest.raises(InputError, match=r"t: --trace: cannot be written: No such file or directory$"):
        out.prepare(1)
    out.discard()


def test_a_folder_in_its_place_at_the_end(tmp_path: Path) -> None:
    out = TraceFile(tmp_path / "t", DEFAULT)
    out.prepare(1)
    (tmp_path / "t" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match=r"t: --trace: cannot be written: Is a directory$"):
        out.publish()
    out.discard()
    assert os.listdir(tmp_path) == ["t"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "t")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "t").read_text().startswith("# tracer: nop\n")
    assert sorted(os.listdir(tmp_path / "real")) == ["t"]


def test_the_longest_name_that_there_may_be(tmp_path: Path) -> None:
    assert len(list(FtraceReader(write(tmp_path / ("n" * 255))))) == 3


def test_a_rest_of_an_earlier_process_of_that_number_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".{os.getpid()}.trace.tmp").write_text("rest")
    write(tmp_path / "t")
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "--trace: is a folder; name a file"),
        ("none/t", "--trace: cannot be written: No such file or directory"),
        ("fifo", "--trace: is not a regular file; name one that may be replaced"),
        ("file/t", "--trace: cannot be written: Not a directory"),
        ("a\0b", "--trace: cannot be written: "),
        ("loop", "--trace: cannot be written: "),
        ("n" * 256, "--trace: cannot be written: File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_to(tmp_path: Path, name: str, said: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = tmp_path / name
    with pytest.raises(InputError) as fault:
        TraceFile(path, DEFAULT)
    assert str(fault.value).startswith(f"{path}: {said}")
    assert "\n" not in str(fault.value)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "loop"]
