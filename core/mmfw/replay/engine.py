"""Replays one trace: builds the machine from its first state, runs the operations, compares everything.

Up to the first difference the operations run compiled, in chunks. From there on they run one by one, each
page that came instead of the trace's being freed in its place, so that the share of equal pfns still
means something after one slip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg
from mmfw.jit import replay as jit
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.context import IrqsOff, SleepingOnce
from mmfw.mm.freelist import Freelist
from mmfw.mm.mmzone import PglistData
from mmfw.mm.page_alloc import BadPage, PageAllocator
from mmfw.mm.pages import Memory
from mmfw.mm.shrinker import ShrinkerList
from mmfw.mm.slowpath import Slowpath
from mmfw.mm.trace import MmVmscanWakeupKswapd, Tracepoints
from mmfw.mm.vmscan import Vmscan
from mmfw.mm.vmstat import VmStat
from mmfw.mm.wakeup import KswapdRequests
from mmfw.replay.around import lists_around
from mmfw.replay.reader import CLASS_GFP, Check, Header, Operation, StateRecord, TraceReader
from mmfw.replay.states import InconsistentState, read_state
from mmfw.statediff import first_difference
from mmfw.types import MmOps

#: Operations per compiled chunk: bounds what is held of a trace.
CHUNK_OPS: Final = 8192
_FINAL_STATE: Final = 100


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference of a trace.

    Attributes
    ----------
    line : int
        Line of the trace it was found at.
    operation : str
        That operation (or ``state LABEL``) as the trace has it.
    op_index : int
        Its number, counted from 0 over operations; for a state, of the operation before it (-1: none).
    what : str
        pfn, free, events, or the place in a state.
    expected, got : str
        The trace's and ours.
    around : tuple of str
        Our lists around it, a line each.
    """

    line: int
    operation: str
    op_index: int
    what: str
    expected: str
    got: str
    around: tuple[str, ...] = ()


@dataclass(slots=True)
class ReplayResult:
    """What came of one trace. Counts are of operations, events and state records."""

    file: str
    ops: int = 0
    pfns_compared: int = 0
    pfn_matches: int = 0
    events_compared: int = 0
    events_match: int = 0
    states_compared: int = 0
    states_match: int = 0
    first_mismatch: Mismatch | None = None
    final_state_matches: bool = False

    @property
    def passed(self) -> bool:
        """Whether everything was equal to the end."""
        return self.first_mismatch is None and self.final_state_matches


@dataclass(slots=True)
class _Machine:
    """A machine on which a trace runs."""

    memory: Memory
    freelist: Freelist
    allocator: PageAllocator
    classes: NDArray[np.int64]
    gfp: tuple[int, ...]
    instead: dict[int, int] = field(default_factory=dict)


def _build(header: Header, state: StateRecord, reader: TraceReader) -> _Machine:
    node = read_state(
        state.record,
        file=str(reader.path),
        line=state.line,
        watermark_boost_factor=header.watermark_boost_factor,
    )
    memory = Memory(node)
    pgdat = PglistData(memory)
    trace = Tracepoints()
    vmstat = VmStat(memory)
    ops = MmOps(plan_wakeup=mmfw_plan_wakeup, should_shrink_slab=mmfw_should_shrink_slab)
    context = IrqsOff()
    kswapd = KswapdRequests(pgdat, lambda *_: None, ops, SleepingOnce(), trace)
    shrinkers = ShrinkerList(trace, vmstat)
    vmscan = Vmscan(pgdat, shrinkers, None, None, None, ops, kswapd, None, context, trace, vmstat)
    freelist = Freelist(pgdat, kswapd, context)
    slowpath = Slowpath(freelist, vmscan, None, None, context, trace, vmstat)
    allocator = PageAllocator(freelist, slowpath, context)
    kinds = [pg.TR_EXTFRAG, pg.TR_WAKEUP_KSWAPD]
    if header.verbose:
        kinds += [pg.TR_ZONE_LOCKED, pg.TR_PCPU_DRAIN]
    memory.S[pg.S_TRACE_MASK] = sum(1 << kind for kind in kinds)
    trace.subscribe(
        MmVmscanWakeupKswapd,
        lambda event: pg.trace(memory.S, pg.TR_WAKEUP_KSWAPD, event.order, event.zid, 0, 0, 0),
    )
    gfp = tuple(CLASS_GFP[name] for name in header.gfp_classes)
    classes = np.array([(mask, *allocator.fast_request(mask)) for mask in gfp], dtype=np.int64)
    return _Machine(memory, freelist, allocator, classes.reshape(len(gfp), 4), gfp)


class Replay:
    """One trace against one machine."""

    def __init__(self, path: Path) -> None:
        self._reader = TraceReader(path)
        self.result = ReplayResult(file=str(path))
        self._header: Header | None = None
        self._machine: _Machine | None = None
        self._counts = {jit.OP_ALLOC: 0, jit.OP_FREE: 0, jit.OP_DRAIN: 0}
        self._failed_allocs = 0
        self._next_label = 0
        self._final_state_seen = False

    def run(self) -> ReplayResult:
        """Replay the whole trace.

        Returns
        -------
        ReplayResult
            Counts, and the first difference if there is one.

        Raises
        ------
        InputError
            The file is not a whole, well-formed trace; names file and line.
        """
        chunk: list[Operation] = []
        result = self.result
        for record in self._reader.records():
            if isinstance(record, Operation):
                if self._machine is None:
                    raise self._reader.error("an operation before the first state record", record.line)
                chunk.append(record)
                self._count(record)
                if len(chunk) >= CHUNK_OPS:
                    self._run_chunk(chunk)
                    chunk.clear()
                continue
            self._run_chunk(chunk)
            chunk.clear()
            if isinstance(record, Header):
                self._header = record
            elif isinstance(record, StateRecord):
                self._state(record)
            else:
                self._check(record)
        if self._machine is None:
            raise self._reader.error("the trace has no state record to start from")
        return result

    def _count(self, op: Operation) -> None:
        self.result.ops += 1
        self._counts[op.kind] += 1
        self.result.events_compared += len(op.events)
        if op.kind == jit.OP_ALLOC:
            self.result.pfns_compared += 1
            self._failed_allocs += op.pfn < 0

    # --- states -------------------------------------------------------------------------------------

    def _state(self, record: StateRecord) -> None:
        expected_label = self._next_label
        if record.label not in ((0,) if expected_label == 0 else (expected_label, _FINAL_STATE)):
            wanted = "0" if expected_label == 0 else f"{expected_label} or {_FINAL_STATE}"
            raise self._reader.error(f"'state' is {record.label}; {wanted} comes next", record.line)
        self._next_label = expected_label + 1
        result, machine = self.result, self._machine
        if machine is None:
            if self._header is None:
                raise self._reader.error("a state record before the header")
            try:
                self._machine = _build(self._header, record, self._reader)
            except InconsistentState as fault:
                # The kernel cannot have been in this state, so the trace was not taken in it.
                self._mismatch_state(
                    record, "consistency", "a state that does not contradict itself", str(fault)
                )
                raise _Unreplayable from None
            return
        result.states_compared += 1
        self._final_state_seen |= record.label == _FINAL_STATE
        try:
            expected = read_state(
                record.record,
                file=str(self._reader.path),
                line=record.line,
                watermark_boost_factor=int(machine.memory.S[pg.S_BOOST_FACTOR]),
            )
        except InconsistentState as fault:
            self._mismatch_state(record, "consistency", "a state that does not contradict itself", str(fault))
            return
        difference = first_difference(expected, machine.memory.node_state())
        if difference is None:
            result.states_match += 1
        else:
            self._mismatch_state(record, difference.where, difference.expected, difference.got)
        if record.label == _FINAL_STATE:
            result.final_state_matches = difference is None

    def _mismatch_state(self, record: StateRecord, what: str, expected: str, got: str) -> None:
        if self.result.first_mismatch is None:
            self.result.first_mismatch = Mismatch(
                line=record.line,
                operation=f"state {record.label}",
                op_index=self.result.ops - 1,
                what=what,
                expected=expected,
                got=got,
            )

    def _check(self, check: Check) -> None:
        """The capture's own counts; a trace that lost a line fails here."""
        if self.result.first_mismatch is not None:
            return
        if not self._final_state_seen:
            raise self._reader.error(
                f"no state record {_FINAL_STATE} stands before the check line", check.line
            )
        allocs_ok = self._counts[jit.OP_ALLOC] - self._failed_allocs
        for name, want, have in (
            ("ops", check.ops, self.result.ops),
            ("allocs_ok", check.allocs_ok, allocs_ok),
            ("allocs_failed", check.allocs_failed, self._failed_allocs),
            ("frees", check.frees, self._counts[jit.OP_FREE]),
        ):
            if want != have:
                raise self._reader.error(
                    f"the check line counts {want} {name}, the trace has {have}", check.line
                )

    # --- operations ---------------------------------------------------------------------------------

    def _run_chunk(self, chunk: list[Operation]) -> None:
        if not chunk or self._machine is None:
            return
        if self.result.first_mismatch is not None:
            self._follow(chunk)
            return
        ops = np.array([(op.kind, op.order, op.gfp_class, op.pfn) for op in chunk], dtype=np.int64)
        rows = [row for op in chunk for row in op.events]
        want = np.array(rows, dtype=np.int64).reshape(len(rows), pg.TR_SIZE)
        offsets = np.zeros(len(chunk) + 1, dtype=np.int64)
        np.cumsum([len(op.events) for op in chunk], out=offsets[1:])
        machine, at = self._machine, 0
        memory, allocator = machine.memory, machine.allocator
        first = self.result.ops - len(chunk)
        while True:
            status, i, pfn = jit.replay_chunk(
                memory.page, memory.pb, memory.S, ops, machine.classes, want, offsets, at
            )
            done = chunk[at : i + 1] if status != jit.CHUNK_DONE else chunk[at:]
            self._credit(done)
            if status == jit.CHUNK_DONE:
                return
            op = chunk[i]
            if status == jit.CHUNK_SLOWPATH:
                pfn = allocator.alloc_pages_slowpath(machine.gfp[op.gfp_class], op.order)
            elif status == jit.CHUNK_BOOST_WAKE:
                machine.freelist.wake_for_boost()
            if status in (jit.CHUNK_SLOWPATH, jit.CHUNK_BOOST_WAKE):
                equal = jit.events_equal(memory.S, want, offsets[i], offsets[i + 1])
                status = jit.CHUNK_PFN if pfn != op.pfn else jit.CHUNK_DONE if equal else jit.CHUNK_EVENTS
            if status == jit.CHUNK_DONE:
                at = i + 1
                if at == len(chunk):
                    return
                continue
            self._mismatch_op(op, first + i, status, int(pfn))
            self._follow(chunk[i + 1 :])
            return

    def _credit(self, done: list[Operation]) -> None:
        """Count operations as equal; `_mismatch_op` takes back what was not."""
        for op in done:
            self.result.pfn_matches += op.kind == jit.OP_ALLOC
            self.result.events_match += len(op.events)

    def _mismatch_op(self, op: Operation, index: int, status: int, pfn: int) -> None:
        result, machine = self.result, self._machine
        assert machine is not None
        came = self._events()
        result.events_match -= len(op.events) - _common(op.events, came)
        if status == jit.CHUNK_PFN:
            result.pfn_matches -= 1
            machine.instead[op.pfn] = pfn
            what, expected, got = "pfn", _pfn(op.pfn), _pfn(pfn)
        elif status == jit.CHUNK_BAD_FREE:
            what, expected = "free", f"{_pfn(op.pfn)} allocated as order {op.order}"
            got = "not an allocated block of that order"
        else:
            what, expected, got = "events", _events(op.events), _events(came)
        result.first_mismatch = Mismatch(
            line=op.line,
            operation=op.text,
            op_index=index,
            what=what,
            expected=expected,
            got=got,
            around=lists_around(machine.freelist.pgdat, [p for p in (op.pfn, pfn) if p >= 0], op.order),
        )

    def _events(self) -> tuple[tuple[int, ...], ...]:
        assert self._machine is not None
        return tuple(tuple(int(v) for v in row) for row in self._machine.memory.take_trace())

    def _follow(self, chunk: list[Operation]) -> None:
        """After the first difference: one by one, each page standing in for the trace's."""
        machine, result = self._machine, self.result
        assert machine is not None
        allocator, instead = machine.allocator, machine.instead
        for op in chunk:
            machine.memory.take_trace()
            if op.kind == jit.OP_ALLOC:
                pfn = allocator.alloc_pages(machine.gfp[op.gfp_class], op.order)
                result.pfn_matches += pfn == op.pfn
                if pfn != op.pfn and op.pfn >= 0:
                    instead[op.pfn] = pfn
                else:
                    instead.pop(op.pfn, None)
            elif op.kind == jit.OP_FREE:
                pfn = instead.pop(op.pfn, op.pfn)
                if pfn >= 0:
                    try:
                        allocator.free_pages(pfn, op.order)
                    except BadPage:
                        continue
            else:
                machine.freelist.drain_local_pages()
            result.events_match += _common(op.events, self._events())


class _Unreplayable(Exception):
    """The first state contradicts itself: there is nothing to run the operations on."""


def replay_file(path: Path) -> ReplayResult:
    """Replay one trace file; see `Replay.run`."""
    replay = Replay(path)
    try:
        return replay.run()
    except _Unreplayable:
        return replay.result


def _common(a: tuple[tuple[int, ...], ...], b: tuple[tuple[int, ...], ...]) -> int:
    """Length of the common beginning."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def _pfn(pfn: int) -> str:
    return "NULL (-1)" if pfn < 0 else f"pfn {pfn} ({pfn:#x})"


_EVENT_NAMES: Final = {
    pg.TR_EXTFRAG: (
        "mm_page_alloc_extfrag",
        ("pfn", "alloc_order", "fallback_order", "alloc_mt", "fallback_mt"),
    ),
    pg.TR_ZONE_LOCKED: ("mm_page_alloc_zone_locked", ("pfn", "order", "migratetype", "percpu_refill")),
    pg.TR_PCPU_DRAIN: ("mm_page_pcpu_drain", ("pfn", "order", "migratetype")),
    pg.TR_WAKEUP_KSWAPD: ("mm_vmscan_wakeup_kswapd", ("order", "highest_zoneidx")),
}


def _events(rows: tuple[tuple[int, ...], ...]) -> str:
    if not rows:
        return "no event"
    out = []
    for row in rows[:8]:
        name, fields = _EVENT_NAMES[row[0]]
        out.append(f"{name}: " + " ".join(f"{f}={v}" for f, v in zip(fields, row[1:], strict=False)))
    if len(rows) > 8:
        out.append(f"and {len(rows) - 8} more")
    return "; ".join(out)
