"""Runs in forked processes: a process takes a few runs of one scenario and seed, so that they share its first state.

A process that dies takes one run with it; what it had not begun goes to another.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import greenlet

from mmfw.compare.plan import PlannedRun
from mmfw.errors import MmfwError
from mmfw.run import RunRequest, run

#: Runs that one process makes at the most, so that memory a plugin keeps is given back.
_LONGEST_BATCH: Final = 24
#: Virtual time that the parent runs of each scenario, so that compiled code is loaded before processes start.
WARM_UP: Final = "20ms"
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A run to make, and where its directory goes."""

    planned: PlannedRun
    place: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed."""

    planned: PlannedRun
    error: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: runs over, runs in all, and seconds left as far as one can tell."""

    nr_done: int
    nr_runs: int
    seconds_left: float | None


def batches(jobs: Iterable[Job], nr_processes: int) -> list[tuple[Job, ...]]:
    """Jobs as processes take them: of one scenario and seed each, and enough of them that no process idles long.

    Parameters
    ----------
    jobs : iterable of Job
        In their order.
    nr_processes : int
        How many work at a time.
    """
    groups = [
        list(group) for _, group in groupby(jobs, key=lambda job: (job.planned.scenario, job.planned.seed))
    ]
    if not groups:
        return []
    parts = -(-3 * nr_processes // len(groups)) if nr_processes > 1 else 1
    found = []
    for group in groups:
        size = min(-(-len(group) // parts), _LONGEST_BATCH)
        found += [tuple(group[i : i + size]) for i in range(0, len(group), size)]
    return found


def execute(
    jobs: Sequence[Job], nr_processes: int, progress: Callable[[Progress], None] | None = None
) -> list[Failure]:
    """Make runs, several at a time; each writes its directory.

    Parameters
    ----------
    jobs : sequence of Job
        What to run.
    nr_processes : int
        How many at a time.
    progress : callable, optional
        Called now and then.

    Returns
    -------
    list of Failure
        In the order of the jobs.
    """
    if not jobs:
        return []
    # A process forked from within a simulated task would have that task's stack for its own.
    assert greenlet.getcurrent().parent is None
    _warm_up(jobs)
    pool = _Pool(batches(jobs, nr_processes), nr_processes, len(jobs), progress)
    gc.collect()
    gc.freeze()  # so that a child's collector does not copy what it shares
    try:
        pool.run()
    finally:
        pool.kill()
        gc.unfreeze()
    order = {id(job.planned): i for i, job in enumerate(jobs)}
    return sorted(pool.failures, key=lambda failure: order[id(failure.planned)])


def _warm_up(jobs: Sequence[Job]) -> None:
    """Fill the compile cache, and load what all processes share."""
    seen: set[str] = set()
    for job in jobs:
        if job.planned.scenario not in seen:
            seen.add(job.planned.scenario)
            request = replace(job.planned.request, duration=WARM_UP, policies=())
            try:
                run(request)
            except Exception:
                continue  # the run itself will say so, with its seed


class _Worker:
    """One process and what it has been given."""

    def __init__(self, batch: tuple[Job, ...]) -> None:
        self.batch = batch
        self.at = 0
        context = get_context("fork")
        self.reports, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(batch, theirs, os.getpid()), daemon=True)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the process would write it once more
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which numpy's are idle
            self.process.start()
        theirs.close()


class _Pool:
    """Processes at work."""

    def __init__(
        self,
        todo: Iterable[tuple[Job, ...]],
        nr_processes: int,
        nr_runs: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._todo = deque(todo)
        self._nr_processes = nr_processes
        self._nr_runs = nr_runs
        self._progress = progress
        self._workers: dict[Any, _Worker] = {}
        self._nr_done = 0
        self._started = time.monotonic()
        self.failures: list[Failure] = []

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._todo or self._workers:
            while self._todo and len(self._workers) < self._nr_processes:
                worker = _Worker(self._todo.popleft())
                self._workers[worker.reports] = worker
            self._show()
            for reports in wait(list(self._workers), timeout=1.0):
                self._hear(self._workers[reports])

    def _hear(self, worker: _Worker) -> None:
        try:
            error: str | None = worker.reports.recv()
        except (EOFError, OSError):
            self._gone(worker)
            return
        self._over(worker, error)

    def _over(self, worker: _Worker, error: str | None) -> None:
        if error is not None:
            self.failures.append(Failure(worker.batch[worker.at].planned, error))
        worker.at += 1
        self._nr_done += 1

    def _gone(self, worker: _Worker) -> None:
        """A process has ended: by itself, or in the middle of a run."""
        worker.process.join()
        del self._workers[worker.reports]
        worker.reports.close()
        if worker.at < len(worker.batch):
            self._over(worker, _said_of_death(worker.process.exitcode))
            if worker.at < len(worker.batch):
                self._todo.appendleft(worker.batch[worker.at :])

    def _show(self) -> None:
        if self._progress is not None:
            spent = time.monotonic() - self._started
            left = spent / self._nr_done * (self._nr_runs - self._nr_done) if self._nr_done else None
            self._progress(Progress(self._nr_done, self._nr_runs, left))

    def kill(self) -> None:
        """End processes that are still at work."""
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()
            worker.reports.close()
        self._workers.clear()


def _said_of_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in set(signal.Signals) else str(-exitcode)
        hint = "; this computer may have been short of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended by itself, with status {exitcode}"


def _work(batch: tuple[Job, ...], reports: Connection, parent: int) -> None:
    """In the process: make the runs of a batch, and report each: None, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    _die_with(parent)
    # What a plugin prints is no part of the answer.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for job in batch:
        reports.send(_error_of(replace(job.planned.request, out=job.place)))
        gc.collect()  # a machine is a cycle, and its arrays weigh nothing in the collector's reckoning
    reports.close()


def _error_of(request: RunRequest) -> str | None:
    try:
        run(request)
    except MmfwError as fault:
        return str(fault)
    except MemoryError:
        return "this computer has not enough memory"
    except Exception as fault:
        text = " ".join(str(fault).split())[:200]
        return f"internal error, please report it: {type(fault).__name__}: {text}"
    return None


def _die_with(parent: int) -> None:
    """End this process when its parent ends, however that comes; Linux only."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)
