"""Virtual time: tasks, kthreads, wait queues, fences, timers and locks.

`Scheduler` is the clock and the CPUs; everything else is made for one. The rules by which tasks share a
CPU stand in `mmfw.sched.core`.
"""

from mmfw.sched.core import MAX_SCHEDULE_TIMEOUT, Scheduler
from mmfw.sched.dispatch import SwitchListener, Timer
from mmfw.sched.locks import Mutex, RwSem
from mmfw.sched.params import PreemptModel, SchedParams
from mmfw.sched.task import (
    PF_EXITING,
    PF_KSWAPD,
    PF_KTHREAD,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    PF_MEMALLOC_PIN,
    PF_WQ_WORKER,
    DeadlockError,
    LivelockError,
    SchedError,
    Task,
    TaskState,
    WaitTarget,
)
from mmfw.sched.timer import schedule_timeout_jiffies, timer_wheel_delay
from mmfw.sched.wait import Fence, WaitQueue

__all__ = [
    "MAX_SCHEDULE_TIMEOUT",
    "PF_EXITING",
    "PF_KSWAPD",
    "PF_KTHREAD",
    "PF_MEMALLOC",
    "PF_MEMALLOC_NOFS",
    "PF_MEMALLOC_NOIO",
    "PF_MEMALLOC_PIN",
    "PF_WQ_WORKER",
    "DeadlockError",
    "Fence",
    "LivelockError",
    "Mutex",
    "PreemptModel",
    "RwSem",
    "SchedError",
    "SchedParams",
    "Scheduler",
    "SwitchListener",
    "Task",
    "TaskState",
    "Timer",
    "WaitQueue",
    "WaitTarget",
    "schedule_timeout_jiffies",
    "timer_wheel_delay",
]
