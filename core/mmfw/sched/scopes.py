"""Sections of code that change what the current task may do."""

from __future__ import annotations

from collections.abc import Callable

from mmfw.sched.task import SchedError, Task


class FlagScope:
    """``memalloc_*_save`` .. ``memalloc_*_restore``: sets a flag of a task, and puts back what was there."""

    __slots__ = ("_flag", "_saved", "_task")

    def __init__(self, task: Task, flag: int) -> None:
        self._task = task
        self._flag = flag
        self._saved = 0

    def __enter__(self) -> None:
        self._saved = self._task.flags & self._flag
        self._task.flags |= self._flag

    def __exit__(self, *exc: object) -> None:
        self._task.flags = (self._task.flags & ~self._flag) | self._saved


class PreemptScope:
    """``preempt_disable`` .. ``preempt_enable``; `enabled` is called when the outermost one ends."""

    __slots__ = ("_enabled", "_task")

    def __init__(self, task: Task, enabled: Callable[[], None]) -> None:
        self._task = task
        self._enabled = enabled

    def __enter__(self) -> None:
        self._task.preempt_count += 1

    def __exit__(self, *exc: object) -> None:
        if self._task.preempt_count == 0:
            raise SchedError(f"task {self._task} enabled preemption more often than it disabled it")
        self._task.preempt_count -= 1
        if self._task.preempt_count == 0:
            self._enabled()
