"""What happened to a device's objects, counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Evictor(Enum):
    """Who takes an object away."""

    KSWAPD = "kswapd"
    DIRECT = "direct"
    COMPACTION = "compaction"


@dataclass(slots=True)
class XeStats:
    """What happened to objects; counts of objects, or of pages where the name says so.

    Attributes
    ----------
    bo_evictions_by : dict of Evictor to int
        Backups, by who made them.
    free_pages_at_eviction : list of int
        The machine's free pages as each eviction began, in order.
    restore_ages : list of int
        How long each object had been away when it was brought back or made anew, ns.
    """

    execs: int = 0
    bo_evictions: int = 0
    bo_evictions_by: dict[Evictor, int] = field(default_factory=lambda: dict.fromkeys(Evictor, 0))
    evicted_pages: int = 0
    bo_restores: int = 0
    restored_pages: int = 0
    bo_purges: int = 0
    purged_pages: int = 0
    exec_failures: int = 0
    bo_recreations: int = 0
    free_pages_at_eviction: list[int] = field(default_factory=list)
    restore_ages: list[int] = field(default_factory=list)
