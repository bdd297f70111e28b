"""A block device on virtual time: one queue, a fixed latency and a rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw.sched import Scheduler


class BlockDevice:
    """A device that serves requests in order.

    Parameters
    ----------
    sched : Scheduler
        Its clock.
    page_ns : int
        Time to move one page.
    latency_ns : int
        Time of each request besides.
    """

    def __init__(self, sched: Scheduler, *, page_ns: int, latency_ns: int = 0) -> None:
        self._sched = sched
        self._page_ns = page_ns
        self._latency_ns = latency_ns
        self._free_at = 0

    def submit(self, nr_pages: int, on_done: Callable[[], object] | None = None) -> int:
        """Queue a request.

        Parameters
        ----------
        nr_pages : int
            Its size.
        on_done : callable, optional
            Called in interrupt context when it is done.

        Returns
        -------
        int
            Virtual time, in ns, at which it will be done.
        """
        start = max(self._sched.now, self._free_at)
        self._free_at = done = start + self._latency_ns + nr_pages * self._page_ns
        if on_done is not None:
            self._sched.call_at(done, on_done)
        return done
