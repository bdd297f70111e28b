"""Tracepoints that fire per decision: typed events to whoever subscribed, nothing when nobody did.

Fields are those of include/trace/events/{vmscan,kmem}.h in 6.1. Per-page events (kmem:*) are rows of
the compiled loops' trace buffer instead (`mmfw.jit.page`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class MmVmscanWakeupKswapd(TraceEvent):
    """mm_vmscan_wakeup_kswapd: a waker finds kswapd asleep and the node unbalanced for it."""

    nid: int
    zid: int
    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class MmVmscanKswapdWake(TraceEvent):
    """mm_vmscan_kswapd_wake: kswapd starts a pass."""

    nid: int
    zid: int
    order: int


@dataclass(frozen=True, slots=True)
class MmVmscanKswapdSleep(TraceEvent):
    """mm_vmscan_kswapd_sleep: kswapd goes to sleep for good."""

    nid: int


@dataclass(frozen=True, slots=True)
class MmVmscanDirectReclaimBegin(TraceEvent):
    """mm_vmscan_direct_reclaim_begin."""

    order: int
    gfp_flags: int


@dataclass(frozen=True, slots=True)
class MmVmscanDirectReclaimEnd(TraceEvent):
    """mm_vmscan_direct_reclaim_end."""

    nr_reclaimed: int


@dataclass(frozen=True, slots=True)
class MmShrinkSlabStart(TraceEvent):
    """mm_shrink_slab_start; ``nr_objects_to_shrink`` is the deferred count on entry."""

    shrinker: str
    nid: int
    nr_objects_to_shrink: int
    gfp_flags: int
    cache_items: int
    delta: int
    total_scan: int
    priority: int


@dataclass(frozen=True, slots=True)
class MmShrinkSlabEnd(TraceEvent):
    """mm_shrink_slab_end; ``retval`` is the total freed by the call, ``total_scan`` what is left (may be negative)."""

    shrinker: str
    nid: int
    unused_scan: int
    new_scan: int
    total_scan: int
    retval: int


E = TypeVar("E", bound=TraceEvent)


class Tracepoints:
    """Who listens to which event.

    A site asks `enabled` before it builds an event, as a kernel site tests its static key.
    """

    def __init__(self) -> None:
        self._by_type: dict[type[TraceEvent], list[Callable[[TraceEvent], None]]] = {}
        self._all: list[Callable[[TraceEvent], None]] = []

    def subscribe(self, event_type: type[E], probe: Callable[[E], None]) -> None:
        """Call ``probe`` with every event of exactly this type, in order of subscription."""
        self._by_type.setdefault(event_type, []).append(probe)  # type: ignore[arg-type] # keyed by the type

    def subscribe_all(self, probe: Callable[[TraceEvent], None]) -> None:
        """Call ``probe`` with every event."""
        self._all.append(probe)

    def enabled(self, event_type: type[TraceEvent]) -> bool:
        """Whether anybody listens to a type."""
        return bool(self._all) or event_type in self._by_type

    def emit(self, event: TraceEvent) -> None:
        """Hand an event to its listeners; they may read the simulation but not change it."""
        for probe in self._by_type.get(type(event), ()):
            probe(event)
        for probe in self._all:
            probe(event)
