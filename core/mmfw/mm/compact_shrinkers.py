"""How compaction reaches the shrinkers where a policy has it ask them: a call that 6.1 does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw.mm.capture import TaskCapture
    from mmfw.mm.shrinker import Shrinker
    from mmfw.types import CompactControl, CompactionScan, ScanPhase


@dataclass(frozen=True, slots=True)
class Shrinkers:
    """How a run asks the shrinkers.

    Attributes
    ----------
    plan : callable
        ``plan(cc, phase)``: the decision hook; None asks nobody.
    may_hold : callable
        ``may_hold(stopped)``: whether any but those in ``stopped`` can say what it holds in a pageblock.
    compaction_scan : callable
        ``compaction_scan(scan, stopped)`` asks them one after another, but those in ``stopped``, to which it adds those
        that are not to be asked again in this run; pages freed.
    capture : TaskCapture
        Told that the running task captures what it frees meanwhile.
    """

    plan: Callable[[CompactControl, ScanPhase], CompactionScan | None]
    may_hold: Callable[[set[Shrinker]], bool]
    compaction_scan: Callable[[CompactionScan, set[Shrinker]], int]
    capture: TaskCapture
