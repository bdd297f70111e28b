"""``/proc/meminfo``: one amount a line (``meminfo_proc_show()``, fs/proc/meminfo.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import split_lines

_LINE: Final = re.compile(r"([\w()]+): +(\S+?)( +kB)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class MemInfoEntry:
    """One line.

    Attributes
    ----------
    name : str
        Label, without its colon.
    value : int
        KiB if `in_kb`, else a count of huge pages.
    in_kb : bool
        Whether the line ends in ``kB``.
    """

    name: str
    value: int
    in_kb: bool = True


@dataclass(frozen=True, slots=True)
class MemInfo:
    """The file: its lines in the order printed."""

    entries: tuple[MemInfoEntry, ...]

    def as_dict(self) -> dict[str, int]:
        """Values by name, in the order printed."""
        return {entry.name: entry.value for entry in self.entries}


def parse_meminfo(text: str, file: str = "meminfo", first_line: int = 1) -> MemInfo:
    """Read ``/proc/meminfo``; lines that 6.1 does not have are kept.

    Raises
    ------
    InputError
        A line is not a label and a number, or a label occurs twice.
    """
    entries: dict[str, MemInfoEntry] = {}
    for line in split_lines(text, file, first_line):
        if not line.text:
            continue
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("not a line of meminfo: 'Name:', a number and perhaps 'kB'")
        if match[1] in entries:
            raise line.error(f"{match[1]} occurs a second time")
        entries[match[1]] = MemInfoEntry(match[1], line.unsigned(match[2], match[1]), match[3] is not None)
    if not entries:
        raise InputError("no line; copy the file again", file=file, line=first_line)
    return MemInfo(tuple(entries.values()))


def format_meminfo(info: MemInfo) -> str:
    """Text as the kernel prints it."""
    lines = []
    for entry in info.entries:
        label = entry.name + ":"
        # Labels of 16 characters and more have a column of their own in the kernel: 19 wide, then "%5lu".
        head = f"{label:<19}{entry.value:>5}" if len(label) >= 16 else _short(label, entry)
        lines.append(head + (" kB\n" if entry.in_kb else "\n"))
    return "".join(lines)


def _short(label: str, entry: MemInfoEntry) -> str:
    if label.startswith("HugePages_"):
        return f"{label:<19}{entry.value:>5}"
    return f"{label:<16}{entry.value:>8}"
