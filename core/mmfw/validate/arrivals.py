"""When a captured load asked: the one thing that a rebuilt load takes from the capture's trace.

A captured load asks, waits 200 us or 1 ms and asks again; under emulation 200 us became 280 in some parts and 460 in
others, as the host had time. How far kswapd and kcompactd get between two requests, and so how many of them succeed,
hangs on it. It is no property of the kernel that is to be judged, and no description tells it. So a rebuilt load asks
when the captured one did, or later if the simulated kernel took longer; what comes of a request is the simulation's own.
Times are those of the trace's clock, so a load can begin at the captured time since boot too, in kcompactd's phase.

What that costs: where the captured load was late since kswapd had the CPU, the rebuilt one is late too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.ftrace import split_ftrace_line
from mmfw.proc.stream import LineStream
from mmfw.validate.captured import open_trace

_REQUEST: Final = re.compile(r"probe: req (\d{1,9}) ", re.ASCII)
_RESTORE: Final = re.compile(r"probe: gpu_restore bo=(\d{1,9}) ", re.ASCII)
#: The requests of one part take some seconds; a rebuilt load would wait as long as a damaged trace says.
LONGEST_NS: Final = 600 * 10**9


def request_starts(path: Path) -> dict[int, int]:
    """When each request of a series began, by its number; ns of the trace's clock, which counts from boot.

    Parameters
    ----------
    path : Path
        ``MASK.trace.gz``. Requests that its ring buffer has lost, the first ones, are missing.

    Raises
    ------
    InputError
        The file cannot be read or has no requests; or they are not in order of number and time, are several tasks',
        or take longer than `LONGEST_NS`.
    """
    stream = open_trace(path)
    known: dict[int, int] = {}
    last = -1
    for number, start_ns in _starts(stream, _REQUEST):
        if number <= last:
            raise stream.error(f"request {number} after request {last}; they should be in order")
        known[number] = start_ns
        last = number
    if not known:
        raise InputError(
            "has no request ('probe: req N ...'); the trace is cut or of something else", file=str(path)
        )
    return known


def restore_starts(path: Path) -> dict[int, int]:
    """When steps of an object loop began, by their numbers; ns of the trace's clock.

    A step is seen where it restores an object. So steps are known as long as objects are touched in turn and none is
    there when its turn comes; behind the first gap nothing is.

    Parameters
    ----------
    path : Path
        ``gpu.trace.gz``.

    Raises
    ------
    InputError
        As for `request_starts`, but there may be no restore.
    """
    known: dict[int, int] = {}
    nr_objects = 0
    for step, (number, start_ns) in enumerate(_starts(open_trace(path), _RESTORE)):
        if not nr_objects and step and number == 0:
            nr_objects = step
        if number != (step % nr_objects if nr_objects else step):
            break
        known[step] = start_ns
    return known


def _starts(stream: LineStream, line: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Number and begin of what a task's own lines report, ns.

    The module prints such a line when it is done. It began with the first event of the same task since the line before,
    or, where nothing happened, just then.
    """
    began: dict[int, int] = {}  # by task: its first event since its last line
    first: int | None = None
    task = before = 0
    for text in stream:
        if text.startswith("#"):
            continue
        head = split_ftrace_line(text)
        if head is None:
            if line.search(text):
                raise stream.error(
                    "a line of the load whose time cannot be read; 'comm-pid [cpu] flags seconds.micros: function: "
                    "probe: ...' is wanted"
                )
            continue
        match = line.match(head.said)
        if match is None:
            began.setdefault(head.pid, head.usecs)
            continue
        start = began.pop(head.pid, head.usecs)
        if first is None:
            task, first, before = head.pid, start, start
        if head.pid != task:
            raise stream.error(
                f"task {head.pid} reports {match[0].strip()!r}, those before it are task {task}'s"
            )
        if not before <= start <= first + LONGEST_NS // 1000:
            raise stream.error(
                f"{match[0].strip()!r} began at {start / 1e6:.6f} s, the one before it at {before / 1e6:.6f} s; they "
                f"should be in order, and take {LONGEST_NS // 10**9} s at most"
            )
        yield int(match[1]), start * 1000
        before = start
