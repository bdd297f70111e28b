"""Sleeping locks. Waiters get the lock in the order in which they asked, handed over by the holder.

The kernel lets a running task take a freed lock before a sleeping waiter gets there (optimistic spinning);
here the hand-over is strict, so that who holds a lock when is simple to predict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mmfw.sched.core import Scheduler
from mmfw.sched.task import SchedError, Task


class Mutex:
    """``struct mutex``: one owner, who alone may unlock it.

    Parameters
    ----------
    sched : Scheduler
        Whose tasks take it.
    name : str
        As messages show it.
    """

    is_lock = True

    def __init__(self, sched: Scheduler, name: str = "mutex") -> None:
        self.name = name
        self.owner: Task | None = None
        self._sched = sched
        self._waiters: list[Task] = []

    def __str__(self) -> str:
        return self.name

    def holders(self) -> Sequence[Task]:
        """The owner, if any."""
        return () if self.owner is None else (self.owner,)

    def is_locked(self) -> bool:
        """Whether somebody owns it."""
        return self.owner is not None

    def lock(self) -> None:
        """Take it, sleeping as long as needed (``mutex_lock``)."""
        self._sched.might_sleep()
        me = self._sched.current
        if self.owner is None:
            self.owner = me
            return
        self._waiters.append(me)
        try:
            while me in self._waiters:
                self._sched.schedule_timeout(waiting_for=self)
        except BaseException:
            if me in self._waiters:
                self._waiters.remove(me)
            else:
                self.unlock()  # it was handed over to a task that is being ended
            raise

    def trylock(self) -> bool:
        """Take it if it is free (``mutex_trylock``); returns whether."""
        if self.owner is not None:
            return False
        self.owner = self._sched.current
        return True

    def unlock(self) -> None:
        """Give it up, to the first waiter if there is one (``mutex_unlock``)."""
        me = self._sched.current
        if self.owner is not me:
            raise SchedError(f"{self}: unlocked by {me}, but {_owned(self.holders())}")
        self.owner = self._waiters.pop(0) if self._waiters else None
        if self.owner is not None:
            self._sched.wake_up_process(self.owner)

    def __enter__(self) -> Mutex:
        self.lock()
        return self

    def __exit__(self, *exc: object) -> None:
        self.unlock()


def _owned(holders: Sequence[Task]) -> str:
    return "held by " + ", ".join(str(task) for task in holders) if holders else "nobody holds it"


@dataclass(slots=True, eq=False)
class _RwWaiter:
    task: Task
    write: bool


class RwSem:
    """``struct rw_semaphore``: many readers or one writer; a waiting writer holds back later readers.

    Parameters as for `Mutex`. `owner` is the writer.
    """

    is_lock = True

    def __init__(self, sched: Scheduler, name: str = "rwsem") -> None:
        self.name = name
        self.owner: Task | None = None
        self._sched = sched
        self._readers: list[Task] = []
        self._waiters: list[_RwWaiter] = []

    def __str__(self) -> str:
        return self.name

    def holders(self) -> Sequence[Task]:
        """The writer, or the readers in the order in which they came."""
        return tuple(self._readers) if self.owner is None else (self.owner,)

    def down_read(self) -> None:
        """Take it for reading, sleeping as long as needed."""
        self._down(write=False)

    def down_write(self) -> None:
        """Take it for writing, sleeping as long as needed."""
        self._down(write=True)

    def down_read_trylock(self) -> bool:
        """Take it for reading if that needs no waiting; returns whether.

        As in the kernel it may overtake a waiter only when nobody waits.
        """
        return self._try(write=False)

    def down_write_trylock(self) -> bool:
        """Take it for writing if nobody holds it; returns whether."""
        return self._try(write=True)

    def up_read(self) -> None:
        """Give up one reading."""
        me = self._sched.current
        if me not in self._readers:
            raise SchedError(f"{self}: up_read() by {me}, but {_owned(self.holders())}")
        self._readers.remove(me)
        self._hand_over()

    def up_write(self) -> None:
        """Give up the writing."""
        self._assert_writer("up_write")
        self.owner = None
        self._hand_over()

    def downgrade_write(self) -> None:
        """Turn the writing into a reading without letting another writer in."""
        self._assert_writer("downgrade_write")
        self._readers.append(self._sched.current)
        self.owner = None
        self._hand_over()

    @contextmanager
    def read(self) -> Iterator[None]:
        """``with sem.read():``."""
        self.down_read()
        try:
            yield
        finally:
            self.up_read()

    @contextmanager
    def write(self) -> Iterator[None]:
        """``with sem.write():``."""
        self.down_write()
        try:
            yield
        finally:
            self.up_write()

    def _assert_writer(self, what: str) -> None:
        me = self._sched.current
        if self.owner is not me:
            raise SchedError(f"{self}: {what}() by {me}, but {_owned(self.holders())}")

    def _grantable(self, write: bool) -> bool:
        return self.owner is None and not (write and self._readers)

    def _grant(self, task: Task, write: bool) -> None:
        if write:
            self.owner = task
        else:
            self._readers.append(task)

    def _try(self, *, write: bool) -> bool:
        if self._waiters or not self._grantable(write):
            return False
        self._grant(self._sched.current, write)
        return True

    def _down(self, *, write: bool) -> None:
        self._sched.might_sleep()
        if self._try(write=write):
            return
        waiter = _RwWaiter(self._sched.current, write)
        self._waiters.append(waiter)
        try:
            while waiter in self._waiters:
                self._sched.schedule_timeout(waiting_for=self)
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif write:
                self.up_write()
            else:
                self.up_read()
            raise

    def _hand_over(self) -> None:
        while self._waiters and self._grantable(self._waiters[0].write):
            waiter = self._waiters.pop(0)
            self._grant(waiter.task, waiter.write)
            self._sched.wake_up_process(waiter.task)
