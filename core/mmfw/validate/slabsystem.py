"""The captured kernel's own shrinkers: what they started with, recomputed.

Their answers to reclaim are not in a trace, so only the start of a call can be compared: from deferred
work, cache size and priority to ``delta`` and ``total_scan``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mmfw.mm.vmstat import VmStat
from mmfw.proc.ftrace import FtraceLine
from mmfw.proc.vmscan_trace import ShrinkSlabEnd, ShrinkSlabStart
from mmfw.validate.common import Comparison
from mmfw.validate.slabcall import CapturedShrinker, SlabCall

#: ``seeks`` by scan function. One function serves all superblocks: those of kernfs and proc are registered
#: with 0, all others with DEFAULT_SEEKS; which one a shrinker is shows in its first call that differs.
_SEEKS: Final[dict[str, tuple[int, ...]]] = {
    "deferred_split_scan": (2,),
    "kfree_rcu_shrink_scan": (2,),
    "scan_shadow_nodes": (0,),
    "super_cache_scan": (2, 0),
}


class SystemShrinkers:
    """Compares the starts of calls to shrinkers that the capture did not register.

    Parameters
    ----------
    experiment : str
        Capture's name for the comparisons.

    Attributes
    ----------
    scanned : int
        Objects that the captured kernel scanned in them.
    """

    def __init__(self, experiment: str) -> None:
        self.scanned = 0
        self._experiment = experiment
        self._seeks: dict[str, tuple[int, ...]] = {}
        self._asked: dict[int, ShrinkSlabStart] = {}

    def start(self, line: FtraceLine, body: ShrinkSlabStart, vmstat: VmStat) -> Iterator[Comparison]:
        """Compare one start; nothing comes of a function whose seeks are not known."""
        self._asked[line.pid] = body
        function = body.shrink.partition("+")[0]
        known = self._seeks.setdefault(body.shr, _SEEKS.get(function, ()))
        if not known:
            return
        ours = [(seeks, _started(function, seeks, body, vmstat)) for seeks in known]
        fitting = [(seeks, got) for seeks, got in ours if got == (body.delta, body.total_scan)] or ours[:1]
        self._seeks[body.shr] = tuple(seeks for seeks, _ in fitting)
        # A figure that told which seeks these are is no proof of the arithmetic.
        counted = len({got for _, got in ours}) == 1
        for counter, real, simulated in zip(
            ("delta", "total_scan"), (body.delta, body.total_scan), fitting[0][1], strict=True
        ):
            yield Comparison(
                experiment=self._experiment,
                labels={
                    "shrinker": f"{function} {body.shr}",
                    "priority": str(body.priority),
                    "figure": "system start",
                    "line": str(line.number),
                },
                counter=counter,
                real=real,
                simulated=simulated,
                within=simulated == real,
                counted=counted or simulated != real,
            )

    def end(self, line: FtraceLine, body: ShrinkSlabEnd) -> None:
        """Note what a call scanned."""
        start = self._asked.pop(line.pid, None)
        if start is not None and start.shr == body.shr:
            self.scanned += start.total_scan - body.total_scan


def _started(function: str, seeks: int, body: ShrinkSlabStart, vmstat: VmStat) -> tuple[int, int]:
    captured = CapturedShrinker(function, seeks, 0)
    captured.deferred = body.nr_objects_to_shrink
    call = SlabCall(captured, body.cache_items, body.gfp_flags, body.nid, body.priority, vmstat)
    call.begin()
    call.finish()
    return (call.start.delta, call.start.total_scan) if call.start is not None else (0, 0)
