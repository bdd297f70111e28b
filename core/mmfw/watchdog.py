"""Notices that virtual time no longer passes, which no count of scheduler calls can see.

A plugin that loops without calling anything keeps the interpreter to itself. A real-time timer then looks at
the virtual clock; it decides only whether to give up, so nothing of it reaches a result.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from mmfw.sched import LivelockError, Scheduler

#: Seconds of real time between two looks, and looks in a row at the same virtual time after which a run is given up.
LOOK_SECONDS: Final = 5.0
LOOKS: Final = 6


def compiling() -> bool:
    """Whether a compiled loop is being made, by any thread of this process."""
    locks = sys.modules.get("numba.core.compiler_lock")
    return locks is not None and bool(locks.global_compiler_lock.is_locked())


@contextmanager
def watchdog(sched: Scheduler) -> Iterator[None]:
    """Give a run up whose virtual clock stands still for half a minute of real time.

    Does nothing outside the main thread and where there are no interval timers.

    Raises
    ------
    LivelockError
        Names the task that had the CPU.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    last = -1
    still = 0

    def look(signum: int, frame: FrameType | None) -> None:
        nonlocal last, still
        # Compiling a loop at its first use can take longer on a busy computer, and is no fault of the task.
        still = still + 1 if sched.now == last and not compiling() else 0
        last = sched.now
        if still >= LOOKS:
            raise LivelockError(
                f"task {sched.current} has kept the CPU for {LOOK_SECONDS * LOOKS:.0f} s of real time while virtual time "
                f"stood at {sched.now} ns; a loop of it neither sleeps nor charges anything"
            )

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
