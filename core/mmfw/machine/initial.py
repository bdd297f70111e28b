"""The memory state a scenario starts from: a machine's, with some zones laid out anew from buddyinfo counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmfw.errors import InputError
from mmfw.machine.layout import lay_out_zone
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.rawrandom import Rng
from mmfw.state import MAX_ORDER, MIGRATE_TYPES, ZONE_NAMES, MigrateType, NodeState, PcpState, ZoneState


def with_buddyinfo(
    state: NodeState,
    buddyinfo: Mapping[str, Sequence[int]],
    unmovable_block_fraction: float,
    seed: int,
    file: str,
) -> NodeState:
    """Lay zones out so that /proc/buddyinfo shows given counts; everything else of them is allocated.

    Pageblocks are Unmovable or Movable by the fraction, and the free blocks of each order are split
    alike, since counts by order alone do not tell types. Per-CPU lists start empty.

    Raises
    ------
    InputError
        The machine has no such zone, or the zone cannot show the counts.
    """
    rng = Rng(seed)
    names = [z.name for z in state.zones]
    for name in buddyinfo:
        if name not in names:
            raise InputError(f"state.buddyinfo.{name}: the machine has zones {', '.join(names)}", file=file)
    zones = [
        _lay_out(zone, buddyinfo[zone.name], unmovable_block_fraction, rng, file)
        if zone.name in buddyinfo
        else zone
        for zone in state.zones
    ]
    return replace(state, zones=zones)


def unfragmented(nr_free: Sequence[int]) -> list[int]:
    """As many free pages in the largest blocks that hold them.

    Examples
    --------
    >>> unfragmented([3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0])
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    """
    nr_pages = sum(n << order for order, n in enumerate(nr_free))
    largest = MAX_ORDER - 1
    return [nr_pages >> order & 1 for order in range(largest)] + [nr_pages >> largest]


def _lay_out(
    zone: ZoneState, nr_free: Sequence[int], unmovable_fraction: float, rng: Rng, file: str
) -> ZoneState:
    span = ZoneSpan(zone.zone, zone.start_pfn, zone.spanned, zone.present, zone.managed)
    present = np.bincount(zone.pageblock_mt, minlength=16)[:MIGRATE_TYPES]
    nr_blocks = int(present.sum())
    unmovable = round(nr_blocks * unmovable_fraction)
    blocks = [0] * MIGRATE_TYPES
    blocks[MigrateType.UNMOVABLE] = unmovable
    blocks[MigrateType.MOVABLE] = nr_blocks - unmovable
    counts = []
    for order in range(MAX_ORDER):
        share = round(nr_free[order] * unmovable_fraction)
        row = [0] * MIGRATE_TYPES
        row[MigrateType.UNMOVABLE] = share
        row[MigrateType.MOVABLE] = nr_free[order] - share
        counts.append(row)
    zone_map = lay_out_zone(
        span, counts, blocks, rng, file=f"{file}: state.buddyinfo.{ZONE_NAMES[zone.zone]}"
    )
    return replace(
        zone,
        vm_free=sum(n << order for order, n in enumerate(nr_free)),
        vm_free_cpu_diff=[0] * len(zone.pcp),
        pageblock_mt=zone_map.pageblock_mt,
        pageblock_lru=np.empty((0, 2), dtype=np.int64),
        nr_free=zone_map.nr_free,
        free_lists=zone_map.free_lists,
        pcp=[PcpState(high=p.high, batch=p.batch) for p in zone.pcp],
    )
