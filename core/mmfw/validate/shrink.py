"""Real calls to captured shrinkers against the simulator's ``do_shrink_slab()``, figure by figure.

A capture is a folder with ``shrink.trace.gz``: the vmscan tracepoints, and what each of the capture's own
shrinkers was asked and answered. The simulator gets the answers (`mmfw.validate.slabcall`) and must
find the rest: what it scans, batch by batch, what it leaves, and what it defers to the next call. Deferred
work is kept by the simulator from registration on; where it differs from the capture's it is compared,
then set right, so that one difference is reported once.

Where a second task was inside the same shrinker during a call, what either took and put back depends on
instants that no trace shows; the deferred counts of such calls are compared but not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mmfw.mm.vmstat import VmEvent
from mmfw.proc.ftrace import FtraceLine, FtraceReader
from mmfw.proc.stream import LineStream
from mmfw.proc.text import read_text, split_sections
from mmfw.proc.tracebody import Text, parse_body
from mmfw.proc.vmscan_trace import ProbeCount, ProbeScan, ProbeShrinker, ShrinkSlabEnd, ShrinkSlabStart
from mmfw.proc.vmstat import parse_vmstat
from mmfw.types import DEF_PRIORITY, SHRINK_EMPTY
from mmfw.validate.common import Comparison
from mmfw.validate.slabcall import CapturedShrinker, ScanCount, SlabCall
from mmfw.validate.slabsystem import SystemShrinkers

_SCAN_FUNCTION: Final = re.compile(r"probe_scan_(\d{1,4})\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?", re.ASCII)
_DMESG: Final = re.compile(r"\[ *\d+\.\d{6}\] (probe: shrinker .*)", re.ASCII)


@dataclass(slots=True)
class _Open:
    """A captured call under way: what it began with, what it has scanned, and our call beside it."""

    captured: CapturedShrinker
    call: SlabCall
    begun: ShrinkSlabStart
    line: int
    steps: int = 0
    scanned: tuple[int, int] = (0, 0)
    wrong_step: tuple[int, int, int] | None = None
    concurrent: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Task:
    """A task that reclaims, and where in a call it is."""

    name: str
    counted: tuple[CapturedShrinker, ProbeCount] | None = None
    open: _Open | None = None
    whole: bool = False


class ShrinkReplay:
    """Feeds a capture's lines to the simulator and compares what comes.

    Parameters
    ----------
    experiment : str
        Capture's name for the comparisons.
    reader : FtraceReader
        Its trace.
    """

    def __init__(self, experiment: str, reader: FtraceReader) -> None:
        self.vmstat = ScanCount()
        self.system = SystemShrinkers(experiment)
        self._experiment = experiment
        self._reader = reader
        self._registered: dict[int, ProbeShrinker] = {}
        self._by_id: dict[int, CapturedShrinker] = {}
        self._by_name: dict[str, CapturedShrinker] = {}
        self._tasks: dict[int, _Task] = {}

    def register(self, body: ProbeShrinker, *, in_trace: bool) -> None:
        """Register a captured shrinker; its deferred work is known if the trace reaches back to this."""
        before = self._registered.setdefault(body.id, body)
        if before != body or (before is body and body.name in self._by_name):
            raise self._reader.error(f"shrinker {body.id} was registered before, as {before.name!r}")
        if before is body:
            captured = CapturedShrinker(body.name, body.seeks, body.batch)
            self._by_id[body.id] = self._by_name[body.name] = captured
        self._by_id[body.id].deferred_known |= in_trace

    def comparisons(self) -> Iterator[Comparison]:
        """Compare the whole trace.

        Raises
        ------
        InputError
            The trace is damaged or contradicts itself.
        """
        for line in self._reader:
            body = line.body
            if isinstance(body, ProbeScan):
                self._scan(line, body)
            elif isinstance(body, ProbeCount):
                yield from self._count(line, body)
            elif isinstance(body, ShrinkSlabStart):
                yield from self._start(line, body)
            elif isinstance(body, ShrinkSlabEnd):
                yield from self._end(line, body)
            elif isinstance(body, ProbeShrinker):
                self.register(body, in_trace=True)
            elif isinstance(body, Text) and not body.text.startswith("probe: "):
                raise self._reader.error(f"event {line.event!r} does not belong into a capture of shrinkers")

    # --- lines --------------------------------------------------------------------------------------

    def _count(self, line: FtraceLine, body: ProbeCount) -> Iterator[Comparison]:
        task = self._task(line)
        if task.open is not None:
            raise self._reader.error(
                f"{task.name} counts {body.name!r} inside a call to {task.open.captured.name!r}"
            )
        captured = self._named(body.name)
        yield from self._unstarted(task, line)
        task.whole = True
        if body.ret in (0, SHRINK_EMPTY):
            yield self._not_traced(captured, body, line, 0)
        else:
            task.counted = (captured, body)

    def _start(self, line: FtraceLine, body: ShrinkSlabStart) -> Iterator[Comparison]:
        task = self._task(line)
        match = _SCAN_FUNCTION.fullmatch(body.shrink)
        if match is None:
            yield from self._unstarted(task, line)
            task.whole = True
            yield from self.system.start(line, body, self.vmstat)
            return
        captured = self._numbered(int(match[1]))
        if task.counted is None or task.open is not None:
            self._need_beginning(task, f"a call to {captured.name!r} starts that nothing was counted for")
            captured.inside[line.pid] = None
            return
        counted, count = task.counted
        if counted is not captured or count.ret != body.cache_items or count.nid != body.nid:
            raise self._reader.error(
                f"a call to {captured.name!r} with {body.cache_items} items starts after {task.name} counted "
                f"{count.ret} of {counted.name!r}"
            )
        task.counted = None
        call = SlabCall(captured, count.ret, count.gfp, count.nid, body.priority, self.vmstat)
        begun = task.open = _Open(captured, call, body, line.number)
        for pid, other in captured.inside.items():
            begun.concurrent.append(self._tasks[pid].name)
            other_open = self._tasks[pid].open
            if other is not None and other_open is not None:
                other_open.concurrent.append(task.name)
        captured.inside[line.pid] = call
        if captured.deferred_known:
            yield self._compared(
                begun,
                "start",
                "nr_objects_to_shrink",
                body.nr_objects_to_shrink,
                captured.deferred,
                racy=True,
            )
        captured.deferred = body.nr_objects_to_shrink
        captured.deferred_known = True
        call.begin()
        ours = call.start
        yield self._compared(begun, "start", "delta", body.delta, None if ours is None else ours.delta)
        yield self._compared(
            begun, "start", "total_scan", body.total_scan, None if ours is None else ours.total_scan
        )

    def _scan(self, line: FtraceLine, body: ProbeScan) -> None:
        task = self._task(line)
        captured = self._named(body.name)
        begun = task.open
        if begun is None or begun.captured is not captured:
            self._need_beginning(task, f"{captured.name!r} is scanned outside a call to it")
            captured.inside[line.pid] = None
            return
        asked = begun.call.next_scan()
        if asked != body.nr_to_scan and begun.wrong_step is None:
            begun.wrong_step = (begun.steps, body.nr_to_scan, asked or 0)
        begun.steps += 1
        begun.scanned = (begun.scanned[0] + body.nr_to_scan, begun.scanned[1] + (asked or 0))
        if asked is not None:
            begun.call.answer(body.ret, body.nr_scanned)

    def _end(self, line: FtraceLine, body: ShrinkSlabEnd) -> Iterator[Comparison]:
        task = self._task(line)
        match = _SCAN_FUNCTION.fullmatch(body.shrink)
        if match is None:
            self.system.end(line, body)
            return
        captured = self._numbered(int(match[1]))
        begun = task.open
        if begun is None or begun.captured is not captured:
            self._need_beginning(task, f"a call to {captured.name!r} ends that did not start")
            captured.inside.pop(line.pid, None)
            captured.deferred = body.new_scan
            captured.deferred_known = True
            return
        if body.unused_scan != begun.begun.nr_objects_to_shrink:
            raise self._reader.error(
                f"the call took {begun.begun.nr_objects_to_shrink} deferred objects (line {begun.line}), "
                f"not {body.unused_scan}"
            )
        extra = begun.call.finish()
        if extra is not None and begun.wrong_step is None:
            begun.wrong_step = (begun.steps, 0, extra)
        yield self._steps(begun)
        ours = begun.call.end
        yield self._compared(begun, "end", "retval", body.retval, None if ours is None else ours.retval)
        yield self._compared(
            begun, "end", "total_scan", body.total_scan, None if ours is None else ours.total_scan
        )
        yield self._compared(
            begun, "end", "new_scan", body.new_scan, None if ours is None else ours.new_scan, racy=True
        )
        if begun.concurrent:
            captured.deferred = body.new_scan
        del captured.inside[line.pid]
        task.open = None

    # --- figures ------------------------------------------------------------------------------------

    def _compared(
        self, begun: _Open, figure: str, counter: str, real: int, simulated: int | None, *, racy: bool = False
    ) -> Comparison:
        labels = self._labels(begun, figure)
        apart = racy and bool(begun.concurrent)
        if apart:
            labels["concurrent"] = ", ".join(dict.fromkeys(begun.concurrent))
        return Comparison(
            self._experiment, labels, counter, real, simulated or 0, simulated == real, counted=not apart
        )

    def _steps(self, begun: _Open) -> Comparison:
        """All scans of a call as one figure: their sum, or the first that differs."""
        labels = self._labels(begun, "scan")
        labels["steps"] = str(begun.steps)
        real, simulated = begun.scanned
        if begun.wrong_step is not None:
            step, real, simulated = begun.wrong_step
            labels["step"] = str(step)
        return Comparison(self._experiment, labels, "nr_to_scan", real, simulated, begun.wrong_step is None)

    def _not_traced(
        self, captured: CapturedShrinker, body: ProbeCount, line: FtraceLine, real: int
    ) -> Comparison:
        """Whether a call that no event tells of emits none here either; its priority is not in the trace."""
        call = SlabCall(captured, body.ret, body.gfp, body.nid, DEF_PRIORITY, self.vmstat)
        call.begin()
        call.finish()
        events = int(call.start is not None)
        labels = {"shrinker": captured.name, "figure": "count", "line": str(line.number)}
        return Comparison(self._experiment, labels, "mm_shrink_slab_start", real, events, events == real)

    def _labels(self, begun: _Open, figure: str) -> dict[str, str]:
        return {
            "shrinker": begun.captured.name,
            "priority": str(begun.begun.priority),
            "figure": figure,
            "line": str(begun.line),
        }

    def _unstarted(self, task: _Task, line: FtraceLine) -> Iterator[Comparison]:
        """A count above 0 that no start followed."""
        if task.counted is not None:
            captured, body = task.counted
            task.counted = None
            yield self._not_traced(captured, body, line, 0)

    # --- who is meant -------------------------------------------------------------------------------

    def _task(self, line: FtraceLine) -> _Task:
        return self._tasks.setdefault(line.pid, _Task(f"{line.comm}-{line.pid}"))

    def _named(self, name: str) -> CapturedShrinker:
        captured = self._by_name.get(name)
        if captured is None:
            raise self._reader.error(
                f"shrinker {name!r} was not registered before this line, nor in dmesg.txt"
            )
        return captured

    def _numbered(self, number: int) -> CapturedShrinker:
        captured = self._by_id.get(number)
        if captured is None:
            raise self._reader.error(
                f"shrinker {number} was not registered before this line, nor in dmesg.txt"
            )
        return captured

    def _need_beginning(self, task: _Task, message: str) -> None:
        """A line of a call whose beginning is missing: right only where the ring buffer overwrote it."""
        if not self._reader.wrapped or task.whole:
            raise self._reader.error(message)


def validate_shrink(path: Path, name: str) -> Iterator[Comparison]:
    """Compare one captured run, call by call.

    Parameters
    ----------
    path : Path
        The capture's folder.
    name : str
        Its name.

    Raises
    ------
    InputError
        A file of the capture is missing or wrong.
    """
    experiment = f"shrink/{name}"
    reader = FtraceReader(path / "shrink.trace.gz")
    replay = ShrinkReplay(experiment, reader)
    for body in _registered_in_dmesg(path / "dmesg.txt"):
        replay.register(body, in_trace=False)
    yield from replay.comparisons()
    if reader.wrapped or not (path / "before.txt").is_file():
        return
    # What the system's own shrinkers scanned is in the trace only as a sum; the rest must be ours.
    real = _slabs_scanned(path / "after.txt") - _slabs_scanned(path / "before.txt") - replay.system.scanned
    ours = replay.vmstat[VmEvent.slabs_scanned]
    yield Comparison(experiment, {"figure": "vmstat"}, VmEvent.slabs_scanned.name, real, ours, real == ours)


def _registered_in_dmesg(path: Path) -> Iterator[ProbeShrinker]:
    """Registrations in the kernel's log, which does not wrap as a trace can."""
    if not path.is_file():
        return
    stream = LineStream(path)
    for text in stream:
        match = _DMESG.fullmatch(text)
        if match is None:
            continue
        try:
            body = parse_body(ProbeShrinker, match[1])
        except ValueError as fault:
            raise stream.error(str(fault)) from None
        if isinstance(body, ProbeShrinker):
            yield body


def _slabs_scanned(path: Path) -> int:
    for section in split_sections(read_text(path), str(path)):
        if section.name == "vmstat":
            stat = parse_vmstat(section.text, str(path), section.first_line)
            return stat.as_dict().get(VmEvent.slabs_scanned.name, 0)
    raise LineStream(path).error("has no section '== vmstat'")
