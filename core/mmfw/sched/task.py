"""What runs: tasks, their flags, and the errors that name them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from mmfw.errors import InputError, MmfwError
from mmfw.sched.params import PRIO_TO_WEIGHT

if TYPE_CHECKING:
    from greenlet import greenlet

    from mmfw.sched.dispatch import Timer

# include/linux/sched.h of 6.1
PF_EXITING: Final = 0x4
PF_WQ_WORKER: Final = 0x20
PF_MEMALLOC: Final = 0x800
PF_KSWAPD: Final = 0x20000
PF_MEMALLOC_NOFS: Final = 0x40000
PF_MEMALLOC_NOIO: Final = 0x80000
PF_KTHREAD: Final = 0x200000
PF_MEMALLOC_PIN: Final = 0x10000000


class SchedError(MmfwError):
    """Code that runs as a task broke a rule of the scheduler; the message names the task."""

    exit_status = 3


class DeadlockError(SchedError):
    """Tasks wait for each other, or for something that can no longer happen."""


class LivelockError(SchedError):
    """A task, or a timer, keeps going while virtual time stands still."""


class TaskState(Enum):
    """``task->__state``, as far as it matters here."""

    RUNNING = "running"  #: has a CPU or waits for one
    SLEEPING = "sleeping"
    DEAD = "dead"


class WaitTarget(Protocol):
    """What a task can wait for, as the deadlock report needs to know it."""

    @property
    def is_lock(self) -> bool:
        """Whether it is a lock, so that waiting for it for ever is an error even for a daemon."""
        ...

    def __str__(self) -> str: ...

    def holders(self) -> Sequence[Task]:
        """Tasks that must act before the wait can end, where that is known."""
        ...


class Task:
    """One thread of control (``struct task_struct``); made by `Scheduler.spawn`.

    Attributes
    ----------
    comm, pid : str, int
        As in the kernel; pid 0 is the context outside every task.
    flags : int
        ``PF_*`` bits.
    nice : int
        -20..19; `weight` follows from it.
    daemon : bool
        A run may end while it sleeps; the default of kthreads.
    accounts : dict of str to int
        Virtual ns charged, by account name.
    state : TaskState
        Whether it could run.
    cpu : int
        CPU it runs on, or ran on last.
    pinned : bool
        Whether it must stay on `cpu`.
    waiting_for : WaitTarget or None
        What a sleeping task waits for; None for time only.
    vruntime, sum_exec_runtime : int
        Weighted and plain ns on a CPU (``struct sched_entity``), brought up to date at scheduling events.
    fatal_signal_pending : bool
        It was killed, and ends when it next is in user mode.
    result : object
        What its function returned.

    Notes
    -----
    The remaining attributes belong to the scheduler.
    """

    __slots__ = (
        "accounts",
        "comm",
        "cpu",
        "daemon",
        "exec_start",
        "fatal_signal_pending",
        "flags",
        "greenlet",
        "in_user",
        "joiners",
        "nice",
        "on_rq",
        "pid",
        "pinned",
        "preempt_count",
        "prepared",
        "prev_sum_exec_runtime",
        "remaining",
        "result",
        "should_stop",
        "spin_at",
        "spins",
        "state",
        "sum_exec_runtime",
        "timer",
        "vruntime",
        "waiting_for",
        "weight",
    )

    def __init__(
        self,
        comm: str,
        pid: int,
        *,
        flags: int = 0,
        nice: int = 0,
        daemon: bool = False,
    ) -> None:
        if not -20 <= nice <= 19:
            raise InputError(f"nice={nice} of task {comm!r} must be from -20 to 19")
        self.comm = comm
        self.pid = pid
        self.flags = flags
        self.nice = nice
        self.weight = PRIO_TO_WEIGHT[nice + 20]
        self.daemon = daemon
        self.accounts: dict[str, int] = {}
        self.state = TaskState.RUNNING
        self.cpu = 0
        self.pinned = False
        self.waiting_for: WaitTarget | None = None
        self.result: Any = None
        self.joiners: list[Task] = []
        self.should_stop = False
        self.fatal_signal_pending = False
        self.greenlet: greenlet | None = None
        self.timer: Timer | None = None
        # The scheduler's: position on a CPU, and the part of a charge that preemption cut off.
        self.on_rq = False
        self.prepared = False
        self.in_user = False
        self.preempt_count = 0
        self.remaining = 0
        self.vruntime = 0
        self.exec_start = 0
        self.sum_exec_runtime = 0
        self.prev_sum_exec_runtime = 0
        self.spin_at = -1
        self.spins = 0

    @property
    def charged_ns(self) -> int:
        """Total over all accounts, in ns."""
        return sum(self.accounts.values())

    def __repr__(self) -> str:
        return f"{self.comm}-{self.pid}"
