"""The machinery under the scheduler: the event heap, and which task each CPU runs next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from greenlet import GreenletExit, greenlet

from mmfw.costs import CostProfile
from mmfw.errors import InputError
from mmfw.sched.cfs import RunQueue
from mmfw.sched.params import PreemptModel, SchedParams
from mmfw.sched.task import PF_KTHREAD, LivelockError, SchedError, Task

NEVER: Final = (1 << 63) - 1

#: Called at each context switch as sched_switch is: (time in ns, cpu, task before, task after); None is idle.
SwitchListener = Callable[[int, int, Task | None, Task | None], None]


class Timer:
    """A call due at a virtual time (``struct timer_list``); see `Dispatcher.call_at`.

    Attributes
    ----------
    expires : int
        When, in ns.
    fn : callable
        What is called.
    active : bool
        Whether it is still to come.
    is_tick : bool
        Whether it is a CPU's tick.
    """

    __slots__ = ("active", "expires", "fn", "is_tick")

    def __init__(self, expires: int, fn: Callable[[], object], *, is_tick: bool = False) -> None:
        self.expires = expires
        self.fn = fn
        self.is_tick = is_tick
        self.active = True

    def cancel(self) -> bool:
        """Stop it (``del_timer``). Returns whether it was still to come."""
        was, self.active = self.active, False
        return was


class Dispatcher:
    """The clock, the event heap and the CPUs; `Scheduler` adds what tasks call."""

    def __init__(self, nr_cpus: int, costs: CostProfile, params: SchedParams) -> None:
        if nr_cpus < 1:
            raise InputError(f"nr_cpus={nr_cpus} must be at least 1")
        self.costs = costs
        self.now = 0
        self.current_cpu = 0
        self._params = params.scaled(nr_cpus)
        self._swapper = Task("swapper/0", 0, flags=PF_KTHREAD, daemon=True)
        self.current = self._swapper
        # None inside a timer's call, where nothing may be charged.
        self._accounts: dict[str, int] | None = self._swapper.accounts
        self._rqs = [RunQueue(cpu, self._params) for cpu in range(nr_cpus)]
        self._heap: list[tuple[int, int, RunQueue | Timer]] = []
        self._seq = 0
        self._horizon = NEVER  # a charge that ends before it needs no switch
        self._until = NEVER
        self._main: greenlet | None = None
        self._unborn: greenlet | None = None
        self._failure: BaseException | None = None
        self._stop = False
        self._closed = False
        self._nr_events_now = 0
        self._listeners: list[SwitchListener] = []

    def charge(self, ns: int, account: str = "cpu") -> None:
        """Let `ns` of kernel-mode work pass for the current task.

        Everything due before its end happens first, as on real CPUs; the rules of `mmfw.sched.core` say when
        the task may lose its CPU meanwhile.

        Parameters
        ----------
        ns : int
            Virtual nanoseconds, at least 0.
        account : str
            Where the task's `Task.accounts` show it.
        """
        if ns <= 0:
            if ns < 0:
                raise SchedError(f"task {self.current} charged {ns} ns: time does not go backwards")
            self._check_livelock()
            return
        accounts = self._accounts
        if accounts is None:
            raise SchedError("a timer's call may not charge time: wake a task and let that work")
        accounts[account] = accounts.get(account, 0) + ns
        end = self.now + ns
        if end < self._horizon:
            self.now = end
        else:
            self._charge_past_event(end)

    @property
    def quiet_ns(self) -> int:
        """Time that the current task may charge before anything else happens on any CPU, ns; 0 if that is now."""
        return max(0, self._horizon - self.now)

    def charge_user(self, ns: int, account: str = "user") -> None:
        """Let `ns` of user-mode work pass: preemptible at any time, whatever the model.

        Parameters as for `charge`.
        """
        task = self.current
        self._exit_to_user_mode()
        self._resched_if(allowed=True)
        task.in_user = True
        try:
            self.charge(ns, account)
        finally:
            task.in_user = False
        self._exit_to_user_mode()

    def _exit_to_user_mode(self) -> None:
        """End a task that was killed; in kernel mode it would leave things half done."""
        if self.current.fatal_signal_pending:
            raise GreenletExit

    def call_at(self, time: int, fn: Callable[[], object]) -> Timer:
        """Call `fn` at `time` (ns; a past time means as soon as anything runs), in interrupt context.

        `fn` may wake tasks, signal fences and set timers; it may not charge or sleep.
        """
        timer = Timer(max(time, self.now), fn)
        self._push(timer.expires, timer)
        return timer

    def run(self, until_ns: int | None = None) -> None:
        """See `Scheduler.run`."""
        raise NotImplementedError

    def _charge_past_event(self, end: int) -> None:
        if self._closed:
            return
        task = self.current
        if task is self._swapper:
            self.run(end)
            return
        rq = self._rqs[self.current_cpu]
        if rq.need_resched and self._preemptible(task):
            task.remaining = end - self.now
            self._preempt(rq)
        else:
            self._resume_at(rq, end)
        self._switch_from(task)

    def might_sleep(self) -> None:
        """Say that the caller may sleep: a switch point under PREEMPT_VOLUNTARY (``might_resched``).

        Outside tasks it is no error: only a sleep itself is.
        """
        task = self.current
        if task.pid:
            if task.preempt_count:
                self.assert_may_sleep()
            if self._rqs[self.current_cpu].need_resched:
                self._resched_if(allowed=self._params.preempt is PreemptModel.VOLUNTARY)

    def cond_resched(self) -> bool:
        """Give up the CPU if need_resched is set; returns whether it was given up."""
        self._check_livelock()
        return self._resched_if(allowed=True)

    def need_resched(self) -> bool:
        """Whether another task should have this CPU."""
        return self._rqs[self.current_cpu].need_resched

    def assert_may_sleep(self) -> None:
        """Raise unless the current context may sleep ("scheduling while atomic")."""
        task = self.current
        if task is self._swapper:
            where = "a timer's call" if self._accounts is None else "code outside every task"
            raise SchedError(f"{where} may not sleep: spawn a task for it")
        if task.preempt_count:
            raise SchedError(f"scheduling while atomic: task {task} sleeps with preemption disabled")

    def _resched_if(self, *, allowed: bool) -> bool:
        task = self.current
        rq = self._rqs[self.current_cpu]
        if not (allowed and rq.need_resched) or task.preempt_count or task is self._swapper or self._closed:
            return False
        self._preempt(rq)
        self._switch_from(task)
        return True

    # Events

    def _push(self, time: int, event: RunQueue | Timer) -> int:
        self._seq = seq = self._seq + 1
        heappush(self._heap, (time, seq, event))
        if time < self._horizon:
            self._horizon = time
        return seq

    def _next(self) -> greenlet:
        """Let events happen until a task is to execute; its greenlet, or that of run() if none is."""
        heap = self._heap
        main = self._main
        assert main is not None
        if self._failure is not None:
            return main
        try:
            while heap and not self._stop:
                time, seq, event = heap[0]
                if time > self._until:
                    break
                heappop(heap)
                if type(event) is RunQueue:
                    task = event.curr
                    if event.resume_seq != seq or task is None:
                        continue
                    event.resume_seq = 0
                    self._count_event(time)
                    self._enter(task, event.cpu)
                    assert task.greenlet is not None
                    return task.greenlet
                assert type(event) is Timer
                if event.active:
                    event.active = False
                    self._count_event(time)
                    self.current = self._swapper
                    self._accounts = None
                    event.fn()
        except BaseException as exc:  # it must not surface in the task whose stack this happens to be
            self._failure = exc
        return main

    def _count_event(self, time: int) -> None:
        if time != self.now:
            self.now = time
            self._nr_events_now = 0
            return
        self._nr_events_now += 1
        if self._nr_events_now > 10 * self._params.livelock_calls:
            raise LivelockError(
                f"livelock: {self._nr_events_now} events at {time} ns without time passing;"
                f" task {self.current} ran last"
            )

    def _enter(self, task: Task, cpu: int) -> None:
        self.current = task
        self.current_cpu = cpu
        self._accounts = task.accounts
        horizon = self._heap[0][0] if self._heap else NEVER
        self._horizon = horizon if horizon <= self._until else self._until + 1

    def _switch_from(self, task: Task) -> None:
        """Let others execute until `task` is to go on."""
        target = self._next()
        if target is task.greenlet:
            return
        if not target and target is not self._main:
            # A task begins from run(): a greenlet inherits the depth of the stack that first switches to it.
            self._unborn = target
            assert self._main is not None
            target = self._main
        target.switch()

    def _has_events(self) -> bool:
        """Whether anything is to come but ticks, which start nothing by themselves."""
        return any(
            event.active and not event.is_tick if isinstance(event, Timer) else event.resume_seq == seq
            for _, seq, event in self._heap
        )

    def _check_livelock(self) -> None:
        task = self.current
        if task.spin_at != self.now:
            task.spin_at = self.now
            task.spins = 0
        task.spins += 1
        if task.spins > self._params.livelock_calls and task is not self._swapper:
            self._fail(
                LivelockError(
                    f"livelock: task {task} made {task.spins} scheduler calls at {self.now} ns without"
                    " time passing; it must charge the work it does, or sleep"
                )
            )

    def _fail(self, failure: BaseException) -> None:
        """End the run with `failure`; raising it here would let the task catch it."""
        if self._closed:
            return
        self._failure = failure
        self._switch_from(self.current)

    # CPUs

    def _preemptible(self, task: Task) -> bool:
        return task.preempt_count == 0 and (task.in_user or self._params.preempt is PreemptModel.FULL)

    def _resume_at(self, rq: RunQueue, time: int) -> None:
        rq.resume_at = time
        rq.resume_seq = self._push(time, rq)

    def _select(self, task: Task) -> RunQueue:
        """CPU for a woken task (``select_task_rq_fair``): its last, or else an idle one."""
        own = self._rqs[task.cpu]
        if len(self._rqs) > 1 and not task.pinned and not own.idle:
            return next((rq for rq in self._rqs if rq.idle), own)
        return own

    def _activate(self, rq: RunQueue, task: Task) -> None:
        rq.enqueue(task)
        if rq.curr is None:
            self._pick_next(rq)
            return
        if rq.check_preempt_wakeup(task):
            self._resched_curr(rq)
        self._arm_tick(rq)

    def _resched_curr(self, rq: RunQueue) -> None:
        curr = rq.curr
        if curr is None or not self._preemptible(curr):
            return
        if rq.resume_seq:
            curr.remaining = rq.resume_at - self.now
            rq.resume_seq = 0
            self._preempt(rq)
        else:
            self._horizon = -1  # it executes at this moment: its next charge gives way

    def _preempt(self, rq: RunQueue) -> None:
        """Put the running task back into the queue and choose again."""
        curr = rq.curr
        assert curr is not None
        rq.dequeue_curr(self.now)
        rq.enqueue(curr)
        self._pick_next(rq)

    def _leave(self, rq: RunQueue, task: Task) -> None:
        """Take the running task, which sleeps or ends, off its CPU."""
        rq.dequeue_curr(self.now)
        task.on_rq = False
        self._pick_next(rq)

    def _pick_next(self, rq: RunQueue) -> None:
        task = rq.pick()
        if task is None:
            task = self._pull_to(rq)
        before = rq.last
        if task is None:
            rq.last = None
            self._notify(rq.cpu, before, None)
            return
        rq.set_curr(task, self.now)
        cost = 0
        if before is not task:
            cost = self.costs.context_switch
            if cost:
                task.accounts["context_switch"] = task.accounts.get("context_switch", 0) + cost
            self._notify(rq.cpu, before, task)
        self._resume_at(rq, self.now + cost + task.remaining)
        task.remaining = 0
        if len(rq):
            self._arm_tick(rq)

    def _pull_to(self, idle: RunQueue) -> Task | None:
        """A waiting task of the CPU with the longest queue, for the CPU `idle`."""
        if len(self._rqs) == 1:
            return None
        for rq in sorted(self._rqs, key=len, reverse=True):
            if not len(rq):
                break
            task = rq.steal(idle)
            if task is not None:
                return task
        return None

    def _arm_tick(self, rq: RunQueue) -> None:
        if not rq.tick_armed:
            rq.tick_armed = True
            tick = self._params.tick
            time = (self.now // tick + 1) * tick
            self._push(time, Timer(time, lambda: self._scheduler_tick(rq), is_tick=True))

    def _scheduler_tick(self, rq: RunQueue) -> None:
        rq.tick_armed = False
        rq.update_curr(self.now)
        if rq.check_preempt_tick():
            self._resched_curr(rq)
        for idle in self._rqs:
            if idle.idle and len(rq):
                self._pick_next(idle)
        if len(rq):
            self._arm_tick(rq)

    def _notify(self, cpu: int, before: Task | None, after: Task | None) -> None:
        for listener in self._listeners:
            listener(self.now, cpu, before, after)
