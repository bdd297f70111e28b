"""Puts what happens in a machine into a trace, in order, with the task and CPU it happened on.

Typed events arrive as they happen. Rows of compiled loops are read before each of them, before time passes for a
task, and at every context switch, so they stand where they belong and show the right task. A row's timestamp is the
virtual time at which its loop ran: all rows of a batch (some 32 pages) show the moment before the batch is charged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw.jit import page as pg
from mmfw.mm.trace import MarkVictim
from mmfw.proc.ftrace import format_ftrace_context
from mmfw.proc.tracebody import format_body
from mmfw.proc.vmscan_trace import LruIsolate
from mmfw.tracing.bodies import event_body, shown_comm, victim_body
from mmfw.tracing.rows import row_body, row_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from mmfw.mm.core import Mm
    from mmfw.mm.trace import TraceEvent
    from mmfw.sched import Task
    from mmfw.tracing.events import Tracepoint
    from mmfw.tracing.options import TraceOptions


def task_comm(task: Task) -> str:
    """Name of a task as ftrace shows it: ``<idle>`` for pid 0 (``trace_find_cmdline()``)."""
    return shown_comm(task.comm) if task.pid else "<idle>"


class Recorder:
    """Writes events of a machine as lines of ftrace, from `start` to `stop`.

    Parameters
    ----------
    mm : Mm
        The machine.
    tracepoints : iterable of Tracepoint
        What to record.
    write : callable
        Takes one line, its newline included.
    options : TraceOptions
        How lines are printed.
    """

    def __init__(
        self,
        mm: Mm,
        tracepoints: Iterable[Tracepoint],
        write: Callable[[str], None],
        options: TraceOptions,
    ) -> None:
        self._mm = mm
        self._memory = mm.pgdat.memory
        self._chosen = tuple(tracepoints)
        self._write = write
        self._irq_info = options.irq_info
        self._running = False
        self._replaced_charge = False

    def start(self) -> None:
        """Begin to record; once."""
        self._running = True
        for each in self._chosen:
            if each.event is not None:
                self._mm.trace.subscribe(each.event, self._note)
        mask = sum(1 << each.row for each in self._chosen if each.row is not None)
        if mask:
            self._memory.take_trace()
            self._memory.trace_sink = self._take_rows
            self._memory.S[pg.S_TRACE_MASK] = mask
            self._mm.sched.add_sched_switch_listener(lambda now, cpu, before, after: self.flush())
            self._flush_before_charges()

    def stop(self) -> None:
        """Record what there is and nothing after."""
        if not self._running:
            return
        self.flush()
        self._running = False
        if self._replaced_charge:
            self._memory.S[pg.S_TRACE_MASK] = 0
            self._memory.trace_sink = None
            vars(self._mm.sched).pop("charge")
            self._replaced_charge = False

    def flush(self) -> None:
        """Write the rows that compiled loops have left, as of the running task and now."""
        if self._running and self._memory.S[pg.S_TRACE_N]:
            self._memory.flush_trace()

    def _flush_before_charges(self) -> None:
        """Read rows before time passes.

        Another task may execute during a charge without a context switch on this one's CPU. `charge` is the hottest
        call of a run, so it gets no hook of its own: it is replaced on the one scheduler that is traced, as a static
        key patches a branch in.
        """
        charge = self._mm.sched.charge
        counters, flush = self._memory.S, self.flush

        def flush_and_charge(ns: int, account: str = "cpu") -> None:
            if counters[pg.S_TRACE_N]:
                flush()
            charge(ns, account)

        self._mm.sched.charge = flush_and_charge  # type: ignore[method-assign]
        self._replaced_charge = True

    def _note(self, event: TraceEvent) -> None:
        if not self._running:
            return
        self.flush()
        if isinstance(event, MarkVictim):
            body = victim_body(event.pid, self._mm.memory.vmas)
        else:
            body = event_body(event)
        # isolate_lru_folios() runs under lru_lock; other typed events fire where nothing is held.
        locks = 1 if isinstance(body, LruIsolate) else 0
        self._write(f"{self._context(locks)}: {body.event}: {format_body(body)}\n")

    def _take_rows(self, rows: NDArray[np.int64]) -> None:
        contexts: dict[int, str] = {}
        blocks = self._memory.pb

        def pageblock_mt(pfn: int) -> int:
            return pg.pageblock_mt(blocks, pfn)

        for row in rows.tolist():
            body = row_body(row, pageblock_mt)
            locks = row_locks(row)
            if locks not in contexts:
                contexts[locks] = self._context(locks)
            self._write(f"{contexts[locks]}: {body.event}: {format_body(body)}\n")

    def _context(self, locks: int) -> str:
        """Task, CPU, flags and time, for a tracepoint under so many spinlocks."""
        sched = self._mm.sched
        task = sched.current
        flags = self._flags(task, locks) if self._irq_info else ""
        usecs = (sched.now + 500) // 1000
        return format_ftrace_context(task_comm(task), task.pid, sched.current_cpu, flags, usecs)

    def _flags(self, task: Task, locks: int) -> str:
        """What ``trace_print_lat_fmt()`` prints; nothing here disables migration or bottom halves."""
        sched = self._mm.sched
        # The idle task runs with preemption disabled.
        depth = min(task.preempt_count + locks + (task.pid == 0), 15)
        return (
            ("d" if locks else ".")
            + ("N" if sched.need_resched() else ".")
            + ("s" if sched.in_interrupt else ".")
            + (f"{depth:x}" if depth else ".")
            + "."
        )
