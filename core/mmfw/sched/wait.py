"""Waiting for an event: wait queues and fences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmfw.sched.core import MAX_SCHEDULE_TIMEOUT, Scheduler
from mmfw.sched.dispatch import Timer
from mmfw.sched.task import SchedError, Task


@dataclass(slots=True, eq=False)
class _Waiter:
    task: Task
    exclusive: bool


class WaitQueue:
    """``wait_queue_head_t``: tasks that sleep until somebody wakes them, first come first served.

    Parameters
    ----------
    sched : Scheduler
        Whose tasks wait.
    name : str
        As the reports of deadlocks show it, such as ``kswapd_wait``.
    """

    is_lock = False

    def __init__(self, sched: Scheduler, name: str = "wait queue") -> None:
        self.name = name
        self._sched = sched
        self._waiters: list[_Waiter] = []

    def __str__(self) -> str:
        return self.name

    def holders(self) -> Sequence[Task]:
        """Unknown: anybody may wake it."""
        return ()

    def waitqueue_active(self) -> bool:
        """Whether a task is queued (include/linux/wait.h)."""
        return bool(self._waiters)

    def prepare_to_wait(self, *, exclusive: bool = False) -> None:
        """Queue the current task; a wakeup from here on is not lost (kernel/sched/wait.c).

        What follows is `Scheduler.schedule_timeout`, then `finish_wait`. Exclusive waiters are queued last.
        """
        self._sched.prepare_to_sleep()
        task = self._sched.current
        place = len(self._waiters)
        for index, waiter in enumerate(self._waiters):
            if waiter.task is task:
                return
            if waiter.exclusive and not exclusive:
                place = min(place, index)
        self._waiters.insert(place, _Waiter(task, exclusive))

    def finish_wait(self) -> None:
        """Take the current task off the queue, woken or not."""
        self._sched.abort_sleep()
        task = self._sched.current
        if self._waiters:
            self._waiters = [waiter for waiter in self._waiters if waiter.task is not task]

    def wait(self, *, exclusive: bool = False) -> None:
        """Sleep until the next wakeup."""
        self.wait_timeout(MAX_SCHEDULE_TIMEOUT, exclusive=exclusive)

    def wait_timeout(self, timeout: int, *, exclusive: bool = False) -> int:
        """Sleep until the next wakeup, at most `timeout` ns; returns the ns left, 0 on a timeout."""
        self._sched.might_sleep()
        self.prepare_to_wait(exclusive=exclusive)
        try:
            return self._sched.schedule_timeout(timeout, self)
        finally:
            self.finish_wait()

    def wait_event(self, condition: Callable[[], bool]) -> None:
        """Sleep until `condition` holds; it is asked at once and after every wakeup."""
        self.wait_event_timeout(condition, MAX_SCHEDULE_TIMEOUT)

    def wait_event_timeout(self, condition: Callable[[], bool], timeout: int) -> int:
        """As `wait_event`, at most `timeout` ns.

        Returns
        -------
        int
            0 if the time is over and `condition` still fails, else the ns left, at least 1.
        """
        self._sched.might_sleep()
        left = timeout
        while not condition():
            if left == 0:
                return 0
            left = self.wait_timeout(left)
        return max(left, 1)

    def wake_up(self, nr_exclusive: int = 1) -> int:
        """Wake every waiter that is not exclusive and up to `nr_exclusive` that are; returns how many."""
        woken = 0
        for waiter in list(self._waiters):
            if waiter.exclusive and nr_exclusive == 0:
                break
            if not self._sched.wake_up_process(waiter.task):
                continue
            woken += 1
            self._waiters.remove(waiter)
            nr_exclusive -= waiter.exclusive
        return woken

    def wake_up_all(self) -> int:
        """Wake every waiter; returns how many woke."""
        return self.wake_up(len(self._waiters))


class Fence:
    """``struct dma_fence``: something that will be finished once, by a call or at a time.

    Parameters
    ----------
    sched : Scheduler
        Whose clock and tasks.
    deadline : int, optional
        When it signals by itself, in ns of virtual time.
    name : str
        As the reports of deadlocks show it.
    """

    is_lock = False

    def __init__(self, sched: Scheduler, deadline: int | None = None, name: str = "fence") -> None:
        self.name = name
        self.signaled_at: int | None = None
        self._sched = sched
        self._queue = WaitQueue(sched, name)
        self._callbacks: list[Callable[[], object]] = []
        self._timer: Timer | None = None
        if deadline is not None:
            self._timer = sched.call_at(deadline, self.signal)

    def __str__(self) -> str:
        return self.name

    @property
    def is_signaled(self) -> bool:
        """Whether it is finished (``dma_fence_is_signaled``)."""
        return self.signaled_at is not None

    def signal(self) -> bool:
        """Finish it and wake who waits; False if it was finished (``dma_fence_signal`` gives -EINVAL)."""
        if self.signaled_at is not None:
            return False
        self.signaled_at = self._sched.now
        if self._timer is not None:
            self._timer.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for fn in callbacks:
            fn()
        self._queue.wake_up_all()
        return True

    def add_callback(self, fn: Callable[[], object]) -> bool:
        """Have `fn` called when it signals, in whatever context; False if it has already (``-ENOENT``)."""
        if self.is_signaled:
            return False
        self._callbacks.append(fn)
        return True

    def wait(self) -> None:
        """Sleep until it is signaled (``dma_fence_wait``)."""
        self._queue.wait_event(lambda: self.is_signaled)

    def wait_timeout(self, timeout: int) -> int:
        """Sleep until it is signaled, at most `timeout` ns (``dma_fence_wait_timeout``).

        Returns
        -------
        int
            ns left, at least 1, if it is signaled; else 0.
        """
        if timeout < 0:
            raise SchedError(f"waiting {timeout} ns for {self}: time does not go backwards")
        if timeout == 0:
            return int(self.is_signaled)
        return self._queue.wait_event_timeout(lambda: self.is_signaled, timeout)
