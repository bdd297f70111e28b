"""Phases of a run: which workloads run when, on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mmfw.sched import Scheduler, Task


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase.

    Attributes
    ----------
    name : str
        As the scenario names it.
    duration_ns : int or None
        Virtual time; None if it ends when its tasks have returned.
    spawn : callable
        Starts its workloads and returns their tasks.
    """

    name: str
    duration_ns: int | None
    spawn: Callable[[], Sequence[Task]]


class PhaseListener(Protocol):
    """Who wants to know where the run stands; called while no time passes."""

    def phase_begins(self, name: str) -> None:
        """A phase is about to start its workloads."""
        ...

    def phase_ends(self, name: str) -> None:
        """A phase is over, its workloads ended or about to end."""
        ...


class _Nobody:
    def phase_begins(self, name: str) -> None:
        """Not listening."""

    def phase_ends(self, name: str) -> None:
        """Not listening."""


class Phases:
    """Runs phases one after another, as a task of its own that only sleeps and starts others.

    A workload still running as its phase ends is killed, and the next phase waits until it is gone.

    Parameters
    ----------
    sched : Scheduler
        The clock.
    plans : sequence of PhasePlan
        In order.

    Attributes
    ----------
    done : bool
        Whether the last phase is over.
    clients : list of Task
        Every task started so far.
    listener : PhaseListener
        Told of each phase.
    """

    def __init__(self, sched: Scheduler, plans: Sequence[PhasePlan]) -> None:
        self._sched = sched
        self._plans = tuple(plans)
        self._current: str | None = None
        self._cut = False
        self.done = not self._plans
        self.clients: list[Task] = []
        self.listener: PhaseListener = _Nobody()

    def start(self) -> None:
        """Begin with the first phase."""
        if self._plans:
            self._sched.spawn(self._run, name="phases", daemon=True)

    def cut(self) -> None:
        """End here: account for the phase that the run's end cuts short, and begin no other; called when no task runs."""
        self._cut = True
        if self._current is not None:
            self.listener.phase_ends(self._current)
            self._current = None

    def _run(self) -> None:
        sched = self._sched
        for plan in self._plans:
            self._current = plan.name
            self.listener.phase_begins(plan.name)
            tasks = plan.spawn()
            self.clients += tasks
            if plan.duration_ns is None:
                for task in tasks:
                    sched.join(task)
            else:
                sched.nanosleep(plan.duration_ns)
            if self._cut:
                return
            self.listener.phase_ends(plan.name)
            self._current = None
            for task in tasks:
                sched.send_sigkill(task)
            for task in tasks:
                sched.join(task)
            if self._cut:
                return
        self.done = True
        sched.stop()
