"""Timeouts as the timer wheel keeps them: on ticks, and long ones late (kernel/time/timer.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw.costs import TICK_NSEC

if TYPE_CHECKING:
    from mmfw.sched.core import Scheduler
    from mmfw.sched.task import WaitTarget


def timer_wheel_delay(now: int, timeout: int) -> int:
    """How long a timeout really takes (``calc_wheel_index()``).

    A timer fires on the tick after the one it was asked for. A timeout of 63 jiffies or more is put off to a
    multiple of 8, one of 504 or more to a multiple of 64, and so on.

    Parameters
    ----------
    now, timeout : int
        Virtual ns.

    Examples
    --------
    >>> timer_wheel_delay(0, 500_000_000), timer_wheel_delay(0, 100_000_000)
    (512000000, 104000000)
    """
    jiffies = timeout // TICK_NSEC
    granularity = 1
    while jiffies >= 63 * granularity:
        granularity *= 8
    expires = (now // TICK_NSEC + jiffies + granularity) // granularity * granularity
    return expires * TICK_NSEC - now


def schedule_timeout_jiffies(sched: Scheduler, timeout: int, waiting_for: WaitTarget | None = None) -> int:
    """Sleep until woken, or until the timer wheel fires (``schedule_timeout()``).

    Parameters
    ----------
    sched : Scheduler
        Whose running task sleeps.
    timeout : int
        Virtual ns, a multiple of a jiffy.
    waiting_for : WaitTarget, optional
        What the reports of deadlocks name.

    Returns
    -------
    int
        What was left of `timeout` when the task was woken, in ns, whole jiffies; 0 when none was.
    """
    start = sched.now // TICK_NSEC
    sched.schedule_timeout(timer_wheel_delay(sched.now, timeout), waiting_for)
    return max(0, timeout - (sched.now // TICK_NSEC - start) * TICK_NSEC)
