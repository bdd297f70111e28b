"""What differs between two runs, and from when on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfw.results.manifest import RunInputs
from mmfw.results.read import Number, RunDirectory

#: Kept out of what is listed: the text says in full what its digest says.
_NOT_SHOWN = {"scenario_toml"}


@dataclass(frozen=True, slots=True)
class ChangedInput:
    """An input that differs: its name, dotted if it is within another, and both values."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class ChangedFigure:
    """A figure that differs.

    Attributes
    ----------
    kind : str
        ``metric`` or ``vmstat``.
    name : str
        Its name.
    old, new : int, float or None
        Its values.
    ratio : float or None
        `new` to `old`; None if one is missing or `old` is 0.
    first_ns : int or None
        Virtual time of the first sample at which it differed; None if it was not sampled in both, or differs only at
        the end.
    """

    kind: str
    name: str
    old: Number
    new: Number
    ratio: float | None
    first_ns: int | None


@dataclass(frozen=True, slots=True)
class RunDifference:
    """What differs between two runs.

    Attributes
    ----------
    digests : (str, str)
        Of both results.
    inputs : tuple of ChangedInput
        Versions and inputs.
    figures : tuple of ChangedFigure
        Metrics, then counters of /proc/vmstat.
    first_ns : int or None
        Virtual time of the first sample at which anything differed; None if none did, or one run has no samples.
    """

    digests: tuple[str, str]
    inputs: tuple[ChangedInput, ...]
    figures: tuple[ChangedFigure, ...]
    first_ns: int | None

    @property
    def same_result(self) -> bool:
        """Whether the digests are equal."""
        return self.digests[0] == self.digests[1]


def difference(old: RunDirectory, new: RunDirectory) -> RunDifference:
    """Compare two runs.

    Raises
    ------
    InputError
        A table is damaged.
    """
    first = _first_differences(old, new)
    figures = []
    for kind, before, after in (
        ("metric", old.document.metrics, new.document.metrics),
        ("vmstat", old.document.vmstat, new.document.vmstat),
    ):
        for name in [*before, *(each for each in after if each not in before)]:
            a, b = before.get(name), after.get(name)
            if a != b or (name in before) != (name in after):
                ratio = b / a if a and b is not None else None
                figures.append(ChangedFigure(kind, name, a, b, ratio, first.get(f"{kind}.{name}")))
    return RunDifference(
        (old.manifest.digest, new.manifest.digest),
        tuple(_changed_inputs(old.manifest.inputs(), new.manifest.inputs())),
        tuple(figures),
        min(first.values(), default=None),
    )


def _changed_inputs(old: RunInputs, new: RunInputs) -> list[ChangedInput]:
    return _changed(
        "", old.model_dump(mode="json", exclude=_NOT_SHOWN), new.model_dump(mode="json", exclude=_NOT_SHOWN)
    )


def _changed(name: str, old: Any, new: Any) -> list[ChangedInput]:
    if old == new:
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [ChangedInput(name, old, new)]
    keys = [*old, *(key for key in new if key not in old)]
    parts = [_changed(f"{name}.{key}" if name else key, old.get(key), new.get(key)) for key in keys]
    return [each for part in parts for each in part]


def _first_differences(old: RunDirectory, new: RunDirectory) -> dict[str, int]:
    """Time of the first sample at which each column differed; a column that one run lacks did not change there."""
    before, after = old.samples(), new.samples()
    if before is None or after is None:
        return {}
    rows = min(before.num_rows, after.num_rows)
    times = before.column("time_ns").to_numpy()[:rows]
    found = {}
    names = [*before.column_names, *(each for each in after.column_names if each not in before.column_names)]
    for name in names:
        a, b = (_column(table, name, rows) for table in (before, after))
        if name.startswith("vmstat.") and (a is None) != (b is None):
            # A counter that never changed has no column.
            there = a if b is None else b
            a, b = there, np.full_like(there, there[0] if rows else 0)
        if a is None or b is None:
            continue
        apart = np.flatnonzero((a != b) & ~((a != a) & (b != b)))  # two NaN are alike
        if len(apart):
            found[name] = int(times[apart[0]])
    return found


def _column(table: Any, name: str, rows: int) -> Any:
    return table.column(name).to_numpy()[:rows] if name in table.column_names else None
