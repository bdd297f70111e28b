"""The digest of a run's events: what happened, when, in which order, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mmfw.eventlog import DIGESTED_EVENTS, EventLog
from mmfw.mm import trace as tp
from mmfw.mm.core import Mm
from mmfw.testing import make_mm

WAKE = tp.MmVmscanKswapdWake(0, 2, 9)
SLEEP = tp.MmVmscanKswapdSleep(0)


def digest(events: Iterable[tp.TraceEvent], times: Iterable[int] = (1000, 2000, 3000)) -> str:
    mm = make_mm("256M")
    log = EventLog(mm)
    for event, time in zip(events, times, strict=False):
        mm.sched.charge(time - mm.sched.now)
        mm.trace.emit(event)
    return log.hexdigest()


def test_the_same_events_at_the_same_times_have_the_same_digest() -> None:
    assert digest([WAKE, SLEEP]) == digest([WAKE, SLEEP])


@pytest.mark.parametrize(
    ("events", "times"),
    [
        ([SLEEP, WAKE], (1000, 2000)),
        ([WAKE, SLEEP], (1000, 2001)),
        ([WAKE], (1000,)),
        ([WAKE, SLEEP, SLEEP], (1000, 2000, 2000)),
        ([tp.MmVmscanKswapdWake(0, 1, 9), SLEEP], (1000, 2000)),
        ([WAKE, tp.MmVmscanKswapdSleep(1)], (1000, 2000)),
        ([WAKE, tp.MmCompactionKcompactdSleep(0)], (1000, 2000)),
    ],
)
def test_anything_else_has_another(events: list[tp.TraceEvent], times: tuple[int, ...]) -> None:
    assert digest(events, times) != digest([WAKE, SLEEP])


def test_who_else_listens_does_not_matter() -> None:
    mm = make_mm("256M")
    seen: list[tp.TraceEvent] = []
    mm.trace.subscribe(tp.MmVmscanKswapdWake, seen.append)
    mm.trace.subscribe(tp.MmCompactionMigratepages, seen.append)
    log = EventLog(mm)
    mm.trace.subscribe_all(seen.append)
    for event, time in ((WAKE, 1000), (tp.MmCompactionMigratepages(1, 2), 1500), (SLEEP, 2000)):
        mm.sched.charge(time - mm.sched.now)
        mm.trace.emit(event)
    assert len(seen) == 5
    assert log.hexdigest() == digest([WAKE, SLEEP])


def test_every_event_that_mm_emits_is_in_it() -> None:
    """But for those of pages, pageblocks and batches; three come as rows of compiled loops, and five as events."""
    kinds = {kind for kind in vars(tp).values() if isinstance(kind, type) and issubclass(kind, tp.TraceEvent)}
    rows = {tp.MmCompactionMigratepages, tp.MmCompactionIsolateMigratepages, tp.MmCompactionIsolateFreepages}
    small = {
        tp.MmVmscanLruIsolate,
        tp.MmVmscanLruShrinkInactive,
        tp.MmVmscanLruShrinkActive,
        tp.MmVmscanWriteFolio,
        tp.MmCompactionFinished,
    }
    assert kinds - {tp.TraceEvent, tp._CompactionDefer} - rows - small == set(DIGESTED_EVENTS)
    assert len(set(DIGESTED_EVENTS)) == len(DIGESTED_EVENTS)


def test_passes_of_kswapd_are_counted_by_order() -> None:
    mm: Mm = make_mm("256M")
    log = EventLog(mm)
    for order in (9, 0, 9):
        mm.trace.emit(tp.MmVmscanKswapdWake(0, 2, order))
        mm.trace.emit(SLEEP)
    assert log.kswapd_wakes == {9: 2, 0: 1}
