"""ftrace's text, both directions: ``comm-pid [cpu] flags seconds.micros: event: body``.

The context is what ``trace_print_context()`` prints (kernel/trace/trace_output.c); the flags are there with the option
irq-info, which is on by default. Bodies of the vmscan, compaction, kmem and oom tracepoints are typed
(`mmfw.proc.vmscan_trace` and its neighbours), those of other events stay text. A line printed by ``trace_printk()``
carries the name of the calling function in place of an event's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mmfw.errors import InputError
from mmfw.proc.compaction_trace import COMPACTION_EVENTS
from mmfw.proc.kmem_trace import KMEM_EVENTS
from mmfw.proc.oom_trace import OOM_EVENTS
from mmfw.proc.stream import LineStream
from mmfw.proc.tracebody import Body, Text, format_body, parse_body
from mmfw.proc.vmscan_trace import PROBE_LINES, VMSCAN_EVENTS

#: A task's name has 15 characters at most; without a bound a long line of rubbish takes time in proportion to its square.
_LINE: Final = re.compile(
    r" *(\S(?:.{0,62}\S)?)-(\d{1,10}) +\[(\d{3,6})\](?: ([.0-9A-Za-z#]{4,6}))? +"
    r"(\d{1,12})\.(\d{6}): ([\w.]{1,128}): (.*)",
    re.ASCII,
)
_ENTRIES: Final = re.compile(r"# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18}) +#P:\d+", re.ASCII)
_EVENTS: Final = {cls.event: cls for cls in (*VMSCAN_EVENTS, *COMPACTION_EVENTS, *KMEM_EVENTS, *OOM_EVENTS)}
#: What ``trace`` prints above the lines of an instance (``s_show()`` and what it calls, kernel/trace/trace.c).
_HEADER: Final = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {entries}/{entries}   #P:{nr_cpus}
#
"""
#: Column heads with the option irq-info, and without.
_COLUMNS_IRQ: Final = """\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
_COLUMNS: Final = """\
#           TASK-PID     CPU#     TIMESTAMP  FUNCTION
#              | |         |         |         |
"""


@dataclass(frozen=True, slots=True)
class FtraceLine:
    """One line of a trace.

    Attributes
    ----------
    comm, pid, cpu : str, int, int
        Task and CPU.
    flags : str
        irqs-off, need-resched, hard/softirq, preempt depth and migrate-disable, as printed; empty in a trace taken
        with the option noirq-info.
    usecs : int
        Timestamp of the trace clock, microseconds.
    event : str
        Tracepoint, or function that called ``trace_printk()``.
    body : Body
        What it says.
    number : int
        Line of the file, counted from 1.
    """

    comm: str
    pid: int
    cpu: int
    flags: str
    usecs: int
    event: str
    body: Body
    number: int = 0


class FtraceHead(NamedTuple):
    """A line as far as every event's is alike, and what its event says as text; attributes as in `FtraceLine`."""

    comm: str
    pid: int
    cpu: int
    flags: str
    usecs: int
    event: str
    said: str


def split_ftrace_line(text: str) -> FtraceHead | None:
    """A line's context and text, whatever its event; None if it is not a line of ftrace."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    comm, pid, cpu, flags, seconds, micros, event, said = match.groups()
    usecs = int(seconds) * 1_000_000 + int(micros)
    return FtraceHead(comm, int(pid), int(cpu), flags or "", usecs, event, said)


def parse_ftrace_line(text: str, file: str = "trace", number: int = 1) -> FtraceLine:
    """Read one line.

    Raises
    ------
    InputError
        It is not a line of ftrace, or its body not what its event prints; names file and line.
    """
    head = split_ftrace_line(text)
    if head is None:
        shown = text if len(text) <= 120 else text[:120] + "..."
        raise InputError(
            f"{shown!r} is not a line of ftrace: 'comm-pid [cpu] flags seconds.micros: event: body'",
            file=file,
            line=number,
        )
    try:
        body = parse_body(_body_class(head.event, head.said), head.said)
    except ValueError as fault:
        raise InputError(f"{head.event}: {fault}", file=file, line=number) from None
    return FtraceLine(head.comm, head.pid, head.cpu, head.flags, head.usecs, head.event, body, number)


def _body_class(event: str, said: str) -> type[Body]:
    found = _EVENTS.get(event)
    if found is not None:
        return found
    for beginning, cls in PROBE_LINES:
        if said.startswith(beginning):
            return cls
    return Text


def format_ftrace_header(entries: int, nr_cpus: int, *, irq_info: bool = True) -> str:
    """Text above the lines of a trace from which nothing was lost.

    ``print_func_help_header_irq()``, or without `irq_info` ``print_func_help_header()``.
    """
    return _HEADER.format(entries=entries, nr_cpus=nr_cpus) + (_COLUMNS_IRQ if irq_info else _COLUMNS)


def format_ftrace_context(comm: str, pid: int, cpu: int, flags: str, usecs: int) -> str:
    """Text of a line as far as its timestamp (``trace_print_context()``); parameters as in `FtraceLine`."""
    seconds, micros = divmod(usecs, 1_000_000)
    return f"{comm:>16}-{pid:<7} [{cpu:03d}] {flags} {seconds:5d}.{micros:06d}"


def format_ftrace_line(line: FtraceLine) -> str:
    """Text of a line as the kernel prints it, without its newline."""
    context = format_ftrace_context(line.comm, line.pid, line.cpu, line.flags, line.usecs)
    return f"{context}: {line.event}: {format_body(line.body)}"


class FtraceReader:
    """The lines of a trace file, one in memory at a time.

    Parameters
    ----------
    path : Path
        ftrace's ``trace`` file, gzip or plain.

    Attributes
    ----------
    wrapped : bool
        The ring buffer overwrote its oldest lines; known once the first line has been given.
    """

    def __init__(self, path: Path) -> None:
        self._stream = LineStream(path)
        self._entries: int | None = None
        self.wrapped = False

    def error(self, message: str, line: int | None = None) -> InputError:
        """Error about a line of this file."""
        return self._stream.error(message, line)

    def __iter__(self) -> Iterator[FtraceLine]:
        """Lines in order; the header is checked against their number.

        Raises
        ------
        InputError
            The file is damaged, a line is not ftrace's, or lines are missing.
        """
        file, given = str(self._stream.path), 0
        for text in self._stream:
            if text.startswith("#"):
                self._header(text)
                continue
            if text.startswith("CPU:") and text.endswith(" EVENTS]"):
                raise self.error("the ring buffer lost events here, so the trace is not whole")
            if self._entries is None:
                raise self.error("a line before ftrace's header '# entries-in-buffer/entries-written: N/N'")
            given += 1
            yield parse_ftrace_line(text, file, self._stream.number)
        if self._entries is None:
            raise self.error("the trace has no header '# entries-in-buffer/entries-written: N/N'")
        if given != self._entries:
            raise self.error(f"the header promises {self._entries} lines, the file has {given}")

    def _header(self, text: str) -> None:
        if not text.startswith("# entries"):
            return
        match = _ENTRIES.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise self.error("should be '# entries-in-buffer/entries-written: N/M   #P:CPUS' with N <= M")
        self._entries = int(match[1])
        self.wrapped = int(match[1]) < int(match[2])
