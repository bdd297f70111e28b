"""``events.parquet``: the digested events (`mmfw.eventlog.DIGESTED_EVENTS`), a row each, as they came.

``time_ns`` (int64); ``event`` (dictionary: names as in /sys/kernel/tracing/events); then a column for each field that
some event has, null where the row's event does not have it: int64 (bools as 0 and 1), names as dictionaries.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfw.eventlog import DIGESTED_EVENTS

if TYPE_CHECKING:
    from mmfw.mm.core import Mm
    from mmfw.mm.trace import TraceEvent


def event_name(kind: type[TraceEvent]) -> str:
    """Name of an event as the kernel writes it.

    Examples
    --------
    >>> from mmfw.mm.trace import MmVmscanKswapdWake
    >>> event_name(MmVmscanKswapdWake)
    'mm_vmscan_kswapd_wake'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


class _Kind:
    """Values of one kind of event, row after row."""

    __slots__ = ("fields", "values")

    def __init__(self, kind: type[TraceEvent]) -> None:
        self.fields = [(each.name, each.type in ("str", str)) for each in fields(kind)]
        self.values = array("q")


class EventRecorder:
    """Keeps every event from here on, about 50 bytes each.

    Parameters
    ----------
    mm : Mm
        The machine.
    """

    def __init__(self, mm: Mm) -> None:
        self._sched = mm.sched
        self._kinds = [_Kind(kind) for kind in DIGESTED_EVENTS]
        self._code = {kind: code for code, kind in enumerate(DIGESTED_EVENTS)}
        self._times = array("q")
        self._codes = array("B")
        self._names: dict[str, int] = {}
        for kind in DIGESTED_EVENTS:
            mm.trace.subscribe_fields(kind, self._note)

    def _note(self, event_type: type[TraceEvent], values: tuple[Any, ...]) -> None:
        code = self._code[event_type]
        kind, names = self._kinds[code], self._names
        self._times.append(self._sched.now)
        self._codes.append(code)
        for (_, is_name), value in zip(kind.fields, values, strict=True):
            kind.values.append(names.setdefault(value, len(names)) if is_name else int(value))

    def columns(self, pa: Any) -> dict[str, Any]:
        """The rows as Arrow arrays.

        Parameters
        ----------
        pa : module
            pyarrow.
        """
        # Copies: a machine that is taken down still has events, and an array cannot grow under a view.
        codes = np.array(self._codes, dtype=np.uint8)
        # By what comes, not by number: a dictionary lists only names that occur.
        present = np.unique(codes)
        names = pa.array([event_name(DIGESTED_EVENTS[code]) for code in present], pa.string())
        indices = pa.array(np.searchsorted(present, codes).astype(np.int32))
        columns: dict[str, Any] = {
            "time_ns": pa.array(np.array(self._times, dtype=np.int64)),
            "event": pa.DictionaryArray.from_arrays(indices, names),
        }
        values: dict[str, Any] = {}
        for code, kind in enumerate(self._kinds):
            at = np.flatnonzero(codes == code)
            rows = np.array(kind.values, dtype=np.int64).reshape(len(at), len(kind.fields))
            for i, (name, is_name) in enumerate(kind.fields):
                if name not in values:
                    values[name] = np.zeros(len(codes), np.int64), np.ones(len(codes), np.bool_), is_name
                values[name][0][at] = rows[:, i]
                values[name][1][at] = False
        words = pa.array(list(self._names), pa.string())
        for name, (numbers, absent, is_name) in values.items():
            if is_name:
                chosen = pa.array(numbers.astype(np.int32), mask=absent)
                columns[name] = pa.DictionaryArray.from_arrays(chosen, words)
            else:
                columns[name] = pa.array(numbers, mask=absent)
        return columns
