"""What mm asks of whoever runs it: which CPU, which task flags, and where time passes.

In a simulation the scheduler answers. A replay answers with a machine on which nothing else runs.
"""

from __future__ import annotations

from typing import Protocol


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
