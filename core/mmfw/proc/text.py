"""Lines and numbers of the kernel's text files, with errors that name file and line.

The parsers of this package accept what a kernel prints and what an editor leaves of it (other runs of
blanks, a carriage return), and nothing else: a file cut in the middle, or changed by hand into
something no kernel prints, is an `InputError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmfw.errors import InputError

#: Largest ``unsigned long``: no kernel counter is greater.
ULONG_MAX: Final = 2**64 - 1
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_TEXT: Final = re.compile(r"[\t\n\r\x20-\x7e]*", re.ASCII)
_SECTION: Final = re.compile(r"== (\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its text without trailing blanks, and where it stands."""

    text: str
    file: str
    number: int

    def error(self, message: str) -> InputError:
        """Error that names this line."""
        return InputError(message, file=self.file, line=self.number)

    def unsigned(self, token: str, what: str) -> int:
        """Value of a decimal number as ``%lu`` prints it.

        Raises
        ------
        InputError
            `token` is not a decimal number that fits 64 bits.
        """
        if _NUMBER.fullmatch(token) is None or int(token) > ULONG_MAX:
            shown = token if len(token) <= 40 else token[:40] + "..."
            raise self.error(f"{what} is {shown!r}; it should be a decimal number below 2**64")
        return int(token)


def read_text(path: Path) -> str:
    """Content of a copied /proc file.

    Raises
    ------
    InputError
        The file is missing, unreadable, or not text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error}); copy it again", file=str(path)
        ) from error
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"byte {error.start} is {data[error.start]:#04x}, but the kernel prints ASCII; copy it again",
            file=str(path),
            line=line,
        ) from None


def split_lines(text: str, file: str, first_line: int = 1) -> list[Line]:
    """Cut a file's text into lines.

    Parameters
    ----------
    text : str
        Whole text of the file, or of a section of one.
    file : str
        Name for error messages.
    first_line : int
        Number of the text's first line in that file.

    Raises
    ------
    InputError
        The text is empty, ends in the middle of a line, or holds bytes that the kernel does not print.
    """
    if not text:
        raise InputError("the file is empty; copy it from a running machine", file=file, line=first_line)
    good = _TEXT.match(text)
    if good is not None and good.end() != len(text):
        line = first_line + text.count("\n", 0, good.end())
        raise InputError(
            f"character {text[good.end()]!r} is none that the kernel prints; copy the file again",
            file=file,
            line=line,
        )
    parts = text.split("\n")
    if parts[-1] != "":
        raise InputError(
            "the file ends in the middle of a line; copy the whole file, its last newline included",
            file=file,
            line=first_line + len(parts) - 1,
        )
    return [Line(part.rstrip(), file, first_line + i) for i, part in enumerate(parts[:-1])]


@dataclass(frozen=True, slots=True)
class Section:
    """One ``== name`` section of a capture that holds several /proc files in one.

    Attributes
    ----------
    name : str
        Name of the /proc file.
    text : str
        Its text.
    first_line : int
        Line of the capture on which that text starts.
    """

    name: str
    text: str
    first_line: int


def split_sections(text: str, file: str) -> tuple[Section, ...]:
    """Cut a capture of several /proc files, each after a line ``== name``, into its sections.

    Raises
    ------
    InputError
        Text stands before the first heading, or a name occurs twice.
    """
    sections: list[Section] = []
    name: str | None = None
    body: list[str] = []
    first_line = 1
    for number, part in enumerate([*text.splitlines(keepends=True), "== "], start=1):
        if not part.startswith("== "):
            if name is None:
                raise InputError("text stands before the first '== name' heading", file=file, line=number)
            body.append(part)
            continue
        if name is not None:
            sections.append(Section(name, "".join(body), first_line))
        heading = _SECTION.fullmatch(part.rstrip())
        if heading is None:
            if part == "== ":
                break
            raise InputError("a heading is '== ' and the name of a /proc file", file=file, line=number)
        name, body, first_line = heading[1], [], number + 1
        if any(section.name == name for section in sections):
            raise InputError(f"section {name!r} occurs a second time", file=file, line=number)
    return tuple(sections)
