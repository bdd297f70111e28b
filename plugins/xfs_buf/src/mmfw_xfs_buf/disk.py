"""The device that metadata is read from and written to: some channels, each with a fixed latency and a rate."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw import Mm


class MetaDisk:
    """A device that serves up to `channels` requests at once, each in the order of arrival.

    Simplified: a request does not wait for what the page cache reads and writes on the same device, and flash does not
    slow down. So metadata I/O is faster here than beside a busy copy.

    Parameters
    ----------
    mm : Mm
        Whose clock.
    latency_ns : int
        Time of each request, besides the transfer.
    page_ns : int
        Time to move 4096 bytes.
    channels : int
        Requests served at once.

    Attributes
    ----------
    nr_reads, nr_writes, bytes_read, bytes_written : int
        Requests submitted.
    """

    def __init__(self, mm: Mm, *, latency_ns: int, page_ns: int, channels: int) -> None:
        self._sched = mm.sched
        self._latency_ns = latency_ns
        self._page_ns = page_ns
        self._free_at = [0] * channels
        self.nr_reads = 0
        self.nr_writes = 0
        self.bytes_read = 0
        self.bytes_written = 0

    def read(self, nr_bytes: int, on_done: Callable[[], object]) -> None:
        """Queue a read; `on_done` is called in interrupt context."""
        self.nr_reads += 1
        self.bytes_read += nr_bytes
        self._sched.call_at(self._serve(nr_bytes), on_done)

    def write(self, nr_bytes: int, on_done: Callable[[], object]) -> None:
        """Queue a write."""
        self.nr_writes += 1
        self.bytes_written += nr_bytes
        self._sched.call_at(self._serve(nr_bytes), on_done)

    def _serve(self, nr_bytes: int) -> int:
        start = max(self._sched.now, heapq.heappop(self._free_at))
        done = start + self._latency_ns + nr_bytes * self._page_ns // 4096
        heapq.heappush(self._free_at, done)
        return done
