"""A machine from a folder of copied /proc files of a real one.

``zoneinfo`` is needed, and ``pagetypeinfo`` or ``buddyinfo``; both is best. The files may stand in the
folder or in ``proc/`` below it. ``sys/vm/min_free_kbytes`` and ``sys/vm/watermark_boost_factor`` are used
if copied as well (or both from ``sys_vm``, a listing of names and values).

What the files do not tell is guessed by these rules: free blocks and pageblocks are laid out by seed
(`mmfw.machine.layout`); without ``pagetypeinfo`` every free block is Movable and pageblocks are as after boot; pages
on per-CPU lists are order-0 Movable pages; CMA counts as Movable; a zone's LRU pages lie evenly in its
Movable pageblocks; ``vm.min_free_kbytes``, if unknown, is what the watermarks add up to, at most 4 KiB a zone
too low. The files of a running system are of slightly different moments; where they disagree,
``pagetypeinfo`` wins over ``buddyinfo``, and both over ``zoneinfo``'s free pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from mmfw.errors import InputError, did_you_mean
from mmfw.machine.freecounts import ZoneCounts, zone_counts
from mmfw.machine.layout import ListOrder, check_feasible, lay_out_zone, lru_blocks
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.machine.snapshot import MAX_PFN
from mmfw.mm.sizing import (
    Watermarks,
    calculate_normal_threshold,
    calculate_totalreserve_pages,
    page_group_by_mobility_disabled,
    percpu_drift_mark,
)
from mmfw.proc.buddyinfo import BuddyInfo, parse_buddyinfo
from mmfw.proc.pagetypeinfo import PageTypeInfo, parse_pagetypeinfo
from mmfw.proc.sysctl import parse_sys_vm
from mmfw.proc.text import read_text, split_lines
from mmfw.proc.zoneinfo import ZoneInfo, parse_zoneinfo
from mmfw.rawrandom import Rng
from mmfw.state import (
    MAX_NR_ZONES,
    MIGRATE_TYPES,
    NR_PCP_LISTS,
    PAGEBLOCK_NR_PAGES,
    ZONE_NAMES,
    MigrateType,
    NodeState,
    PcpState,
    PfnArray,
    ZoneState,
)

_LRU_STATS: Final = (
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
)


@dataclass(frozen=True, slots=True)
class ProcZone:
    """One zone as the files show it, checked.

    Attributes
    ----------
    span : ZoneSpan
        Where it lies.
    info : ZoneInfo
        Its part of zoneinfo.
    watermark : Watermarks
        Without boost.
    lowmem_reserve : tuple of int
        By zone index.
    counts : ZoneCounts
        Its free blocks and pageblocks.
    pcp_counts : tuple of int
        By CPU: pages on its lists.
    """

    span: ZoneSpan
    info: ZoneInfo
    watermark: Watermarks
    lowmem_reserve: tuple[int, ...]
    counts: ZoneCounts
    pcp_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProcDir:
    """A machine read from copied /proc files.

    Attributes
    ----------
    proc_zones : tuple of ProcZone
        Populated zones, ascending index.
    nr_cpus : int
        Online CPUs.
    min_free_kbytes, watermark_boost_factor : int
        ``vm.*``.
    list_order : {"shuffled", "ascending"}
        Order of the free lists.
    """

    proc_zones: tuple[ProcZone, ...]
    nr_cpus: int
    min_free_kbytes: int
    watermark_boost_factor: int
    list_order: ListOrder

    @property
    def zones(self) -> tuple[ZoneSpan, ...]:
        """Populated zones."""
        return tuple(zone.span for zone in self.proc_zones)

    def node_state(self, seed: int) -> NodeState:
        """Lay out a memory map that shows the files' counts; another seed gives another map.

        Raises
        ------
        InputError
            No map can show the counts; the message names the file and the line.
        """
        rng = Rng(seed)
        zones = [self._zone_state(zone, rng) for zone in self.proc_zones]
        managed = [zone.managed for zone in zones]
        total = calculate_totalreserve_pages(
            managed, [zone.watermark[2] for zone in zones], [zone.lowmem_reserve for zone in zones]
        )
        return NodeState(
            zones=zones,
            nr_cpus=self.nr_cpus,
            totalreserve_pages=total,
            watermark_boost_factor=self.watermark_boost_factor,
            min_free_kbytes=self.min_free_kbytes,
            page_group_by_mobility_disabled=page_group_by_mobility_disabled(managed, [0] * len(managed)),
        )

    def _zone_state(self, zone: ProcZone, rng: Rng) -> ZoneState:
        span, info, marks = zone.span, zone.info, zone.watermark
        zone_map = lay_out_zone(
            span,
            zone.counts.free,
            zone.counts.blocks,
            rng,
            list_order=self.list_order,
            pcp_pages=sum(zone.pcp_counts),
            file=zone.counts.file,
            line=zone.counts.line,
        )
        blocks = np.bincount(zone_map.pageblock_mt, minlength=MIGRATE_TYPES).tolist()
        pagesets = info.pagesets or ()
        normal = calculate_normal_threshold(span.managed, self.nr_cpus)
        thresholds = [normal if p.stat_threshold is None else p.stat_threshold for p in pagesets]
        bounds = np.cumsum(zone.pcp_counts)[:-1]
        return ZoneState(
            zone=span.zone,
            start_pfn=span.start_pfn,
            spanned=span.spanned,
            present=span.present,
            managed=span.managed,
            watermark=(marks.min, marks.low, marks.high, marks.promo),
            lowmem_reserve=zone.lowmem_reserve,
            watermark_boost=info.page_value("boost"),
            nr_reserved_highatomic=blocks[MigrateType.HIGHATOMIC] * PAGEBLOCK_NR_PAGES,
            vm_free=zone.counts.free_pages(isolated=False),
            vm_free_cpu_diff=[0] * self.nr_cpus,
            stat_threshold=thresholds,
            percpu_drift_mark=percpu_drift_mark(zone.watermark, max(thresholds), self.nr_cpus),
            nr_isolate_pageblock=blocks[MigrateType.ISOLATE],
            pageset_high=pagesets[0].high,
            pageset_batch=max(pagesets[0].batch, 1),
            pageblock_mt=zone_map.pageblock_mt,
            pageblock_lru=lru_blocks(span, zone_map, sum(info.stat(name) for name in _LRU_STATS)),
            nr_free=zone_map.nr_free,
            free_lists=zone_map.free_lists,
            pcp=[
                _pcp_state(pages, pageset.high, max(pageset.batch, 1))
                for pages, pageset in zip(np.split(zone_map.pcp_pages, bounds), pagesets, strict=True)
            ],
        )


def _pcp_state(pages: PfnArray, high: int, batch: int) -> PcpState:
    """One CPU's lists with these pages on the list of order-0 Movable pages."""
    none = np.empty(0, dtype=np.int64)
    lists = [(none, none) for _ in range(NR_PCP_LISTS)]
    lists[MigrateType.MOVABLE] = (pages, np.full(len(pages), MigrateType.MOVABLE, dtype=np.int64))
    return PcpState(count=len(pages), high=high, batch=batch, lists=lists)


def _find(directory: Path, name: str) -> Path | None:
    return next((p for p in (directory / name, directory / "proc" / name) if p.is_file()), None)


def read_proc_dir(directory: Path, list_order: ListOrder = "shuffled") -> ProcDir:
    """Read a machine from a folder of copied /proc files (see the module's text).

    Parameters
    ----------
    directory : Path
        The folder.
    list_order : {"shuffled", "ascending"}
        Order of the free lists: by seed, as on an aged machine, or ascending pfn, as after boot.

    Raises
    ------
    InputError
        A needed file is missing or wrong, the machine has several nodes, or its counts are impossible.
    """
    path = _find(directory, "zoneinfo")
    if path is None:
        raise InputError("no zoneinfo here; copy /proc/zoneinfo of the machine", file=str(directory))
    all_zones = parse_zoneinfo(read_text(path), str(path)).zones
    populated = [zone for zone in all_zones if zone.present and (zone.name != "Device" or zone.managed)]
    if not populated:
        raise InputError("no zone has present pages", file=str(path))
    nodes = sorted({zone.node for zone in populated})
    if len(nodes) > 1:
        raise InputError(
            f"the machine has nodes {', '.join(map(str, nodes))}; machines of one node are supported",
            file=str(path),
        )
    names = [zone.name for zone in all_zones if zone.node == nodes[0]]
    buddy_path, type_path = _find(directory, "buddyinfo"), _find(directory, "pagetypeinfo")
    if buddy_path is None and type_path is None:
        raise InputError(
            "neither buddyinfo nor pagetypeinfo here; copy at least one (pagetypeinfo needs root)",
            file=str(directory),
        )
    buddy = None if buddy_path is None else parse_buddyinfo(read_text(buddy_path), str(buddy_path))
    types = None if type_path is None else parse_pagetypeinfo(read_text(type_path), str(type_path))
    zones = sorted(
        (_read_zone(zone, names, str(path), buddy, types) for zone in populated), key=lambda z: z.span.zone
    )
    for lower, upper in pairwise(zones):
        if lower.span.start_pfn + lower.span.spanned > upper.span.start_pfn:
            raise InputError(
                f"zone {upper.span.name} starts inside zone {lower.span.name}",
                file=str(path),
                line=upper.info.line,
            )
        if len(lower.pcp_counts) != len(upper.pcp_counts):
            raise InputError(
                f"zone {upper.span.name} lists {len(upper.pcp_counts)} CPUs, zone {lower.span.name}"
                f" {len(lower.pcp_counts)}",
                file=str(path),
                line=upper.info.line,
            )
    estimate = sum(zone.watermark.min for zone in zones) << 2
    minimum = _sysctl(directory, "min_free_kbytes")
    boost = _sysctl(directory, "watermark_boost_factor")
    return ProcDir(
        proc_zones=tuple(zones),
        nr_cpus=len(zones[0].pcp_counts),
        min_free_kbytes=estimate if minimum is None else minimum,
        watermark_boost_factor=15000 if boost is None else boost,
        list_order=list_order,
    )


def _sysctl(directory: Path, name: str) -> int | None:
    path = _find(directory, f"sys/vm/{name}")
    if path is not None:
        line = split_lines(read_text(path), str(path))[0]
        return line.unsigned(line.text.strip(), f"vm.{name}")
    path = _find(directory, "sys_vm")
    return None if path is None else parse_sys_vm(read_text(path), str(path)).value(name)


def _read_zone(
    info: ZoneInfo, names: list[str], file: str, buddy: BuddyInfo | None, types: PageTypeInfo | None
) -> ProcZone:
    def wrong(message: str) -> InputError:
        return InputError(f"zone {info.name}: {message}", file=file, line=info.line)

    if info.name not in ZONE_NAMES:
        raise wrong(f"not a zone of x86-64; {did_you_mean(info.name, ZONE_NAMES)}")
    if not info.managed <= info.present <= info.spanned:
        raise wrong(f"managed {info.managed}, present {info.present}, spanned {info.spanned} should ascend")
    if info.start_pfn + info.spanned > MAX_PFN:
        raise wrong(
            f"ends at pfn {info.start_pfn + info.spanned}; pfns below {MAX_PFN} (16 TiB) are supported"
        )
    index = ZONE_NAMES.index(info.name)
    span = ZoneSpan(index, info.start_pfn, info.spanned, info.present, info.managed)
    boost = info.page_value("boost")
    low, high = info.page_value("low") - boost, info.page_value("high") - boost
    promo = info.page_value("promo") - boost if info.page_value("promo") else high + (high - low)
    marks = Watermarks(info.page_value("min") - boost, low, high, promo)
    if marks.min < 0 or list(marks) != sorted(marks):
        raise wrong(f"min, low, high less boost are {marks.min}, {low}, {high}; they should ascend from 0")
    if len(info.protection) != len(names):
        raise wrong(f"protection has {len(info.protection)} values, but the node has {len(names)} zones")
    reserve, last = [], 0
    for name in ZONE_NAMES:
        last = info.protection[names.index(name)] if name in names else last
        reserve.append(last)
    if len(reserve) != MAX_NR_ZONES or max(reserve) >= MAX_PFN:
        raise wrong(f"protection {info.protection} is larger than any machine")
    counts = zone_counts(info, buddy, types)
    room = max(span.managed - counts.free_pages(), 0)
    pcp_counts = []
    for pageset in info.pagesets or ():
        pcp_counts.append(min(pageset.count, room))
        room -= pcp_counts[-1]
        if max(pageset.high, pageset.batch, pageset.stat_threshold or 0) >= MAX_PFN:
            raise wrong(f"cpu {pageset.cpu} has limits larger than any machine")
    check_feasible(span, counts.nr_free, file=counts.file, line=counts.line)
    return ProcZone(span, info, marks, tuple(reserve), counts, tuple(pcp_counts))
