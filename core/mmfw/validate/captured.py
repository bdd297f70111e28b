"""The real figures of dynamic captures: counters before and after, and what the trace tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.stream import LineStream
from mmfw.proc.text import read_text
from mmfw.proc.vmstat import parse_vmstat

_SECTION: Final = re.compile(r"^== (\w+)$", re.ASCII | re.MULTILINE)


def read_vmstat(path: Path) -> dict[str, int]:
    """Section ``== vmstat`` of a snapshot of /proc files.

    Raises
    ------
    InputError
        The file is missing or damaged, or has no such section.
    """
    if not path.is_file():
        raise InputError("is missing; a capture has snapshots of /proc before and after", file=str(path))
    text = read_text(path)
    marks = list(_SECTION.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        if mark[1] == "vmstat":
            body = text[mark.end() + 1 : end]
            line = text.count("\n", 0, mark.end() + 1) + 1
            return parse_vmstat(body, str(path), line).as_dict()
    raise InputError("has no section '== vmstat'", file=str(path))


def vmstat_growth(before: Path, after: Path) -> dict[str, int]:
    """What each counter grew by between two snapshots."""
    first, second = read_vmstat(before), read_vmstat(after)
    return {name: value - first.get(name, 0) for name, value in second.items()}


def open_trace(path: Path) -> LineStream:
    """A trace of a capture.

    Raises
    ------
    InputError
        It is not there.
    """
    if not path.is_file():
        raise InputError("is missing from the capture", file=str(path))
    return LineStream(path)


def trace_lines(path: Path) -> Iterator[str]:
    """Lines of a trace, comments left out.

    Raises
    ------
    InputError
        It cannot be read.
    """
    for line in open_trace(path):
        if not line.startswith("#"):
            yield line


def count_lines(path: Path, patterns: dict[str, str]) -> dict[str, int]:
    """How many lines of a trace match each pattern, by name."""
    compiled = {name: re.compile(pattern, re.ASCII) for name, pattern in patterns.items()}
    counts = dict.fromkeys(patterns, 0)
    for line in trace_lines(path):
        for name, pattern in compiled.items():
            if pattern.search(line):
                counts[name] += 1
    return counts
