"""``/proc/vmstat``: one counter a line (``vmstat_show()``, mm/vmstat.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import split_lines

_LINE: Final = re.compile(r"(\w+) +(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class VmStat:
    """The file.

    Attributes
    ----------
    counters : tuple of (str, int)
        Names and values in the order printed. Units are the kernel's: pages for ``nr_*``, events otherwise.
    """

    counters: tuple[tuple[str, int], ...]

    def as_dict(self) -> dict[str, int]:
        """Counters by name, in the order printed."""
        return dict(self.counters)


def parse_vmstat(text: str, file: str = "vmstat", first_line: int = 1) -> VmStat:
    """Read ``/proc/vmstat``; counters that 6.1 does not have are kept.

    Raises
    ------
    InputError
        A line is not a name and a number, or a name occurs twice.
    """
    counters: dict[str, int] = {}
    for line in split_lines(text, file, first_line):
        if not line.text:
            continue
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("not a line of vmstat: a counter's name, a blank and a number")
        if match[1] in counters:
            raise line.error(f"counter {match[1]} occurs a second time")
        counters[match[1]] = line.unsigned(match[2], match[1])
    if not counters:
        raise InputError("no counter; copy the file again", file=file, line=first_line)
    return VmStat(tuple(counters.items()))


def format_vmstat(stat: VmStat) -> str:
    """Text as the kernel prints it."""
    return "".join(f"{name} {value}\n" for name, value in stat.counters)
