"""One CPU's run queue, by the rules of CFS in 6.1 (kernel/sched/fair.c).

Left out: cgroups, autogroup, load balancing other than pulling work to an idle CPU, cache-hot buddies.
Division is exact where the kernel multiplies by a 32-bit inverse; the difference is under a nanosecond.
"""

from __future__ import annotations

from bisect import insort

from mmfw.sched.params import NICE_0_LOAD, SchedParams
from mmfw.sched.task import Task


def calc_delta_fair(delta: int, task: Task) -> int:
    """`delta` ns of real time as virtual runtime of `task`."""
    return delta if task.weight == NICE_0_LOAD else delta * NICE_0_LOAD // task.weight


class RunQueue:
    """``struct rq`` with its ``cfs_rq``: who has this CPU and who waits for it.

    Attributes
    ----------
    cpu : int
        Number of the CPU.
    curr : Task or None
        Task on the CPU; None when idle.
    last : Task or None
        Task whose context was loaded last: `curr`, or the one before; None after idling.
    need_resched : bool
        ``TIF_NEED_RESCHED`` of `curr`.
    resume_seq, resume_at : int
        The heap entry at which `curr` goes on; 0 while it executes.
    tick_armed : bool
        Whether a tick is due; an uncontended CPU needs none.
    """

    __slots__ = (
        "_min_vruntime",
        "_next_buddy",
        "_params",
        "_queue",
        "_seq",
        "cpu",
        "curr",
        "last",
        "need_resched",
        "resume_at",
        "resume_seq",
        "tick_armed",
    )

    def __init__(self, cpu: int, params: SchedParams) -> None:
        self.cpu = cpu
        self.curr: Task | None = None
        self.last: Task | None = None
        self.need_resched = False
        self.resume_seq = 0
        self.resume_at = 0
        self.tick_armed = False
        self._params = params
        self._queue: list[tuple[int, int, Task]] = []
        self._seq = 0
        self._min_vruntime = 0
        self._next_buddy: Task | None = None

    def __len__(self) -> int:
        """Tasks that wait for the CPU, `curr` not among them."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits here (``available_idle_cpu``)."""
        return self.curr is None and not self._queue

    def set_curr(self, task: Task, now: int) -> None:
        """Give the CPU to `task` (``set_next_entity``)."""
        self.curr = self.last = task
        self.need_resched = False
        task.on_rq = True
        task.cpu = self.cpu
        task.exec_start = now
        task.prev_sum_exec_runtime = task.sum_exec_runtime

    def dequeue_curr(self, now: int) -> None:
        """Take the CPU from its task (``put_prev_entity``, ``dequeue_entity``)."""
        self.update_curr(now)
        self.curr = None
        self.need_resched = False
        self._update_min_vruntime()

    def update_curr(self, now: int) -> None:
        """Book the time since the last call on `curr` (``update_curr``)."""
        curr = self.curr
        if curr is not None:
            delta = now - curr.exec_start
            if delta > 0:
                curr.exec_start = now
                curr.sum_exec_runtime += delta
                curr.vruntime += calc_delta_fair(delta, curr)
        self._update_min_vruntime()

    def _update_min_vruntime(self) -> None:
        curr = self.curr
        if curr is not None:
            vruntime = curr.vruntime
            if self._queue and self._queue[0][0] < vruntime:
                vruntime = self._queue[0][0]
        elif self._queue:
            vruntime = self._queue[0][0]
        else:
            return
        if vruntime > self._min_vruntime:
            self._min_vruntime = vruntime

    def place(self, task: Task, *, source: RunQueue, initial: bool = False) -> None:
        """Set the vruntime of a woken or (`initial`) forked task (``place_entity``).

        A sleeper is credited half a latency period (GENTLE_FAIR_SLEEPERS); a child pays one slice
        (START_DEBIT). `source` is the queue its vruntime was counted on.
        """
        if source is not self:
            task.vruntime += self._min_vruntime - source._min_vruntime
        floor = self._min_vruntime
        if initial:
            floor += calc_delta_fair(self._sched_slice(task, len(self._queue) + 2), task)
        else:
            floor -= self._params.latency >> 1
        task.vruntime = max(task.vruntime, floor)

    def place_at_boot(self, task: Task) -> None:
        """A task that exists before anything ran starts level with its peers, in order of creation."""
        task.vruntime = self._min_vruntime

    def enqueue(self, task: Task) -> None:
        """Let `task` wait for the CPU; equal vruntimes keep their order of arrival."""
        self._seq += 1
        insort(self._queue, (task.vruntime, self._seq, task))
        task.on_rq = True
        task.cpu = self.cpu

    def pick(self) -> Task | None:
        """Take the next task off the queue (``pick_next_entity``): leftmost, or the buddy if not unfair."""
        if not self._queue:
            return None
        buddy, self._next_buddy = self._next_buddy, None
        index = 0
        if buddy is not None and not self._behind(self._queue[0][2], buddy):
            index = next((i for i, entry in enumerate(self._queue) if entry[2] is buddy), 0)
        return self._queue.pop(index)[2]

    def steal(self, by: RunQueue) -> Task | None:
        """Give a waiting task that is not pinned to the idle queue `by` (``newidle_balance``)."""
        for index, (_, _, task) in enumerate(self._queue):
            if not task.pinned:
                del self._queue[index]
                task.vruntime += by._min_vruntime - self._min_vruntime
                return task
        return None

    def check_preempt_wakeup(self, task: Task) -> bool:
        """Whether `task`, just enqueued, gets the CPU (``check_preempt_wakeup``); sets need_resched."""
        curr = self.curr
        if curr is None or self.need_resched or not self._behind(task, curr):
            return False
        self._next_buddy = task
        self.need_resched = True
        return True

    def check_preempt_tick(self) -> bool:
        """Whether `curr` used up its slice (``check_preempt_tick``); sets need_resched."""
        curr = self.curr
        if curr is None or not self._queue:
            return False
        ideal = min(self._sched_slice(curr, len(self._queue) + 1), self._params.latency)
        ran = curr.sum_exec_runtime - curr.prev_sum_exec_runtime
        if ran > ideal:
            self._next_buddy = None
        elif ran < self._params.min_granularity or curr.vruntime - self._queue[0][0] <= ideal:
            return False
        self.need_resched = True
        return True

    def _behind(self, task: Task, curr: Task) -> bool:
        """``wakeup_preempt_entity() == 1``: `task` lags `curr` by more than a wakeup granularity."""
        gran = calc_delta_fair(self._params.wakeup_granularity, task)
        return curr.vruntime - task.vruntime > gran

    def _sched_slice(self, task: Task, nr_running: int) -> int:
        params = self._params
        stretched = nr_running > params.nr_latency
        period = nr_running * params.min_granularity if stretched else params.latency
        load = sum(entry[2].weight for entry in self._queue)
        if self.curr is not None:
            load += self.curr.weight
        if self.curr is not task:
            load += task.weight
        return max(period * task.weight // load, params.min_granularity)
