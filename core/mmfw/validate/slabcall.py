"""One captured call of ``do_shrink_slab()``, run by the simulator's own and stopped at each scan.

The captured shrinker's answers arrive line by line, and another task's lines may stand between them.
So the call runs in a greenlet that waits in ``scan_objects`` until the capture says what the real one
returned: what two reclaimers inside one shrinker do to its deferred work happens in the captured order.
"""

from __future__ import annotations

from typing import Final

from greenlet import getcurrent, greenlet

from mmfw.mm.shrinker import Shrinker, do_shrink_slab
from mmfw.mm.trace import MmShrinkSlabEnd, MmShrinkSlabStart, Tracepoints
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.types import SHRINK_STOP, ShrinkControl, ShrinkerOps

#: Slot of ``nr_deferred``: the captured machines have one node.
SLOT: Final = 0


class ScanCount(VmStat):
    """Event counters of no machine."""

    def __init__(self) -> None:
        self._counts: dict[VmEvent, int] = {}

    def count(self, event: VmEvent, n: int = 1) -> None:
        """Add to a counter."""
        self._counts[event] = self[event] + n

    def __getitem__(self, event: VmEvent) -> int:
        return self._counts.get(event, 0)

    @property
    def pgfree(self) -> int:
        """There are no pages here."""
        return 0


class CapturedShrinker:
    """A shrinker that answers what the captured one answered.

    Parameters
    ----------
    name : str
        Name given at registration.
    seeks, batch : int
        As registered.

    Attributes
    ----------
    shrinker : Shrinker
        mm's own record of it, deferred work included.
    inside : dict of int to SlabCall or None
        Calls under way by task; None is one whose beginning the capture does not have.
    deferred_known : bool
        Whether `shrinker` has kept count from the start.
    """

    def __init__(self, name: str, seeks: int, batch: int) -> None:
        self.name = name
        self.shrinker = Shrinker(
            ShrinkerOps(
                count_objects=self._count_objects,
                scan_objects=self._scan_objects,
                compaction_scan=None,
                name=name,
                seeks=seeks,
                batch=batch,
                flags=0,
                plugin="",
            )
        )
        self.inside: dict[int, SlabCall | None] = {}
        self.deferred_known = False
        self._resumed: SlabCall | None = None

    @property
    def deferred(self) -> int:
        """Work put off, as mm keeps it; objects."""
        return self.shrinker.nr_deferred.get(SLOT, 0)

    @deferred.setter
    def deferred(self, objects: int) -> None:
        self.shrinker.nr_deferred[SLOT] = objects

    def resume(self, call: SlabCall) -> None:
        """Say whose methods mm is about to call."""
        self._resumed = call

    def _call(self) -> SlabCall:
        if self._resumed is None:
            raise RuntimeError(f"shrinker {self.name} was called outside a captured call")
        return self._resumed

    def _count_objects(self, sc: ShrinkControl) -> int:
        return self._call().count

    def _scan_objects(self, sc: ShrinkControl) -> int:
        return self._call().scan_objects(sc)


class SlabCall:
    """A call of `do_shrink_slab` with captured answers.

    Parameters
    ----------
    captured : CapturedShrinker
        Whom it asks.
    count : int
        What the captured ``count_objects`` returned.
    gfp_mask, nid, priority : int
        As captured.
    vmstat : VmStat
        Counts ``slabs_scanned``.

    Attributes
    ----------
    start, end : event or None
        What our call emitted so far.
    asked : int or None
        ``nr_to_scan`` of the scan that our call waits in.
    finished : bool
        Whether our call has returned.
    """

    def __init__(
        self, captured: CapturedShrinker, count: int, gfp_mask: int, nid: int, priority: int, vmstat: VmStat
    ) -> None:
        self.captured = captured
        self.count = count
        self.start: MmShrinkSlabStart | None = None
        self.end: MmShrinkSlabEnd | None = None
        self.asked: int | None = None
        self.finished = False
        self._answer: tuple[int, int] | None = None
        self._driver = getcurrent()
        self._control = ShrinkControl(gfp_mask=gfp_mask, nid=nid, priority=priority)
        self._priority = priority
        self._vmstat = vmstat
        self._greenlet = greenlet(self._run)

    def begin(self) -> None:
        """Run until our call asks for its first scan or returns."""
        self._proceed()

    def next_scan(self) -> int | None:
        """Let the scan before, if any, return.

        Returns
        -------
        int or None
            ``nr_to_scan`` of the scan that our call then waits in; None if it asks for none.
        """
        if self._answer is not None:
            self._proceed()
        return self.asked

    def answer(self, ret: int, nr_scanned: int) -> None:
        """Say what the scan that our call waits in returned; it does not return yet."""
        self._answer = (ret, nr_scanned)

    def finish(self) -> int | None:
        """Run to the end; a scan that the captured call did not make answers SHRINK_STOP.

        Returns
        -------
        int or None
            ``nr_to_scan`` of that scan.
        """
        extra = self.next_scan()
        if not self.finished:
            self.answer(SHRINK_STOP, 0)
            self._proceed()
        # An implementation that scans on after SHRINK_STOP would do so for ever.
        self._greenlet.throw()
        return extra

    def scan_objects(self, sc: ShrinkControl) -> int:
        """Wait for the captured answer; called by mm."""
        self.asked = sc.nr_to_scan
        self._driver.switch()
        if self._answer is None:
            raise RuntimeError(f"a scan of {self.captured.name} was resumed without an answer")
        ret, sc.nr_scanned = self._answer
        self.asked = self._answer = None
        return ret

    def _proceed(self) -> None:
        self.captured.resume(self)
        self._greenlet.switch()

    def _run(self) -> None:
        trace = Tracepoints()
        trace.subscribe(MmShrinkSlabStart, self._on_start)
        trace.subscribe(MmShrinkSlabEnd, self._on_end)
        do_shrink_slab(self.captured.shrinker, self._control, self._priority, trace, self._vmstat)
        self.finished = True

    def _on_start(self, event: MmShrinkSlabStart) -> None:
        self.start = event

    def _on_end(self, event: MmShrinkSlabEnd) -> None:
        self.end = event
