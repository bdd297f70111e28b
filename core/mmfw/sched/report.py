"""Deadlocks, found and told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmfw.sched.task import DeadlockError, Task, TaskState


@dataclass(frozen=True, slots=True)
class ExitOf:
    """Waiting for a task to end."""

    task: Task
    is_lock: bool = False

    def __str__(self) -> str:
        return f"exit of {self.task}"

    def holders(self) -> Sequence[Task]:
        """The task itself."""
        return (self.task,)


def _line(task: Task) -> str:
    target = task.waiting_for
    if target is None:
        return f"{task} sleeps and nothing will wake it"
    held = ", ".join(str(holder) for holder in target.holders())
    return f"{task} waits for {target}" + (f", held by {held}" if target.is_lock and held else "")


def deadlock(tasks: Iterable[Task]) -> DeadlockError | None:
    """The report on `tasks` when no event is left, or None if all of them may sleep on."""
    blocked = [task for task in tasks if task.state is TaskState.SLEEPING]
    stuck = [t for t in blocked if not t.daemon or (t.waiting_for is not None and t.waiting_for.is_lock)]
    if not stuck:
        return None
    return DeadlockError("deadlock, nothing can run any more: " + "; ".join(_line(task) for task in stuck))


def lock_cycle(task: Task) -> DeadlockError | None:
    """The report if `task`, about to wait for a lock, would wait for itself."""
    chain = _chain_to(task, task, set())
    if chain is None:
        return None
    return DeadlockError("deadlock, a circle of locks: " + "; ".join(_line(link) for link in chain))


def _chain_to(goal: Task, task: Task, seen: set[int]) -> list[Task] | None:
    target = task.waiting_for
    if target is None or not target.is_lock or task.state is not TaskState.SLEEPING:
        return None
    for holder in target.holders():
        if holder is goal:
            return [task]
        if holder.pid not in seen:
            seen.add(holder.pid)
            rest = _chain_to(goal, holder, seen)
            if rest is not None:
                return [task, *rest]
    return None
