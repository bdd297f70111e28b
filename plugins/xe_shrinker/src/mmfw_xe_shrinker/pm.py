"""Runtime power management, as far as the shrinker meets it (drivers/gpu/drm/xe/xe_pm.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw import Mm


class XePm:
    """Whether the device is awake, and who keeps it so.

    It is awake while somebody holds a reference or a job runs, and for a delay afterwards. Going to sleep is not an event
    here: nothing but the question whether it is awake depends on it.

    Parameters
    ----------
    mm : Mm
        Its clock and threads.
    autosuspend_ns : int
        Idle time after which it sleeps; 0 for never, as while a display is lit.
    resume_ns : int
        Time until it is awake again.
    reclaim_safe : bool
        Whether resuming allocates nothing (``xe_rpm_reclaim_safe()``): no D3cold.

    Attributes
    ----------
    nr_resumes, nr_queued : int
        How often it was woken, and how often that was left to the worker.
    """

    def __init__(self, mm: Mm, autosuspend_ns: int, resume_ns: int, *, reclaim_safe: bool) -> None:
        self.nr_resumes = 0
        self.nr_queued = 0
        self.reclaim_safe = reclaim_safe
        self._mm = mm
        self._autosuspend_ns = autosuspend_ns
        self._resume_ns = resume_ns
        self._usage = 0
        self._busy_until = 0
        self._work_pending = False

    @property
    def is_active(self) -> bool:
        """Whether it is awake."""
        if not self._autosuspend_ns or self._usage:
            return True
        return self._mm.sched.now < self._busy_until + self._autosuspend_ns

    def keep_busy(self, until: int) -> None:
        """Note that a job runs until then, ns; jobs hold references."""
        self._busy_until = max(self._busy_until, until)

    def get(self) -> None:
        """Take a reference, sleeping until the device is awake (``xe_pm_runtime_get()``)."""
        asleep = not self.is_active
        self._usage += 1
        if asleep:
            self.nr_resumes += 1
            self._mm.sched.sleep(self._resume_ns)

    def get_if_active(self) -> bool:
        """Take a reference unless it sleeps (``xe_pm_runtime_get_if_active()``); returns whether."""
        if not self.is_active:
            return False
        self._usage += 1
        return True

    def put(self) -> None:
        """Give a reference back; the delay begins anew (``xe_pm_runtime_put()``)."""
        self._usage -= 1
        self._busy_until = max(self._busy_until, self._mm.sched.now)

    def queue_resume(self) -> None:
        """Leave waking it to a worker, outside of reclaim (``queue_work(&shrinker->pm_worker)``)."""
        if self._work_pending:
            return
        self._work_pending = True
        self.nr_queued += 1
        self._mm.kthread_run(self._pm_worker, "kworker/u-xe")

    def _pm_worker(self) -> None:
        """``xe_shrinker_pm()``."""
        self._work_pending = False
        self.get()
        self.put()
