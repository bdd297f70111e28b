"""Who listens to which event, and whether it is built for that."""

from __future__ import annotations

import pytest

from mmfw.mm.trace import MmVmscanKswapdSleep, MmVmscanKswapdWake, TraceEvent, Tracepoints


def heard() -> tuple[Tracepoints, list[object]]:
    trace, log = Tracepoints(), []
    trace.subscribe_fields(MmVmscanKswapdWake, lambda kind, values: log.append((kind, values)))
    trace.subscribe_fields(MmVmscanKswapdSleep, lambda kind, values: log.append((kind, values)))
    return trace, log


@pytest.mark.parametrize("whole", [False, True])
def test_fields_come_in_order_of_declaration_however_the_event_is_told(whole):
    trace, log = heard()
    events: list[TraceEvent] = []
    if whole:
        trace.subscribe(MmVmscanKswapdWake, events.append)
    trace.fire(MmVmscanKswapdWake, 0, 2, 9)
    trace.fire(MmVmscanKswapdWake, 0, order=9, zid=2)
    trace.emit(MmVmscanKswapdWake(0, 2, 9))
    trace.fire(MmVmscanKswapdSleep, 3)
    trace.emit(MmVmscanKswapdSleep(3))
    assert log == [(MmVmscanKswapdWake, (0, 2, 9))] * 3 + [(MmVmscanKswapdSleep, (3,))] * 2
    assert events == [MmVmscanKswapdWake(0, 2, 9)] * 3 * whole


def test_no_event_is_built_that_nobody_wants_whole(monkeypatch):
    trace, log = heard()
    built = []
    monkeypatch.setattr(MmVmscanKswapdWake, "__init__", lambda self, *values: built.append(values))
    trace.fire(MmVmscanKswapdWake, 0, 2, 9)
    assert (len(log), built) == (1, [])
    trace.subscribe_all(lambda event: None)
    trace.fire(MmVmscanKswapdSleep, 3)
    assert log[-1] == (MmVmscanKswapdSleep, (3,))
    assert trace.enabled(MmVmscanKswapdWake)


def test_a_type_is_enabled_by_either_kind_of_listener():
    trace = Tracepoints()
    assert not trace.enabled(MmVmscanKswapdWake)
    trace.subscribe_fields(MmVmscanKswapdWake, lambda kind, values: None)
    assert trace.enabled(MmVmscanKswapdWake)
    assert not trace.enabled(MmVmscanKswapdSleep)
