"""Where two memory states first differ, in a kernel developer's terms."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from mmfw.state import MAX_ORDER, MIGRATE_TYPES, MIGRATETYPE_NAMES, NodeState, PcpState, PfnArray, ZoneState

_SCALARS: Final = tuple(
    f.name
    for f in fields(ZoneState)
    if f.name not in ("pageblock_mt", "pageblock_lru", "nr_free", "free_lists", "pcp")
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One place and its two values."""

    where: str
    expected: str
    got: str


def _list_difference(where: str, expected: PfnArray, got: PfnArray) -> Difference | None:
    if np.array_equal(expected, got):
        return None
    shorter = min(len(expected), len(got))
    unequal = np.nonzero(expected[:shorter] != got[:shorter])[0]
    at = int(unequal[0]) if len(unequal) else shorter

    def entry(values: PfnArray) -> str:
        if at >= len(values):
            return f"{len(values)} entries"
        return f"{int(values[at])} (of {len(values)} entries)"

    return Difference(f"{where}[{at}]", entry(expected), entry(got))


def _pcp_difference(where: str, expected: PcpState, got: PcpState) -> Difference | None:
    for name in ("count", "high", "batch", "free_factor", "expire"):
        a, b = getattr(expected, name), getattr(got, name)
        if a != b:
            return Difference(f"{where}.{name}", str(a), str(b))
    for index, (mine, other) in enumerate(zip(expected.lists, got.lists, strict=True)):
        for what, a, b in (("", mine[0], other[0]), (" migratetype", mine[1], other[1])):
            found = _list_difference(f"{where}.lists[{index}]{what}", a, b)
            if found is not None:
                return found
    return None


def _zone_difference(expected: ZoneState, got: ZoneState) -> Difference | None:
    where = f"zone {expected.name}"
    for name in _SCALARS:
        a, b = getattr(expected, name), getattr(got, name)
        if a != b:
            return Difference(f"{where}: {name}", str(a), str(b))
    for order in range(MAX_ORDER):
        for mt in range(MIGRATE_TYPES):
            found = _list_difference(
                f"{where}: free_area[{order}].free_list[{MIGRATETYPE_NAMES[mt]}]",
                expected.free_lists[order][mt],
                got.free_lists[order][mt],
            )
            if found is not None:
                return found
    found = _list_difference(f"{where}: nr_free", expected.nr_free, got.nr_free)
    if found is None:
        found = _list_difference(
            f"{where}: pageblock_mt",
            expected.pageblock_mt.astype(np.int64),
            got.pageblock_mt.astype(np.int64),
        )
    if found is None:
        found = _list_difference(
            f"{where}: pageblock_lru", expected.pageblock_lru.ravel(), got.pageblock_lru.ravel()
        )
    for cpu, (a_pcp, b_pcp) in enumerate(zip(expected.pcp, got.pcp, strict=True)):
        if found is None:
            found = _pcp_difference(f"{where}: cpu {cpu} pcp", a_pcp, b_pcp)
    return found


def first_difference(expected: NodeState, got: NodeState) -> Difference | None:
    """First place, in zone order, at which two states differ; None if they are equal.

    Everything that a state record of a trace carries is compared, list order and cached migratetypes included.
    """
    if expected.totalreserve_pages != got.totalreserve_pages:
        return Difference("totalreserve_pages", str(expected.totalreserve_pages), str(got.totalreserve_pages))
    names = [z.name for z in expected.zones], [z.name for z in got.zones]
    if names[0] != names[1]:
        return Difference("zones", ", ".join(names[0]), ", ".join(names[1]))
    for mine, other in zip(expected.zones, got.zones, strict=True):
        found = _zone_difference(mine, other)
        if found is not None:
            return found
    return None
