"""What mm asks of whoever runs it: which CPU, which task flags, and where time passes.

In a simulation the scheduler answers. A replay answers with a machine on which nothing else runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mmfw.sched import Scheduler


class ExecContext(Protocol):
    """``current`` and the CPU it runs on."""

    @property
    def cpu(self) -> int:
        """``smp_processor_id()``."""
        ...

    @property
    def task_flags(self) -> int:
        """``current->flags`` (PF_MEMALLOC and its like)."""
        ...

    def charge(self, ns: int, account: str) -> None:
        """Let virtual time pass; another task may run meanwhile."""
        ...

    def might_sleep(self) -> None:
        """A point at which the kernel may switch tasks (``might_sleep()``, ``cond_resched()``)."""
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
    task_flags = 0

    def charge(self, ns: int, account: str) -> None:
        """Pass no time."""

    def might_sleep(self) -> None:
        """Switch to nobody."""


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
    def task_flags(self) -> int:
        """``current->flags``."""
        return self._sched.current.flags

    def charge(self, ns: int, account: str) -> None:
        """Let virtual time pass for the current task."""
        if not self.time_stands_still:
            self._sched.charge(ns, account)

    def might_sleep(self) -> None:
        """Give the CPU to a task that should have it."""
        if not self.time_stands_still:
            self._sched.might_sleep()
