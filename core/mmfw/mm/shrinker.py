"""Shrinkers: the list of them, and how reclaim asks each one (mm/vmscan.c of 6.1; mm/shrinker.c since 6.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter, is_not
from typing import TYPE_CHECKING, Final

from mmfw.attachments import Attachments
from mmfw.errors import PluginError
from mmfw.mm.trace import MmShrinkSlabEnd, MmShrinkSlabStart, Tracepoints
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.types import SHRINK_BATCH, SHRINK_EMPTY, SHRINK_STOP, CompactionScan, ScanPhase, ShrinkControl

if TYPE_CHECKING:
    from mmfw.types import ShrinkerOps

_U64: Final = (1 << 64) - 1
#: Calls in a row that may scan nothing; the kernel would go on for ever.
MAX_FRUITLESS_SCANS: Final = 10_000


def shrink_delta(freeable: int, priority: int, seeks: int) -> int:
    """Objects that a call at this priority should scan (``do_shrink_slab()``, mm/vmscan.c).

    Parameters
    ----------
    freeable : int
        What ``count_objects`` returned.
    priority : int
        Scan priority, 12 down to 0.
    seeks : int
        Cost to recreate an object; 0 asks for half of the cache whatever the priority.

    Examples
    --------
    >>> shrink_delta(100000, 12, 2), shrink_delta(100000, 10, 2), shrink_delta(5000, 12, 0)
    (48, 194, 2500)
    """
    if seeks:
        return ((freeable >> priority) * 4 & _U64) // seeks
    return freeable // 2


def shrink_total_scan(deferred: int, delta: int, freeable: int, priority: int) -> int:
    """Objects to scan, deferred work of earlier calls included (``do_shrink_slab()``)."""
    return min((deferred >> priority) + delta, 2 * freeable)


@dataclass(slots=True, eq=False)
class Shrinker:
    """A registered shrinker (``struct shrinker``).

    Attributes
    ----------
    ops : ShrinkerOps
        Its methods, name, seeks and batch.
    nr_deferred : dict of int to int
        Work put off, by slot: the node's id if it is NUMA aware, else 0. Objects.
    nr_calls, nr_freed : int
        + Calls that found something to scan, and objects freed; for reports only.
    nr_pages_freed : int
        + Pages that came free while its scans ran (``pgfree``), by whomever; for reports only.
    """

    ops: ShrinkerOps
    nr_deferred: dict[int, int] = field(default_factory=dict)
    nr_calls: int = 0
    nr_freed: int = 0
    nr_pages_freed: int = 0


def _stay() -> None:
    """``cond_resched()`` where nothing else runs."""


def _check_nr_scanned(ops: ShrinkerOps, shrinkctl: ShrinkControl, fruitless: int) -> int:
    """Check what a callee put into ``nr_scanned``; returns how many calls in a row scanned nothing."""
    nr_scanned: object = getattr(shrinkctl, "nr_scanned", None)
    hook = f"{ops.name}.scan_objects"
    if type(nr_scanned) is not int or not 0 <= nr_scanned < 1 << 63:
        raise PluginError(
            f"set nr_scanned to {nr_scanned!r}; an int >= 0 is wanted", plugin=ops.plugin, hook=hook
        )
    if nr_scanned:
        return 0
    if fruitless >= MAX_FRUITLESS_SCANS:
        raise PluginError(
            f"set nr_scanned to 0 in {fruitless} calls in a row, so that do_shrink_slab() would never end; "
            "return SHRINK_STOP where no progress is possible",
            plugin=ops.plugin,
            hook=hook,
        )
    return fruitless + 1


def do_shrink_slab(
    shrinker: Shrinker,
    shrinkctl: ShrinkControl,
    priority: int,
    trace: Tracepoints,
    vmstat: VmStat,
    cond_resched: Callable[[], object] = _stay,
) -> int:
    """Ask one shrinker for its share (``do_shrink_slab()``, mm/vmscan.c).

    A second task may enter while the first sleeps in ``scan_objects``: deferred work is taken out
    whole on entry and what is left is added back, so the end figure may hold the other's share too,
    as in the kernel.

    Returns
    -------
    int
        Objects freed, or `SHRINK_EMPTY`.
    """
    ops = shrinker.ops
    batch = ops.batch or SHRINK_BATCH
    slot = 0
    freeable = ops.count_objects(shrinkctl)
    if freeable in (0, SHRINK_EMPTY):
        return freeable
    shrinker.nr_calls += 1
    deferred = shrinker.nr_deferred.get(slot, 0)
    shrinker.nr_deferred[slot] = 0
    delta = shrink_delta(freeable, priority, ops.seeks)
    total_scan = shrink_total_scan(deferred, delta, freeable, priority)
    trace.fire(
        MmShrinkSlabStart,
        ops.name,
        shrinkctl.nid,
        deferred,
        shrinkctl.gfp_mask,
        freeable,
        delta,
        total_scan,
        priority,
    )
    freed = 0
    scanned = 0
    fruitless = 0
    pgfree = vmstat.pgfree
    while total_scan >= batch or total_scan >= freeable:
        nr_to_scan = min(batch, total_scan)
        shrinkctl.nr_to_scan = nr_to_scan
        shrinkctl.nr_scanned = nr_to_scan
        ret = ops.scan_objects(shrinkctl)
        if ret == SHRINK_STOP:
            break
        if getattr(shrinkctl, "nr_scanned", None) != nr_to_scan:
            fruitless = _check_nr_scanned(ops, shrinkctl, fruitless)
        freed += ret
        vmstat.count(VmEvent.slabs_scanned, shrinkctl.nr_scanned)
        total_scan -= shrinkctl.nr_scanned
        scanned += shrinkctl.nr_scanned
        cond_resched()
    shrinker.nr_freed += freed
    shrinker.nr_pages_freed += vmstat.pgfree - pgfree
    left = min(max(deferred + delta - scanned, 0), 2 * freeable)
    shrinker.nr_deferred[slot] += left
    trace.fire(
        MmShrinkSlabEnd,
        ops.name,
        shrinkctl.nid,
        deferred,
        shrinker.nr_deferred[slot],
        total_scan,
        freed,
    )
    return freed


#: What a scan asks; the rest of it, ``nr_scanned``, is the callee's.
_ASKED_FIELDS: Final = tuple(each.name for each in fields(CompactionScan) if each.name != "nr_scanned")
_asked: Final[Callable[[CompactionScan], tuple[object, ...]]] = attrgetter(*_ASKED_FIELDS)


def _check_asked(ops: ShrinkerOps, method: str, scan: CompactionScan, asked: tuple[object, ...]) -> None:
    """Refuse to go on with a scan in which a callee changed what is asked: of the next shrinkers, and of the caller."""
    try:
        now = _asked(scan)
    except AttributeError:  # a field was deleted
        now = tuple(getattr(scan, name, None) for name in _ASKED_FIELDS)
    if not any(map(is_not, now, asked)):
        return
    for name, before, after in zip(_ASKED_FIELDS, asked, now, strict=True):
        if after is before or (type(after) is type(before) and after == before):
            continue
        if name == "attached" and before is None and type(after) is Attachments:
            continue
        raise PluginError(
            f"set {name} to {after!r:.80}, which says what is asked (it was {before!r:.80}); of a scan only nr_scanned "
            "may be set",
            plugin=ops.plugin,
            hook=f"{ops.name}.{method}",
        )


class ShrinkerList:
    """All registered shrinkers, in order of registration (``shrinker_list``).

    Parameters
    ----------
    trace, vmstat
        Where events and counts go.
    on_call : callable, optional
        Called before each shrinker is asked: charges what that costs.
    cond_resched : callable, optional
        Called after each scan and after the last shrinker, where the kernel may switch tasks.
    """

    def __init__(
        self,
        trace: Tracepoints,
        vmstat: VmStat,
        on_call: Callable[[], object] = _stay,
        cond_resched: Callable[[], object] = _stay,
    ) -> None:
        self._shrinkers: list[Shrinker] = []
        self._trace = trace
        self._vmstat = vmstat
        self._on_call = on_call
        self._cond_resched = cond_resched

    def register_shrinker(self, ops: ShrinkerOps) -> Shrinker:
        """Add a shrinker (``register_shrinker()``; ``shrinker_register()`` since 6.7)."""
        shrinker = Shrinker(ops)
        self._shrinkers.append(shrinker)
        return shrinker

    def unregister_shrinker(self, shrinker: Shrinker) -> None:
        """Remove a shrinker, its deferred work with it (``unregister_shrinker()``)."""
        self._shrinkers.remove(shrinker)

    def __iter__(self) -> Iterator[Shrinker]:
        return iter(tuple(self._shrinkers))

    def __len__(self) -> int:
        return len(self._shrinkers)

    def shrink_slab(
        self,
        gfp_mask: int,
        nid: int,
        priority: int,
        amend: Callable[[ShrinkControl], object] | None = None,
    ) -> int:
        """Ask every shrinker for its share (``shrink_slab()`` of the root memcg, mm/vmscan.c).

        Each call gets a fresh `ShrinkControl`, to which `amend`, if given, may attach fields. `SHRINK_EMPTY` counts 0.

        Returns
        -------
        int
            Objects freed; reclaim ignores it, only ``drop_slab()`` reads it.
        """
        freed = 0
        for shrinker in tuple(self._shrinkers):
            self._on_call()
            shrinkctl = ShrinkControl(gfp_mask=gfp_mask, nid=nid, priority=priority)
            if amend is not None:
                amend(shrinkctl)
            ret = do_shrink_slab(shrinker, shrinkctl, priority, self._trace, self._vmstat, self._cond_resched)
            if ret != SHRINK_EMPTY:
                freed += ret
        self._cond_resched()
        return freed

    def may_hold_for_compaction(self, stopped: set[Shrinker]) -> bool:
        """Whether any shrinker but those in `stopped` can say what it holds in a pageblock."""
        return any(each.ops.compaction_holds is not None and each not in stopped for each in self._shrinkers)

    def compaction_scan(self, scan: CompactionScan, stopped: set[Shrinker]) -> int:
        """Ask every shrinker that has the method to free what compaction wants; pages freed.

        Those in `stopped` are passed over; one that answers `SHRINK_STOP` is added to them.

        Proposed, not in 6.1. Each call gets the scan with ``nr_scanned`` at 0; work in its range counts towards
        ``nr_to_free``, so that later shrinkers are spared once there is enough. After a pageblock only those are asked
        that hold something in it.
        """
        freed = 0
        asked = _asked(scan)
        nr_to_free = scan.nr_to_free
        for shrinker in tuple(self._shrinkers):
            method = shrinker.ops.compaction_scan
            if method is None or shrinker in stopped:
                continue
            if scan.phase is ScanPhase.PAGEBLOCK:
                holds = shrinker.ops.compaction_holds
                if holds is None:
                    continue
                nr_held = holds(scan)
                _check_asked(shrinker.ops, "compaction_holds", scan, asked)
                if nr_held == 0:
                    continue
            self._on_call()
            scan.nr_scanned = 0
            ret = method(scan)
            _check_asked(shrinker.ops, "compaction_scan", scan, asked)
            if ret == SHRINK_STOP:
                stopped.add(shrinker)
                continue
            freed += max(ret, 0)
            if freed >= nr_to_free:
                break
        return freed
