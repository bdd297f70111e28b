"""When a captured load asked: the one thing that a rebuilt load takes from the capture's trace.

A captured load asks, waits 200 us and asks again; under emulation that took 280 us a request in some parts and 460 in
others, as the host had time. How far kcompactd gets between two requests, and so how many of them succeed, hangs on it.
It is no property of the kernel that is to be judged, and no description tells it. So a rebuilt load asks when the
captured one did, or later if the simulated kernel took longer; what comes of a request is the simulation's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.ftrace import split_ftrace_line
from mmfw.validate.captured import open_trace

_REQUEST: Final = re.compile(r"probe: req (\d{1,9}) ", re.ASCII)
#: The requests of one part take some seconds; a rebuilt load would wait as long as a damaged trace says.
LONGEST_NS: Final = 600 * 10**9


def request_starts(path: Path) -> dict[int, int]:
    """When each request of a trace began, by its number; ns since the first one known.

    The module prints a line when a request is over. It began with the first event of the same task since the line
    before, or, where nothing happened, just then.

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
    began: dict[int, int] = {}  # by task: its first event since its last request
    requester = first = before = 0
    last = -1
    for text in stream:
        if text.startswith("#"):
            continue
        head = split_ftrace_line(text)
        if head is None:
            if _REQUEST.search(text):
                raise stream.error(
                    "a request whose time cannot be read; 'comm-pid [cpu] flags seconds.micros: function: "
                    "probe: req N ...' is wanted"
                )
            continue
        match = _REQUEST.match(head.said)
        if match is None:
            began.setdefault(head.pid, head.usecs)
            continue
        number, start = int(match[1]), began.pop(head.pid, head.usecs)
        if not known:
            requester, first, before = head.pid, start, start
        if head.pid != requester:
            raise stream.error(f"request {number} is task {head.pid}'s, those before it task {requester}'s")
        if number <= last or not before <= start <= first + LONGEST_NS // 1000:
            raise stream.error(
                f"request {number} began at {start / 1e6:.6f} s; requests should be in order, the one before it is "
                f"{last} at {before / 1e6:.6f} s, and take {LONGEST_NS // 10**9} s at most"
            )
        known[number] = (start - first) * 1000
        last, before = number, start
    if not known:
        raise InputError(
            "has no request ('probe: req N ...'); the trace is cut or of something else", file=str(path)
        )
    return known
