"""Traced runs for tests, and their lines cut up by white space and '=', knowing nothing of how mmfw prints them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any, NamedTuple

from mmfw.run import RunRequest, RunResult

DATA = Path(__file__).parent / "data"

_LINE = re.compile(r"\s*(.+-\d+)\s+\[(\d+)\]\s+(?:(\S{5})\s+)?(\d+\.\d+): (\w+): (.*)")


class Line(NamedTuple):
    """One line; `time` in microseconds."""

    task: str
    cpu: int
    flags: str | None
    time: int
    event: str
    text: str

    def figure(self, name: str) -> int:
        """The number after ``name=``."""
        match = re.search(rf"\b{name}=(0x[0-9a-f]+|-?\d+)", self.text)
        assert match is not None, self
        return int(match[1], 0)


def read_lines(path: Path) -> list[Line]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii")
    lines = []
    for each in text.splitlines():
        if not each.startswith("#"):
            match = _LINE.fullmatch(each)
            assert match is not None, each
            task, cpu, flags, time, event, said = match.groups()
            lines.append(Line(task, int(cpu), flags, int(time.replace(".", "")), event, said))
    return lines


class TracedRun(NamedTuple):
    """What a run gave, and what it left behind."""

    result: RunResult
    trace: Path
    proc: Path
    lines: list[Line]


def pressure_request(**changes: Any) -> RunRequest:
    """LRU reclaim, swap and page cache, up to the OOM killer; on two CPUs."""
    folder = DATA / "trace"
    wanted = {
        "scenario": str(folder / "pressure.toml"),
        "plugin_files": (folder / "pressure.py",),
        "duration": "40ms",
    }
    return RunRequest(**wanted | changes)


def toy_request(**changes: Any) -> RunRequest:
    """Compaction, kswapd and direct reclaim for order 9 of a driver that has a shrinker."""
    folder = DATA / "toy"
    wanted = {
        "scenario": str(folder / "toy-loop.toml"),
        "plugin_files": (folder / "toy.py",),
        "duration": "40ms",
    }
    return RunRequest(**wanted | changes)
