"""The OOM killer: whom it chooses, what it prints, and the reaper (mm/oom_kill.c of 6.1).

A victim is a task with anonymous mappings. It is killed as any task is: it ends when it is next in user mode, and its
memory goes with it; if it has not ended after two seconds, it is reaped. Simplified: a thread frees the memory, not
the victim itself, and reaping takes the page tables, too. Not modelled: the upper levels of page tables in a
task's score, children, and what is printed besides the first and the last line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmfw import gfp
from mmfw.costs import NSEC_PER_SEC, TICK_NSEC
from mmfw.errors import MmfwError
from mmfw.gfp import show_gfp_flags
from mmfw.mm.trace import MarkVictim, Tracepoints
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import PF_KTHREAD, TaskState

if TYPE_CHECKING:
    from mmfw.mm.memory import AnonMemory, Vma
    from mmfw.sched import Scheduler, Task

OOM_SCORE_ADJ_MIN: Final = -1000
#: After so long a victim that has not ended is reaped.
OOM_REAPER_DELAY: Final = 2 * NSEC_PER_SEC


class OutOfMemory(MmfwError):
    """A request can never be answered: the kernel would panic, or loop for ever."""

    exit_status = 1


class OomControl:
    """The OOM killer of one machine.

    Parameters
    ----------
    sched : Scheduler
        Its tasks.
    memory : AnonMemory
        Their mappings.
    trace, vmstat : Tracepoints, VmStat
        Where events and counts go.
    totalpages : int
        Managed pages and swap, which ``oom_score_adj`` is a thousandth of.
    """

    def __init__(
        self, sched: Scheduler, memory: AnonMemory, trace: Tracepoints, vmstat: VmStat, totalpages: int
    ) -> None:
        self._sched = sched
        self._memory = memory
        self._trace = trace
        self._vmstat = vmstat
        self._totalpages = totalpages
        self._locked = False
        self._victims: set[int] = set()
        self.printk: Callable[[str], None] = lambda line: None

    # --- oom_lock -------------------------------------------------------------------------------------

    def mutex_trylock(self) -> bool:
        """Take ``oom_lock`` if it is free."""
        if self._locked:
            return False
        self._locked = True
        return True

    def unlock(self) -> None:
        """Give ``oom_lock`` back."""
        self._locked = False

    def wait_for_other(self) -> None:
        """Sleep a tick while another task holds ``oom_lock``."""
        self._sched.schedule_timeout(TICK_NSEC)

    def current_is_victim(self) -> bool:
        """``tsk_is_oom_victim(current)``."""
        return self._sched.current.pid in self._victims

    # --- choosing -------------------------------------------------------------------------------------

    def _tasks(self) -> list[tuple[Task, list[Vma]]]:
        by_task: dict[int, tuple[Task, list[Vma]]] = {}
        for vma in self._memory.vmas:
            by_task.setdefault(vma.task.pid, (vma.task, []))[1].append(vma)
        return [by_task[pid] for pid in sorted(by_task)]

    def oom_badness(self, vmas: list[Vma]) -> int | None:
        """Points of a task, in pages; None if it must not be killed (``oom_badness()``)."""
        adj = min(vma.oom_score_adj for vma in vmas)
        if adj == OOM_SCORE_ADJ_MIN:
            return None
        points = sum(vma.nr_resident + vma.nr_swapped + vma.nr_page_tables for vma in vmas)
        return points + adj * (self._totalpages // 1000)

    def out_of_memory(self, gfp_mask: int, order: int, highest_zoneidx: int) -> bool:
        """Kill the task with most points, of equals the youngest, unless a victim is dying already (``out_of_memory()``).

        Returns
        -------
        bool
            Whether to try again: a task is dying, or the request may not enter filesystems, so that others could still
            find memory.

        Raises
        ------
        OutOfMemory
            There is nobody to kill.
        """
        del highest_zoneidx
        current = self._sched.current
        if current.pid and current.fatal_signal_pending:
            self._mark_oom_victim(current)
            return True
        if not gfp_mask & gfp.FS:
            return True
        chosen: tuple[int, Task, list[Vma]] | None = None
        adj = 0
        for task, vmas in self._tasks():
            if task is current:
                adj = min(vma.oom_score_adj for vma in vmas)
            if task.pid in self._victims:
                if any(vma.nr_resident for vma in vmas):
                    return True
                continue
            points = self.oom_badness(vmas)
            if points is not None and (chosen is None or points >= chosen[0]):
                chosen = (points, task, vmas)
        if chosen is not None and chosen[1].fatal_signal_pending:
            self._mark_oom_victim(chosen[1])
            return True
        self.printk(
            f"{current.comm} invoked oom-killer: gfp_mask={gfp_mask:#x}({show_gfp_flags(gfp_mask)}), "
            f"order={order}, oom_score_adj={adj}"
        )
        if chosen is None:
            self.printk("Out of memory and no killable processes...")
            raise OutOfMemory(
                f"out of memory, and no killable task: an order-{order} request of {current.comm} with "
                f"{show_gfp_flags(gfp_mask)} cannot be met; the kernel would panic. Give the machine more memory"
            )
        self._oom_kill_process(chosen[1], chosen[2])
        return True

    def _oom_kill_process(self, task: Task, vmas: list[Vma]) -> None:
        """``__oom_kill_process()``."""
        self._vmstat.count(VmEvent.oom_kill)
        self._sched.send_sigkill(task)
        self._mark_oom_victim(task)
        total = sum(vma.nr_pages for vma in vmas) * 4
        anon = sum(vma.nr_resident for vma in vmas) * 4
        tables = sum(vma.nr_page_tables for vma in vmas) * 4
        adj = min(vma.oom_score_adj for vma in vmas)
        self.printk(
            f"Out of memory: Killed process {task.pid} ({task.comm}) total-vm:{total}kB, anon-rss:{anon}kB, "
            f"file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:{tables}kB oom_score_adj:{adj}"
        )

    def _mark_oom_victim(self, task: Task) -> None:
        """Let a dying task use reserves, and see to it that its memory is freed (``mark_oom_victim()``)."""
        if task.pid in self._victims:
            return
        self._victims.add(task.pid)
        self._trace.fire(MarkVictim, task.pid)
        self._sched.spawn(self._reap, task, name="oom_reaper", flags=PF_KTHREAD)

    def _reap(self, task: Task) -> None:
        """Free a victim's memory when it has ended (``exit_mmap()``), or after a while (``oom_reap_task()``)."""
        sched = self._sched
        deadline = sched.now + OOM_REAPER_DELAY
        while task.state is not TaskState.DEAD and sched.now < deadline:
            task.joiners.append(sched.current)
            sched.schedule_timeout(deadline - sched.now)
        self._memory.exit_mmap([vma for vma in self._memory.vmas if vma.task is task])
