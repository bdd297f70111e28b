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
from mmfw.validate.captured import trace_lines

#: The requests of one part take some seconds; a rebuilt load would wait as long as a damaged trace says.
LONGEST_NS: Final = 600 * 10**9

_LINE: Final = re.compile(
    r" *\S.*-(\d{1,10}) +\[\d{3,6}\] .*?(\d{1,9})\.(\d{6}): \w+: (?:probe: req (\d{1,9}) .*)?", re.ASCII
)


def request_starts(path: Path) -> dict[int, int]:
    """When each request of a trace began, by its number; ns since the first one known.

    The module prints a line when a request is over. It began with the first event of the same task since the line
    before, or, where nothing happened, just then.

    Parameters
    ----------
    path : Path
        ``MASK.trace.gz``. Requests that its ring buffer has lost are missing.

    Raises
    ------
    InputError
        The file cannot be read, or its times go backwards or take longer than `LONGEST_NS`.
    """
    known: dict[int, int] = {}
    requester = ""
    began: int | None = None
    for text in trace_lines(path):
        match = _LINE.match(text)
        if match is None:
            continue
        pid, seconds, micros, request = match.groups()
        usecs = int(seconds) * 1_000_000 + int(micros)
        if request is not None:
            known[int(request)] = usecs if began is None else began
            requester, began = pid, None
        elif pid == requester and began is None:
            began = usecs
    first = next(iter(known.values()), 0)
    starts = {number: (usecs - first) * 1000 for number, usecs in known.items()}
    last, before = -1, 0
    for number, start in starts.items():
        if number <= last or not before <= start <= LONGEST_NS:
            raise InputError(
                f"request {number} began {start / 1e9:.6f} s after the first one, the one printed before it, {last}, "
                f"{before / 1e9:.6f} s; they should be in order, and take {LONGEST_NS // 10**9} s at most",
                file=str(path),
            )
        last, before = number, start
    return starts
