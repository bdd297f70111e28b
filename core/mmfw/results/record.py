"""Recorders of a run, as asked for; they listen at samples and to events, and change nothing in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmfw.results.blocks import BlockRecorder
from mmfw.results.events import EventRecorder
from mmfw.results.extras import study_module
from mmfw.results.samples import SampleRecorder

if TYPE_CHECKING:
    from mmfw.mm.core import Mm
    from mmfw.offers import Metric


@dataclass(frozen=True, slots=True)
class Recording:
    """What is recorded beside the result."""

    samples: bool = True
    blocks: bool = True
    events: bool = True

    @property
    def files(self) -> tuple[str, ...]:
        """Tables that this gives, by file name."""
        asked = (("samples", self.samples), ("blocks", self.blocks), ("events", self.events))
        return tuple(f"{name}.parquet" for name, yes in asked if yes)


class Recorder:
    """Records a run from the moment it is made.

    Parameters
    ----------
    mm : Mm
        The machine.
    metrics : mapping of str to Metric
        What plugins measure.
    recording : Recording
        What is wanted.
    """

    def __init__(self, mm: Mm, metrics: Mapping[str, Metric], recording: Recording) -> None:
        self._samples = SampleRecorder(mm, metrics) if recording.samples else None
        self._blocks = BlockRecorder(mm) if recording.blocks else None
        self._events = EventRecorder(mm) if recording.events else None

    def sample(self) -> None:
        """Note memory as it is now."""
        if self._samples is not None:
            self._samples.sample()
        if self._blocks is not None:
            self._blocks.sample()

    def tables(self) -> dict[str, Any]:
        """What was recorded: an Arrow table for each file.

        Raises
        ------
        InputError
            pyarrow is not installed.
        """
        pa = study_module("pyarrow", "--out")
        found: dict[str, Any] = {}
        if self._samples is not None:
            found["samples.parquet"] = pa.table(self._samples.columns())
        if self._blocks is not None:
            found["blocks.parquet"] = pa.table(self._blocks.columns())
        if self._events is not None:
            found["events.parquet"] = pa.table(self._events.columns(pa))
        return found
