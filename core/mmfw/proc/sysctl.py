"""``/proc/sys/vm`` as one text: a sysctl's name and its values on each line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.proc.text import Line, split_lines

_LINE: Final = re.compile(r"([\w-]+)(.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class SysVm:
    """Sysctls under ``vm.``.

    Attributes
    ----------
    lines : tuple of (str, Line)
        Name and the line it stands on, in the order of the file.
    file : str
        Name for messages.
    """

    lines: tuple[tuple[str, Line], ...]
    file: str = "sys_vm"

    def values(self, name: str) -> tuple[int, ...] | None:
        """Numbers of one sysctl; None if the file does not have it.

        Raises
        ------
        InputError
            A value is not a number.
        """
        for key, line in self.lines:
            if key == name:
                return tuple(line.unsigned(word, f"vm.{name}") for word in line.text.split()[1:])
        return None

    def value(self, name: str) -> int | None:
        """Number of a sysctl that holds one; None if the file does not have it.

        Raises
        ------
        InputError
            It holds no number, or several.
        """
        for key, line in self.lines:
            if key == name:
                words = line.text.split()[1:]
                if len(words) != 1:
                    raise line.error(f"vm.{name} has {len(words)} values; it should have one")
                return line.unsigned(words[0], f"vm.{name}")
        return None


def parse_sys_vm(text: str, file: str = "sys_vm", first_line: int = 1) -> SysVm:
    """Read a listing of ``/proc/sys/vm``: on each line a name, then the file's content.

    Raises
    ------
    InputError
        A line has no name, or a name occurs twice.
    """
    found: dict[str, Line] = {}
    for line in split_lines(text, file, first_line):
        if not line.text:
            continue
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("not a sysctl's name and its values")
        if match[1] in found:
            raise line.error(f"vm.{match[1]} occurs a second time")
        found[match[1]] = line
    return SysVm(tuple(found.items()), file)
