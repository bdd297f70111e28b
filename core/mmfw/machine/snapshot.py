"""Snapshots: a node's whole memory state as one JSON record, the form of an allocator trace's state lines.

A record is checked in full before anything is built from it: an impossible state would otherwise show
as a wrong page long after it was loaded. One CPU's lists stand as a single object under ``pcp``; with
several CPUs ``pcp``, ``vm_free_cpu_diff`` and ``stat_threshold`` are arrays, one entry a CPU.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError
from mmfw.machine.jsonread import Node
from mmfw.state import (
    MAX_NR_ZONES,
    MAX_ORDER,
    MIGRATE_PCPTYPES,
    MIGRATE_TYPES,
    NR_LOWORDER_PCP_LISTS,
    NR_PCP_LISTS,
    PAGEBLOCK_ABSENT,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    ZONE_NAMES,
    MigrateType,
    NodeState,
    PcpState,
    PfnArray,
    ZoneState,
)

#: Compaction's fields of ``struct zone``, carried under their own names.
COMPACT_FIELDS: Final = (
    "compact_cached_free_pfn",
    "compact_cached_migrate_pfn_async",
    "compact_cached_migrate_pfn_sync",
    "compact_considered",
    "compact_defer_shift",
    "compact_order_failed",
)
_WATERMARKS: Final = ("min", "low", "high", "promo")
#: pfns are 32-bit numbers in the page table of the simulator: 16 TiB.
MAX_PFN: Final = 1 << 32
_HEX: Final = "0123456789abcdef"


def node_state_from_record(
    record: Mapping[str, object],
    header: Mapping[str, object] | None = None,
    file: str = "snapshot",
    line: int | None = None,
) -> NodeState:
    """Build a node's state from a record, checking all of it.

    Parameters
    ----------
    record : mapping
        The decoded state line.
    header : mapping, optional
        The trace's header line; ``watermark_boost_factor`` is taken from it.
    file : str
        Name for error messages.
    line : int, optional
        Line of the record.

    Raises
    ------
    InputError
        Something is missing, of the wrong kind, or contradicts something else; the message names the file,
        the line and the path of the key.
    """
    root = Node(record, "", file, line)
    top = Node(header if header is not None else {}, "header", file, None if line is None else 1)
    zones: list[ZoneState] = []
    for item in root.key("zones").items():
        zone = _zone(item)
        if zones and zone.zone <= zones[-1].zone:
            raise item.error(f"zone {zone.name} is out of place; zones stand once each, by ascending index")
        if zones and zone.start_pfn < zones[-1].end_pfn:
            raise item.key("start_pfn").error(
                f"{zone.start_pfn} lies inside zone {zones[-1].name}, which ends at {zones[-1].end_pfn}"
            )
        if zones and len(zone.pcp) != len(zones[-1].pcp):
            raise item.key("pcp").error(
                f"has {len(zone.pcp)} CPUs, zone {zones[-1].name} {len(zones[-1].pcp)}"
            )
        zones.append(zone)
    if not zones:
        raise root.key("zones").error("is empty; a node has at least one populated zone")
    return NodeState(
        zones=zones,
        nr_cpus=len(zones[0].pcp),
        totalreserve_pages=root.key("totalreserve_pages").integer(),
        watermark_boost_factor=top.optional_integer(
            "watermark_boost_factor", root.optional_integer("watermark_boost_factor", 15000)
        ),
        min_free_kbytes=root.optional_integer("min_free_kbytes", 0),
        page_group_by_mobility_disabled=bool(root.optional_integer("page_group_by_mobility_disabled", 0)),
    )


def _zone(node: Node) -> ZoneState:
    name = node.key("zone").text()
    if name not in ZONE_NAMES:
        raise node.key("zone").error(f"is {name!r}; known zones: {', '.join(ZONE_NAMES)}")
    start = node.key("start_pfn").integer(high=MAX_PFN - 1)
    spanned = node.key("spanned").integer(low=1, high=MAX_PFN - start)
    present = node.key("present").integer(high=spanned)
    managed = node.key("managed").integer(high=present)
    marks = [node.key("watermark").key(key).integer() for key in _WATERMARKS]
    if marks != sorted(marks):
        raise node.key("watermark").error(f"is {marks}; min, low, high, promo ascend")
    reserve = node.key("lowmem_reserve").integers()
    if len(reserve) != MAX_NR_ZONES:
        raise node.key("lowmem_reserve").error(f"has {len(reserve)} values; it should have {MAX_NR_ZONES}")
    pcp_node = node.key("pcp")
    pcp_nodes = pcp_node.items() if pcp_node.is_array() else [pcp_node]
    zone = ZoneState(
        zone=ZONE_NAMES.index(name),
        start_pfn=start,
        spanned=spanned,
        present=present,
        managed=managed,
        watermark=(marks[0], marks[1], marks[2], marks[3]),
        lowmem_reserve=tuple(reserve),
        watermark_boost=node.key("watermark_boost").integer(),
        nr_reserved_highatomic=node.key("nr_reserved_highatomic").integer(),
        flags=node.key("flags").integer(),
        vm_free=node.key("vm_free").integer(low=-managed, high=managed),
        vm_free_cpu_diff=_per_cpu(node.key("vm_free_cpu_diff"), len(pcp_nodes), low=-managed - 1),
        stat_threshold=_per_cpu(node.key("stat_threshold"), len(pcp_nodes), low=0),
        percpu_drift_mark=node.key("percpu_drift_mark").integer(),
        nr_isolate_pageblock=node.key("nr_isolate_pageblock").integer(),
        pageset_high=node.key("pageset_high").integer(),
        pageset_batch=node.key("pageset_batch").integer(low=1),
        compact={key: node.key(key).integer() for key in COMPACT_FIELDS if node.has(key)},
        pageblock_mt=_pageblock_mt(node, start, spanned),
        pcp=[],
    )
    zone.pageblock_lru = _pageblock_lru(node.key("pageblock_lru"), len(zone.pageblock_mt))
    zone.nr_free, zone.free_lists = _free_area(node.key("free_area"), zone)
    zone.pcp = [_pcp(item, zone) for item in pcp_nodes]
    _check_no_overlap(node, zone)
    _check_free_count(node, zone)
    return zone


def _per_cpu(node: Node, nr_cpus: int, low: int) -> list[int]:
    values = [item.integer(low=low) for item in node.items()] if node.is_array() else [node.integer(low=low)]
    if len(values) != nr_cpus:
        raise node.error(f"has {len(values)} values, but 'pcp' has {nr_cpus} CPUs")
    return values


def _pageblock_mt(node: Node, start: int, spanned: int) -> NDArray[np.uint8]:
    first = node.key("pageblock_start_pfn").integer()
    if first != start & -PAGEBLOCK_NR_PAGES:
        raise node.key("pageblock_start_pfn").error(f"is {first}; it should be {start & -PAGEBLOCK_NR_PAGES}")
    text = node.key("pageblock_mt").text()
    blocks = -(-(start + spanned - first) // PAGEBLOCK_NR_PAGES)
    if len(text) != blocks:
        raise node.key("pageblock_mt").error(f"has {len(text)} digits, but the span has {blocks} pageblocks")
    try:
        raw = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    except UnicodeEncodeError:
        raise node.key("pageblock_mt").error("should hold the digits 0..4 and f only") from None
    types = np.where(raw == ord("f"), PAGEBLOCK_ABSENT, raw.astype(np.int64) - ord("0"))
    bad = np.flatnonzero((types != PAGEBLOCK_ABSENT) & ((types < 0) | (types >= MIGRATE_TYPES)))
    if len(bad):
        raise node.key("pageblock_mt").error(
            f"digit {bad[0]} is {text[bad[0]]!r}; it should be 0..{MIGRATE_TYPES - 1}, or f for no memory"
        )
    return types.astype(np.uint8)


def _pageblock_lru(node: Node, blocks: int) -> NDArray[np.int64]:
    pairs = node.pairs()
    index, count = pairs[:, 0], pairs[:, 1]
    bad = np.flatnonzero((index < 0) | (index >= blocks) | (count < 0) | (count > PAGEBLOCK_NR_PAGES))
    if len(bad):
        raise node.at(int(bad[0])).error(
            f"is {pairs[bad[0]].tolist()}; it should be a block below {blocks} and a count up to"
            f" {PAGEBLOCK_NR_PAGES}"
        )
    if len(index) > 1 and (np.diff(np.sort(index)) == 0).any():
        raise node.error("names a block twice")
    return pairs


def _check_pfns(node: Node, pfns: PfnArray, order: int, zone: ZoneState) -> None:
    """Refuse blocks that are not aligned or not wholly inside the zone's span."""
    low, high = zone.start_pfn, zone.end_pfn - (1 << order)
    bad = np.flatnonzero((pfns < low) | (pfns > high))
    if len(bad):
        raise node.at(int(bad[0])).error(
            f"pfn {pfns[bad[0]]}, order {order}, is outside zone {zone.name} ({low}..{zone.end_pfn - 1})"
        )
    bad = np.flatnonzero(pfns & ((1 << order) - 1))
    if len(bad):
        raise node.at(int(bad[0])).error(f"pfn {pfns[bad[0]]} is not aligned to order {order}")
    bad = np.flatnonzero(
        zone.pageblock_mt[(pfns >> PAGEBLOCK_ORDER) - (low >> PAGEBLOCK_ORDER)] == PAGEBLOCK_ABSENT
    )
    if len(bad):
        raise node.at(int(bad[0])).error(f"pfn {pfns[bad[0]]} lies in a pageblock that is absent (f)")


def _free_area(node: Node, zone: ZoneState) -> tuple[NDArray[np.int64], list[list[PfnArray]]]:
    areas = node.items()
    if len(areas) != MAX_ORDER:
        raise node.error(f"has {len(areas)} orders; it should have {MAX_ORDER}")
    nr_free = np.zeros(MAX_ORDER, dtype=np.int64)
    free_lists: list[list[PfnArray]] = []
    for order, area in enumerate(areas):
        lists = area.key("lists").items()
        if len(lists) != MIGRATE_TYPES:
            raise area.key("lists").error(f"has {len(lists)} lists; it should have {MIGRATE_TYPES}")
        row = []
        for item in lists:
            pfns = item.array()
            _check_pfns(item, pfns, order, zone)
            row.append(pfns)
        stated, found = area.key("nr_free").integer(), sum(map(len, row))
        if stated != found:
            raise area.key("nr_free").error(f"is {stated}, but the lists hold {found} blocks")
        nr_free[order] = found
        free_lists.append(row)
    return nr_free, free_lists


def pcp_list_order(index: int) -> int:
    """Order of the pages on a per-CPU list (``pindex_to_order()``, mm/page_alloc.c)."""
    return index // MIGRATE_PCPTYPES if index < NR_LOWORDER_PCP_LISTS else PAGEBLOCK_ORDER


def _pcp(node: Node, zone: ZoneState) -> PcpState:
    lists = node.key("lists").items()
    if len(lists) != NR_PCP_LISTS:
        raise node.key("lists").error(f"has {len(lists)} lists; it should have {NR_PCP_LISTS}")
    pcp = PcpState(
        count=node.key("count").integer(),
        high=node.key("high").integer(),
        batch=node.key("batch").integer(low=1),
        free_factor=node.key("free_factor").integer(),
        expire=node.key("expire").integer(),
        lists=[],
    )
    pages = 0
    for index, item in enumerate(lists):
        pairs = item.pairs()
        pfns, types = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
        order = pcp_list_order(index)
        _check_pfns(item, pfns, order, zone)
        # A freed HighAtomic page goes onto the Movable list and keeps its type.
        listed = np.where(types < MIGRATE_PCPTYPES, types, MigrateType.MOVABLE)
        home = 3 * order + listed if order < PAGEBLOCK_ORDER else 12 + (listed == MigrateType.MOVABLE)
        bad = np.flatnonzero((types < 0) | (types >= MigrateType.ISOLATE) | (home != index))
        if len(bad):
            raise item.at(int(bad[0])).error(f"migratetype {types[bad[0]]} cannot be on list {index}")
        pages += len(pfns) << order
        pcp.lists.append((pfns, types))
    if pages != pcp.count:
        raise node.key("count").error(f"is {pcp.count}, but the lists hold {pages} pages")
    return pcp


def _check_no_overlap(node: Node, zone: ZoneState) -> None:
    parts = [(pfns, order) for order, row in enumerate(zone.free_lists) for pfns in row]
    parts += [(pfns, pcp_list_order(i)) for pcp in zone.pcp for i, (pfns, _) in enumerate(pcp.lists)]
    starts = np.concatenate([pfns for pfns, _ in parts])
    sizes = np.repeat([1 << order for _, order in parts], [len(pfns) for pfns, _ in parts])
    by_pfn = np.argsort(starts, kind="stable")
    starts, ends = starts[by_pfn], (starts + sizes)[by_pfn]
    bad = np.flatnonzero(starts[1:] < ends[:-1])
    if len(bad):
        first, second = int(starts[bad[0]]), int(starts[bad[0] + 1])
        what = (
            f"pfn {first} is listed twice"
            if first == second
            else f"pfn {second} lies in the block at {first}"
        )
        raise node.error(f"{what}: a page is on one free or per-CPU list at most")
    if int(sizes.sum()) > zone.managed:
        raise node.key("managed").error(f"is {zone.managed}, but {int(sizes.sum())} pages are on the lists")


def _check_free_count(node: Node, zone: ZoneState) -> None:
    free = sum(
        len(pfns) << order
        for order, row in enumerate(zone.free_lists)
        for mt, pfns in enumerate(row)
        if mt != MigrateType.ISOLATE
    )
    counted = zone.vm_free + sum(zone.vm_free_cpu_diff)
    if counted != free:
        raise node.key("vm_free").error(
            f"with vm_free_cpu_diff is {counted}, but the lists hold {free} pages"
        )


def record_from_node_state(state: NodeState, label: int | str = 0) -> dict[str, object]:
    """Record of a node's state, the inverse of `node_state_from_record`.

    Parameters
    ----------
    state : NodeState
        The state.
    label : int or str
        Value of the record's ``state`` key.
    """
    record: dict[str, object] = {
        "state": label,
        "totalreserve_pages": state.totalreserve_pages,
        "watermark_boost_factor": state.watermark_boost_factor,
        "min_free_kbytes": state.min_free_kbytes,
        "page_group_by_mobility_disabled": int(state.page_group_by_mobility_disabled),
        "zones": [_zone_record(zone) for zone in state.zones],
    }
    return record


def _zone_record(zone: ZoneState) -> dict[str, object]:
    pcp = [_pcp_record(item) for item in zone.pcp]
    single = len(pcp) == 1
    record: dict[str, object] = {
        "zone": zone.name,
        "start_pfn": zone.start_pfn,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "watermark": dict(zip(_WATERMARKS, zone.watermark, strict=True)),
        "watermark_boost": zone.watermark_boost,
        "nr_reserved_highatomic": zone.nr_reserved_highatomic,
        "lowmem_reserve": list(zone.lowmem_reserve),
        "flags": zone.flags,
        "vm_free": zone.vm_free,
        "vm_free_cpu_diff": zone.vm_free_cpu_diff[0] if single else list(zone.vm_free_cpu_diff),
        "stat_threshold": zone.stat_threshold[0] if single else list(zone.stat_threshold),
        "percpu_drift_mark": zone.percpu_drift_mark,
        "nr_isolate_pageblock": zone.nr_isolate_pageblock,
        "pageset_high": zone.pageset_high,
        "pageset_batch": zone.pageset_batch,
        **{key: zone.compact[key] for key in COMPACT_FIELDS if key in zone.compact},
        "pageblock_start_pfn": zone.start_pfn & -PAGEBLOCK_NR_PAGES,
        "pageblock_mt": "".join(_HEX[mt] for mt in zone.pageblock_mt.tolist()),
        "pageblock_lru": zone.pageblock_lru.tolist(),
        "free_area": [
            {"nr_free": int(count), "lists": [pfns.tolist() for pfns in row]}
            for count, row in zip(zone.nr_free.tolist(), zone.free_lists, strict=True)
        ],
        "pcp": pcp[0] if single else pcp,
    }
    return record


def _pcp_record(pcp: PcpState) -> dict[str, object]:
    return {
        "count": pcp.count,
        "high": pcp.high,
        "batch": pcp.batch,
        "free_factor": pcp.free_factor,
        "expire": pcp.expire,
        "lists": [np.stack(pair, axis=1).tolist() for pair in pcp.lists],
    }


def read_snapshot(path: Path) -> NodeState:
    """Read the first state record of a snapshot or of an allocator trace, plain or gzipped.

    Raises
    ------
    InputError
        The file cannot be read, holds no state record, or the record is wrong.
    """
    header: Mapping[str, object] | None = None
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                value: object = json.loads(raw)
                if not isinstance(value, dict) or (number > 1 and "state" not in value):
                    break
                if "state" in value:
                    return node_state_from_record(value, header, str(path), number)
                header = value
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"is not a snapshot: {error}", file=str(path)) from error
    raise InputError(
        "holds no state record in its first two lines; a snapshot is a JSON line with a 'state' key",
        file=str(path),
    )
