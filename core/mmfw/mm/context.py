"""What mm asks of whoever runs it: which CPU, which task flags, and where time passes.

In a simulation the scheduler answers. A replay answers with a machine on which nothing else runs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from mmfw.sched import PF_KSWAPD

if TYPE_CHECKING:
    from mmfw.sched import Scheduler


class ExecContext(Protocol):
    """``current`` and the CPU it runs on."""

    @property
    def cpu(self) -> int:
        """``smp_processor_id()``."""
        ...

    @property
    def now(self) -> int:
        """The clock, in ns."""
        ...

    @property
    def task_flags(self) -> int:
        """``current->flags`` (PF_MEMALLOC and its like)."""
        ...

    @property
    def current(self) -> object:
        """The running task; only to tell it from others."""
        ...

    @property
    def is_kswapd(self) -> bool:
        """``current_is_kswapd()``."""
        ...

    @property
    def fatal_signal_pending(self) -> bool:
        """Whether the running task is being killed."""
        ...

    @property
    def quiet_ns(self) -> int:
        """Virtual time that may pass before anything but the running task does something, ns."""
        ...

    def charge(self, ns: int, account: str) -> None:
        """Let virtual time pass; another task may run meanwhile."""
        ...

    def might_sleep(self) -> None:
        """A point at which the kernel may switch tasks (``might_sleep()``, ``cond_resched()``)."""
        ...

    def need_resched(self) -> bool:
        """Whether another task should have this CPU."""
        ...

    def memalloc_noreclaim(self) -> AbstractContextManager[object]:
        """``with``: PF_MEMALLOC is set, so that the task's allocations do not reclaim."""
        ...

    def schedule_timeout(self, ns: int) -> None:
        """Sleep (``schedule_timeout_uninterruptible()``)."""
        ...


class WaitQueueHead(Protocol):
    """A wait queue as ``wakeup_kswapd()`` sees it."""

    def waitqueue_active(self) -> bool:
        """Whether a task sleeps on it."""
        ...

    def wake_up(self) -> object:
        """Wake what sleeps on it."""
        ...


class IrqsOff:
    """A machine on which nothing but the caller runs, and no time passes: a replayed trace."""

    cpu = 0
    now = 0
    task_flags = 0
    current: object = None
    is_kswapd = False
    fatal_signal_pending = False
    quiet_ns = 1 << 62

    def charge(self, ns: int, account: str) -> None:
        """Pass no time."""

    def might_sleep(self) -> None:
        """Switch to nobody."""

    def need_resched(self) -> bool:
        """Nobody waits for the CPU."""
        return False

    def memalloc_noreclaim(self) -> AbstractContextManager[object]:
        """No flag to set."""
        return nullcontext()

    def schedule_timeout(self, ns: int) -> None:
        """Pass no time."""


class SleepingOnce:
    """A kswapd that sleeps until its first wake-up and then never gets to run."""

    def __init__(self) -> None:
        self._asleep = True

    def waitqueue_active(self) -> bool:
        """Whether it has not been woken yet."""
        return self._asleep

    def wake_up(self) -> None:
        """Take it off the wait queue."""
        self._asleep = False


class SchedContext:
    """The scheduler's answers; while a machine is being set up no time passes.

    Parameters
    ----------
    sched : Scheduler
        Whose ``current`` and CPU are meant.
    """

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self.time_stands_still = True

    @property
    def cpu(self) -> int:
        """``smp_processor_id()``."""
        return self._sched.current_cpu

    @property
    def now(self) -> int:
        """The clock, in ns."""
        return self._sched.now

    @property
    def task_flags(self) -> int:
        """``current->flags``."""
        return self._sched.current.flags

    @property
    def current(self) -> object:
        """The running task."""
        return self._sched.current

    @property
    def is_kswapd(self) -> bool:
        """``current_is_kswapd()``."""
        return bool(self._sched.current.flags & PF_KSWAPD)

    @property
    def fatal_signal_pending(self) -> bool:
        """Whether the running task is being killed."""
        return self._sched.current.fatal_signal_pending

    @property
    def quiet_ns(self) -> int:
        """Virtual time that may pass before anything but the running task does something, ns."""
        return 1 << 62 if self.time_stands_still else self._sched.quiet_ns

    def charge(self, ns: int, account: str) -> None:
        """Let virtual time pass for the current task."""
        if not self.time_stands_still:
            self._sched.charge(ns, account)

    def might_sleep(self) -> None:
        """Give the CPU to a task that should have it."""
        if not self.time_stands_still:
            self._sched.might_sleep()

    def need_resched(self) -> bool:
        """Whether another task should have this CPU."""
        return not self.time_stands_still and self._sched.need_resched()

    def memalloc_noreclaim(self) -> AbstractContextManager[object]:
        """``with``: PF_MEMALLOC is set for the running task."""
        return self._sched.memalloc_noreclaim()

    def schedule_timeout(self, ns: int) -> None:
        """Sleep, unless time stands still."""
        if not self.time_stands_still:
            self._sched.schedule_timeout(ns)
