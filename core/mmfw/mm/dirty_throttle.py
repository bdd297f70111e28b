"""How fast a task may dirty pages: ``balance_dirty_pages()`` and the estimates behind it (mm/page-writeback.c of 6.1).

One device is written to, so its share of the dirty limit is the whole limit, and its dirty pages are all. Times are
jiffies of `mmfw.costs.HZ` and rates pages a second, as in the kernel. Not modelled: cgroup writeback, strictlimit,
min_ratio and max_ratio of a device, dirty throttling of tasks that exit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmfw.costs import HZ

#: ``MAX_PAUSE``, ``BANDWIDTH_INTERVAL``: jiffies.
MAX_PAUSE: Final = max(HZ // 5, 1)
BANDWIDTH_INTERVAL: Final = max(HZ // 5, 1)
#: Pages a task dirties between two looks while it is throttled (``DIRTY_POLL_THRESH``: 128 KiB).
DIRTY_POLL_THRESH: Final = 32
#: Rate that is assumed before anything was measured (``INIT_BW``: 100 MiB/s).
INIT_BW: Final = 100 << 8
_CALC_SHIFT: Final = 10
#: ``roundup_pow_of_two(3 * HZ)``, over which bandwidth is averaged.
_BW_PERIOD_SHIFT: Final = (3 * HZ - 1).bit_length()


def _roundup_pow_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length() if n > 1 else 1


def _div(a: int, b: int) -> int:
    """Division that rounds towards zero, as C's."""
    return a // b if a >= 0 else -(-a // b)


def dirty_poll_interval(dirty: int, thresh: int) -> int:
    """Pages a task may dirty before it looks again (``dirty_poll_interval()``).

    Examples
    --------
    >>> dirty_poll_interval(0, 65536), dirty_poll_interval(99, 100), dirty_poll_interval(100, 100)
    (256, 1, 1)
    """
    return 1 << ((thresh - dirty).bit_length() - 1 >> 1) if thresh > dirty else 1


def pos_ratio_polynom(setpoint: int, dirty: int, limit: int) -> int:
    """By what a task's rate is scaled, in 1/1024: 1 at the setpoint, 0 at the limit (``pos_ratio_polynom()``).

    Examples
    --------
    >>> [pos_ratio_polynom(1500, dirty, 2000) for dirty in (1000, 1500, 2000)]
    [2039, 1024, 8]
    """
    x = _div((setpoint - dirty) << _CALC_SHIFT, (limit - setpoint) | 1)
    ratio = x * x >> _CALC_SHIFT
    ratio = (ratio * x >> _CALC_SHIFT) + (1 << _CALC_SHIFT)
    return min(max(ratio, 0), 2 << _CALC_SHIFT)


@dataclass(slots=True)
class DirtyState:
    """What is dirty and what may be (``struct dirty_throttle_control``); pages.

    Attributes
    ----------
    dirty : int
        Dirty pages and those under writeback.
    thresh, bg_thresh : int
        Limits of ``vm.dirty_ratio`` and ``vm.dirty_background_ratio``.
    """

    dirty: int
    thresh: int
    bg_thresh: int

    @property
    def freerun(self) -> int:
        """Up to here nobody is stopped (``dirty_freerun_ceiling()``)."""
        return (self.thresh + self.bg_thresh) // 2


@dataclass(slots=True)
class TaskDirty:
    """What a task dirtied (fields of ``struct task_struct``).

    Attributes
    ----------
    nr_dirtied, nr_dirtied_pause : int
        Pages since its last pause, and how many it may dirty until it looks again.
    paused_when : int
        Jiffies at the end of its last pause; 0 for none.
    """

    nr_dirtied: int = 0
    nr_dirtied_pause: int = DIRTY_POLL_THRESH
    paused_when: int = 0


class Bandwidth:
    """Estimates of one device (``struct bdi_writeback``) and of the dirty limit (``struct wb_domain``).

    Attributes
    ----------
    write_bandwidth, avg_write_bandwidth : int
        How fast it writes, and the same smoothed.
    dirty_ratelimit, balanced_dirty_ratelimit : int
        How fast each of the tasks that dirty pages may do so, and the same unsmoothed.
    dirty_limit : int
        The limit, which follows down slowly.
    dirtied, written : int
        Pages so far.
    dirty_exceeded : bool
        Whether a task met more than the limit.
    """

    def __init__(self) -> None:
        self.write_bandwidth = self.avg_write_bandwidth = INIT_BW
        self.dirty_ratelimit = self.balanced_dirty_ratelimit = INIT_BW
        self.dirty_limit = 0
        self.dirtied = self.written = 0
        self.dirty_exceeded = False
        self._dirtied_stamp = self._written_stamp = 0
        self._time_stamp = self._limit_time_stamp = 0

    # --- estimates ------------------------------------------------------------------------------------

    def update(self, now: int, state: DirtyState | None = None) -> None:
        """Renew the estimates if the last time is long enough ago (``wb_update_bandwidth()``).

        Parameters
        ----------
        now : int
            Jiffies.
        state : DirtyState, optional
            What a task met that is being throttled; None if the flusher asks, which renews the bandwidth alone.
        """
        if now <= self._time_stamp + BANDWIDTH_INTERVAL:
            return
        elapsed = max(now - self._time_stamp, 1)
        if state is not None:
            if now >= self._limit_time_stamp + BANDWIDTH_INTERVAL:
                self._update_dirty_limit(state)
                self._limit_time_stamp = now
            self._update_dirty_ratelimit(state, elapsed)
        self._update_write_bandwidth(elapsed)
        self._dirtied_stamp, self._written_stamp, self._time_stamp = self.dirtied, self.written, now

    def _update_dirty_limit(self, state: DirtyState) -> None:
        if self.dirty_limit < state.thresh:
            self.dirty_limit = state.thresh
            return
        target = max(state.thresh, state.dirty)
        if self.dirty_limit > target:
            self.dirty_limit -= (self.dirty_limit - target) >> 5

    def _update_write_bandwidth(self, elapsed: int) -> None:
        written = (self.written - self._written_stamp) * HZ
        avg, old = self.avg_write_bandwidth, self.write_bandwidth
        if elapsed > 1 << _BW_PERIOD_SHIFT:
            new = avg = written // elapsed
        else:
            new = (written + old * ((1 << _BW_PERIOD_SHIFT) - elapsed)) >> _BW_PERIOD_SHIFT
            if avg > old >= new:
                avg -= (avg - old) >> 3
            if avg < old <= new:
                avg += (old - avg) >> 3
        self.write_bandwidth, self.avg_write_bandwidth = new, max(avg, 1)

    def _update_dirty_ratelimit(self, state: DirtyState, elapsed: int) -> None:
        """Follow the rate at which writers and device are in balance (``wb_update_dirty_ratelimit()``)."""
        limit = self.hard_limit(state)
        setpoint = (state.freerun + limit) // 2
        rate = self.dirty_ratelimit
        dirty_rate = (self.dirtied - self._dirtied_stamp) * HZ // elapsed
        task_rate = (rate * self.pos_ratio(state) >> _CALC_SHIFT) + 1
        balanced = min(task_rate * self.avg_write_bandwidth // (dirty_rate | 1), self.avg_write_bandwidth)
        step = 0
        if state.dirty < setpoint:
            low = min(self.balanced_dirty_ratelimit, balanced, task_rate)
            step = max(0, low - rate)
        else:
            high = max(self.balanced_dirty_ratelimit, balanced, task_rate)
            step = max(0, rate - high)
        shift = rate // (2 * step + 1)
        step = -(-(step >> shift) // 8) if shift < 64 else 0
        rate += step if rate < balanced else -step
        self.dirty_ratelimit = max(rate, 1)
        self.balanced_dirty_ratelimit = balanced

    # --- throttling -------------------------------------------------------------------------------------

    def hard_limit(self, state: DirtyState) -> int:
        """At this many dirty pages everybody stops (``hard_dirty_limit()``)."""
        return max(state.thresh, self.dirty_limit)

    def pos_ratio(self, state: DirtyState) -> int:
        """By what rates are scaled, in 1/1024 (``wb_position_ratio()``); 0 stops a task."""
        limit = self.hard_limit(state)
        if state.dirty >= limit:
            return 0
        setpoint = (state.freerun + limit) // 2
        ratio = pos_ratio_polynom(setpoint, state.dirty, limit)
        # The device's own control line; its threshold is the whole one.
        wb_thresh = max(state.thresh, (limit - state.dirty) // 8)
        x = (wb_thresh << 16) // (state.thresh | 1)
        wb_setpoint = setpoint * x >> 16
        span = max(0, state.thresh - wb_thresh + 8 * self.avg_write_bandwidth) * x >> 16
        intercept = wb_setpoint + span
        if state.dirty < intercept - span // 4:
            ratio = ratio * (intercept - state.dirty) // ((intercept - wb_setpoint) | 1)
        else:
            ratio //= 4
        reserve = wb_thresh // 2
        if state.dirty < reserve:
            ratio = ratio * reserve // state.dirty if state.dirty > reserve // 8 else ratio * 8
        return ratio

    def max_pause(self, dirty: int) -> int:
        """Longest pause, jiffies: shorter where the device would run dry meanwhile (``wb_max_pause()``)."""
        pause = dirty // (1 + self.avg_write_bandwidth // _roundup_pow_of_two(1 + HZ // 8)) + 1
        return min(pause, MAX_PAUSE)

    def min_pause(self, max_pause: int, task_ratelimit: int) -> tuple[int, int]:
        """Shortest pause worth sleeping for, jiffies, and pages until the next look (``wb_min_pause()``)."""
        rate = self.dirty_ratelimit
        target = max(1, HZ // 100)
        more = self.avg_write_bandwidth.bit_length() - rate.bit_length()
        if more > 0:
            target += more * (10 * HZ) // 1024
        target = min(target, 1 + max_pause // 2)
        pages = rate * target // _roundup_pow_of_two(HZ)
        if pages < DIRTY_POLL_THRESH:
            target = max_pause
            pages = rate * target // _roundup_pow_of_two(HZ)
            if pages > DIRTY_POLL_THRESH:
                pages = DIRTY_POLL_THRESH
                target = HZ * DIRTY_POLL_THRESH // rate
        if HZ * pages // (task_ratelimit + 1) > max_pause:
            target = max_pause
            pages = task_ratelimit * target // _roundup_pow_of_two(HZ)
        return (1 + target // 2 if pages >= DIRTY_POLL_THRESH else target), pages

    def pause(self, state: DirtyState, task: TaskDirty, now: int) -> tuple[int, bool]:
        """How long a task must pause that dirtied pages, and whether it must then ask again (``balance_dirty_pages()``).

        Returns
        -------
        (int, bool)
            Jiffies, 0 for no pause; and True while everybody is stopped.
        """
        if state.dirty <= state.freerun:
            task.paused_when, task.nr_dirtied = now, 0
            task.nr_dirtied_pause = dirty_poll_interval(state.dirty, state.thresh)
            return 0, False
        self.dirty_exceeded = state.dirty > state.thresh
        ratio = self.pos_ratio(state)
        self.update(now, state)
        task_ratelimit = self.dirty_ratelimit * ratio >> _CALC_SHIFT
        longest = self.max_pause(state.dirty)
        shortest, pages = self.min_pause(longest, task_ratelimit)
        if task_ratelimit == 0:
            pause = longest
        else:
            period = HZ * task.nr_dirtied // task_ratelimit
            pause = period - (now - task.paused_when if task.paused_when else 0)
            if pause < shortest:
                if pause < -HZ:
                    task.paused_when, task.nr_dirtied = now, 0
                elif period:
                    task.paused_when += period
                    task.nr_dirtied = 0
                elif task.nr_dirtied_pause <= task.nr_dirtied:
                    task.nr_dirtied_pause += task.nr_dirtied
                return 0, False
            if pause > longest:
                now += min(pause - longest, longest)
                pause = longest
        task.paused_when, task.nr_dirtied, task.nr_dirtied_pause = now + pause, 0, pages
        return pause, task_ratelimit == 0
