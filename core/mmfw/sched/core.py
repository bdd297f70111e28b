"""The scheduler: one clock, one event heap, and a greenlet for each task.

A task is a plain function. It owns the machine from one scheduler call to the next; time passes in `charge`
and while everybody sleeps, nowhere else. The rules, in full:

1. Events (timers, ends of charges) are ordered by (time, sequence number). A charge that reaches an event at
   or before its end lets that event go first, so effects happen in the order of virtual time on any number of
   CPUs.
2. One task at a time has a CPU; who comes next is CFS's choice (`mmfw.sched.cfs`).
3. A woken task asks for its CPU when its vruntime lags that of the running one by more than
   ``wakeup_granularity``; a CPU-bound peer gets its turn at a tick. Both only set need_resched. The switch
   happens, by `PreemptModel`, at the next ``cond_resched()`` or sleep (none), also at ``might_sleep()``
   (voluntary), or in the midst of a charge (full, or any model while in user mode), unless preemption is
   disabled.

Rule 3 is what the 6.1.192 captures show, on one CPU of kernels that boot with "Dynamic Preempt: voluntary".
Of 2034 wakeups of kswapd in 1G-frag16, 1078 set need_resched (flag N of the trace); the waker ran its
compaction pass to the end all the same, and kswapd was there 13 us after it (median). In 943 kswapd's
vruntime was too near; it ran when the waker slept, 351 us after the wakeup (median).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVarTuple

from greenlet import GreenletExit, getcurrent, greenlet

from mmfw.costs import CostProfile, profile
from mmfw.errors import InputError
from mmfw.sched import report
from mmfw.sched.dispatch import NEVER, Dispatcher, SwitchListener
from mmfw.sched.params import PreemptModel, SchedParams
from mmfw.sched.scopes import FlagScope, PreemptScope
from mmfw.sched.task import (
    PF_EXITING,
    PF_KTHREAD,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    SchedError,
    Task,
    TaskState,
    WaitTarget,
)

Ts = TypeVarTuple("Ts")

MAX_SCHEDULE_TIMEOUT: Final = NEVER


class Scheduler(Dispatcher):
    """Virtual time for one machine.

    Parameters
    ----------
    nr_cpus : int
        CPUs.
    costs : CostProfile, optional
        Its ``context_switch`` is charged at every switch. Default: profile ``default``.
    params : SchedParams, optional
        Preemption model and granularities; scaled by `nr_cpus` as the kernel does.

    Attributes
    ----------
    now : int
        The clock, in ns. Read only.
    current : Task
        Who executes: ``current``. Outside every task it is swapper, pid 0, which may charge and sleep for a
        time (tasks run meanwhile) but not wait; inside a timer's call it is pid 0 too, and may do neither.
        Read only.
    current_cpu : int
        ``smp_processor_id()``. Read only.
    costs : CostProfile
        As given.

    Notes
    -----
    Use it as a context manager, or call `close`: tasks that have not ended hold stacks.
    """

    def __init__(
        self, nr_cpus: int = 1, costs: CostProfile | None = None, params: SchedParams | None = None
    ) -> None:
        super().__init__(
            nr_cpus,
            costs if costs is not None else profile("default"),
            params if params is not None else SchedParams(),
        )
        self._tasks: dict[int, Task] = {}
        self._next_pid = 1
        self._nr_foreground = 0

    # Sleeping and waking

    def sleep(self, ns: int) -> None:
        """Sleep for `ns` at least (``usleep_range``), whatever wakes the task in between."""
        end = self.now + ns
        if self.current is self._swapper and not self.in_interrupt:
            self.run(end)
            return
        task = self.current
        self.schedule_timeout(ns)
        while self.now < end and not (task.in_user and task.fatal_signal_pending):
            self.schedule_timeout(end - self.now)

    def nanosleep(self, ns: int) -> None:
        """Sleep in user mode, where a killed task may end (``nanosleep(2)``); workloads pace themselves with it."""
        task = self.current
        self._exit_to_user_mode()
        task.in_user = True
        try:
            self.sleep(ns)
        finally:
            task.in_user = False
        self._exit_to_user_mode()

    def send_sigkill(self, task: Task) -> None:
        """Have `task` end when it next is in user mode: in `nanosleep` or `charge_user`."""
        task.fatal_signal_pending = True
        if task.in_user:
            self.wake_up_process(task)

    def schedule_timeout(
        self, timeout: int = MAX_SCHEDULE_TIMEOUT, waiting_for: WaitTarget | None = None
    ) -> int:
        """Sleep until woken, at most `timeout` ns (kernel/time/timer.c).

        After `prepare_to_sleep` a wakeup that came in between makes it return at once.

        Parameters
        ----------
        timeout : int
            Virtual ns; `MAX_SCHEDULE_TIMEOUT` for no limit.
        waiting_for : WaitTarget, optional
            What the reports of deadlocks name.

        Returns
        -------
        int
            ns left of `timeout` when the task runs again; 0 when none is.
        """
        task = self.current
        self.assert_may_sleep()
        if timeout < 0:
            raise SchedError(f"task {task} sleeps for {timeout} ns: time does not go backwards")
        self._check_livelock()
        if self._closed:
            raise GreenletExit
        if task.prepared:
            task.prepared = False
            if task.state is TaskState.RUNNING:
                return timeout
        task.state = TaskState.SLEEPING
        task.waiting_for = waiting_for
        if waiting_for is not None and waiting_for.is_lock:
            cycle = report.lock_cycle(task)
            if cycle is not None:
                self._fail(cycle)
        endless = timeout >= MAX_SCHEDULE_TIMEOUT
        end = self.now + timeout
        if not endless:
            task.timer = self.call_at(end, lambda: self.wake_up_process(task))
        self._leave(self._rqs[task.cpu], task)
        self._switch_from(task)
        return timeout if endless else max(0, end - self.now)

    def prepare_to_sleep(self) -> None:
        """Mark the current task as about to sleep (``set_current_state``): a later wakeup is not lost."""
        self.assert_may_sleep()
        self.current.prepared = True
        self.current.state = TaskState.SLEEPING

    def abort_sleep(self) -> None:
        """Undo `prepare_to_sleep` (``__set_current_state(TASK_RUNNING)``)."""
        self.current.prepared = False
        self.current.state = TaskState.RUNNING

    def wake_up_process(self, task: Task) -> bool:
        """Wake `task`; returns whether it slept (kernel/sched/core.c)."""
        if task.state is not TaskState.SLEEPING:
            return False
        self._check_livelock()
        task.state = TaskState.RUNNING
        task.waiting_for = None
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
        if not (task.on_rq or self._closed):
            source = self._rqs[task.cpu]
            rq = self._select(task)
            rq.update_curr(self.now)
            rq.place(task, source=source)
            self._activate(rq, task)
        return True

    # Tasks

    def spawn(
        self,
        fn: Callable[[*Ts], object],
        *args: *Ts,
        name: str,
        nice: int = 0,
        flags: int = 0,
        cpu: int | None = None,
        daemon: bool | None = None,
    ) -> Task:
        """Start `fn(*args)` as a task.

        Parameters
        ----------
        fn, *args
            A plain function, and what it is called with.
        name : str
            ``comm``.
        nice : int
            -20..19.
        flags : int
            ``PF_*`` bits.
        cpu : int, optional
            CPU the task is bound to; any by default.
        daemon : bool, optional
            Whether a run may end while it sleeps. Default: whether `flags` has ``PF_KTHREAD``.
        """
        if self._closed:
            raise SchedError(f"task {name!r} spawned on a scheduler that is closed")
        if cpu is not None and not 0 <= cpu < self.nr_cpus:
            raise InputError(f"cpu={cpu} of task {name!r} must be from 0 to {self.nr_cpus - 1}")
        kthread = bool(flags & PF_KTHREAD)
        task = Task(
            name, self._next_pid, flags=flags, nice=nice, daemon=kthread if daemon is None else daemon
        )
        self._next_pid += 1
        self._tasks[task.pid] = task
        self._nr_foreground += not task.daemon
        task.greenlet = greenlet(lambda: self._task_main(task, lambda: fn(*args)))
        task.cpu = self.current_cpu if cpu is None else cpu
        task.pinned = cpu is not None
        rq = self._select(task)
        rq.update_curr(self.now)
        if self.current is self._swapper:
            rq.place_at_boot(task)
        else:
            rq.place(task, source=rq, initial=True)
        self._activate(rq, task)
        return task

    def _task_main(self, task: Task, body: Callable[[], object]) -> None:
        try:
            task.result = body()
        except GreenletExit:
            pass
        except BaseException as exc:  # a plugin's SystemExit must not look like a clean end
            exc.add_note(f"in task {task} on cpu {task.cpu} at {self.now} ns")
            self._failure = self._failure or exc
        task.state = TaskState.DEAD
        task.flags |= PF_EXITING
        task.greenlet = None
        del self._tasks[task.pid]
        if self._closed:
            return
        self._nr_foreground -= not task.daemon
        if self._nr_foreground == 0 and self._until == NEVER:
            self._stop = True
        for joiner in task.joiners:
            self.wake_up_process(joiner)
        self._leave(self._rqs[task.cpu], task)
        getcurrent().parent = self._main

    def join(self, task: Task) -> Any:
        """Sleep until `task` has ended; returns what its function returned."""
        while task.state is not TaskState.DEAD:
            task.joiners.append(self.current)
            self.schedule_timeout(waiting_for=report.ExitOf(task))
        return task.result

    def kthread_stop(self, task: Task) -> None:
        """Ask a kthread to end, wake it, and, from a task, wait until it has (kernel/kthread.c)."""
        task.should_stop = True
        self.wake_up_process(task)
        if self.current.pid:
            self.join(task)

    def kthread_should_stop(self) -> bool:
        """Whether the current kthread was asked to end."""
        return self.current.should_stop

    @property
    def nr_cpus(self) -> int:
        """CPUs."""
        return len(self._rqs)

    @property
    def in_interrupt(self) -> bool:
        """Whether a timer's call executes (``in_interrupt()``)."""
        return self._accounts is None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that have not ended, by pid."""
        return tuple(self._tasks.values())

    def memalloc_nofs(self) -> FlagScope:
        """``with``: ``memalloc_nofs_save`` .. ``memalloc_nofs_restore`` (include/linux/sched/mm.h)."""
        return FlagScope(self.current, PF_MEMALLOC_NOFS)

    def memalloc_noio(self) -> FlagScope:
        """``with``: ``memalloc_noio_save`` .. ``memalloc_noio_restore``."""
        return FlagScope(self.current, PF_MEMALLOC_NOIO)

    def memalloc_noreclaim(self) -> FlagScope:
        """``with``: ``memalloc_noreclaim_save`` .. ``memalloc_noreclaim_restore``, that is PF_MEMALLOC."""
        return FlagScope(self.current, PF_MEMALLOC)

    def preempt_disabled(self) -> PreemptScope:
        """``with``: ``preempt_disable`` .. ``preempt_enable``; sleeping inside is an error."""
        return PreemptScope(self.current, self._preempt_enable)

    def _preempt_enable(self) -> None:
        self._resched_if(allowed=self._params.preempt is PreemptModel.FULL)

    def add_sched_switch_listener(self, listener: SwitchListener) -> None:
        """Have `listener` called at every context switch, with (ns, cpu, before, after); None is idle."""
        self._listeners.append(listener)

    # Running

    def run(self, until_ns: int | None = None) -> None:
        """Run until the clock shows `until_ns` and all events up to it are done.

        Parameters
        ----------
        until_ns : int, optional
            By default the run ends when every task that is no daemon has ended.

        Raises
        ------
        DeadlockError
            If nothing can happen any more while a task waits for a lock, or one that is no daemon waits.
        LivelockError
            If a task or timer keeps going at one instant.
        BaseException
            Whatever a task died of, with a note that names the task.
        """
        if self._main is not None or self._closed:
            raise SchedError("run() on a scheduler that is " + ("closed" if self._closed else "running"))
        if until_ns is not None and until_ns < self.now:
            raise SchedError(f"run({until_ns}) at {self.now} ns: time does not go backwards")
        if until_ns is None and self._nr_foreground == 0:
            return
        self._until = NEVER if until_ns is None else until_ns
        self._stop = False
        self._main = main = getcurrent()
        try:
            while True:
                # A greenlet that has not begun is false, so it must be told from None by name.
                nxt = self._next() if self._unborn is None else self._unborn
                self._unborn = None
                if nxt is main:
                    break
                nxt.switch()
        finally:
            self._main = None
            self._until = NEVER
            self._enter(self._swapper, 0)
        if self._failure is None and not self._stop and not self._has_events():
            self._failure = report.deadlock(self.tasks)
        if self._failure is not None:
            self.close()
            raise self._failure
        if until_ns is not None and not self._stop:
            self.now = until_ns

    def stop(self) -> None:
        """End `run` at this moment, as soon as the running task gives the CPU up; a later `run` goes on from here."""
        self._stop = True

    def close(self) -> None:
        """End every task: ``GreenletExit`` is raised where it stands, so that its ``finally`` parts run.

        If one of these parts fails, that exception is raised when all tasks have ended.
        """
        if self._main is not None:
            raise SchedError(f"close() while {self.current} runs")
        earlier = self._failure
        self._closed = True
        self._heap.clear()
        for task in self.tasks:
            if task.greenlet is not None:
                self._enter(task, task.cpu)
                task.greenlet.parent = getcurrent()
                task.greenlet.throw(GreenletExit)
            task.state = TaskState.DEAD
            task.greenlet = None
        self._enter(self._swapper, 0)
        self._tasks.clear()
        if self._failure is not earlier and self._failure is not None:
            raise self._failure

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
