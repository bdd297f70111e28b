"""When a CPU changes task, as figures: the constants of CFS and the preemption model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class PreemptModel(Enum):
    """``preempt=`` of CONFIG_PREEMPT_DYNAMIC (kernel/sched/core.c): where a task in kernel mode may lose its
    CPU.

    In user mode (`Scheduler.charge_user`) every model preempts at once.
    """

    NONE = "none"  #: only where it sleeps or calls ``cond_resched()``
    VOLUNTARY = "voluntary"  #: there, and at every ``might_sleep()``
    FULL = "full"  #: anywhere outside `Scheduler.preempt_disabled`


@dataclass(frozen=True, slots=True)
class SchedParams:
    """The constants that decide who runs; all times in ns.

    Attributes
    ----------
    preempt : PreemptModel
        ``voluntary``: boot log of all 6.1.192 captures ("Dynamic Preempt: voluntary").
    tick : int
        4 ms: CONFIG_HZ=250 of the captures.
    latency : int
        6 ms, ``sysctl_sched_latency`` (kernel/sched/fair.c), before scaling by CPUs.
    min_granularity : int
        0.75 ms, ``sysctl_sched_min_granularity`` (fair.c), before scaling.
    wakeup_granularity : int
        1 ms, ``sysctl_sched_wakeup_granularity`` (fair.c), before scaling.
    nr_latency : int
        8, ``sched_nr_latency`` (fair.c): with more runnable tasks the period stretches.
    livelock_calls : int
        Scheduler calls one task may make at one instant before it counts as a livelock; ours. A request
        makes a handful.
    """

    preempt: PreemptModel = PreemptModel.VOLUNTARY
    tick: int = 4_000_000
    latency: int = 6_000_000
    min_granularity: int = 750_000
    wakeup_granularity: int = 1_000_000
    nr_latency: int = 8
    livelock_calls: int = 100_000

    def scaled(self, nr_cpus: int) -> SchedParams:
        """With the three granularities times 1 + log2(CPUs, at most 8) (``get_update_sysctl_factor``)."""
        factor = min(nr_cpus, 8).bit_length()
        return replace(
            self,
            latency=self.latency * factor,
            min_granularity=self.min_granularity * factor,
            wakeup_granularity=self.wakeup_granularity * factor,
        )


NICE_0_LOAD: Final = 1024
#: ``sched_prio_to_weight[]`` (kernel/sched/core.c), nice -20 first.
PRIO_TO_WEIGHT: Final = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)
