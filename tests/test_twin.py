"""The compiled page allocator beside its plain twin, on machines and loads captured traces do not reach."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw.jit import page as pg
from mmfw.machine.snapshot import node_state_from_record, record_from_node_state
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.context import IrqsOff, SleepingOnce
from mmfw.mm.freelist import Freelist
from mmfw.mm.mmzone import PglistData
from mmfw.mm.page_alloc import PageAllocator
from mmfw.mm.pages import Memory
from mmfw.mm.shrinker import ShrinkerList
from mmfw.mm.slowpath import Slowpath
from mmfw.mm.trace import MmVmscanWakeupKswapd, Tracepoints
from mmfw.mm.vmscan import Vmscan
from mmfw.mm.vmstat import VmStat
from mmfw.mm.wakeup import KswapdRequests
from mmfw.types import MmOps
from naive.page_alloc import NaiveMm
from naive.replay import differences, replay

TRACE = Path(__file__).parent / "data" / "traces" / "256M-s1-t1.jsonl.gz"
Record = dict[str, Any]

#: Row kind of a tracepoint, the letter a trace gives it, and how many of the row's numbers it has there.
EVENTS = {
    pg.TR_EXTFRAG: ("x", 5),
    pg.TR_ZONE_LOCKED: ("z", 4),
    pg.TR_PCPU_DRAIN: ("p", 3),
    pg.TR_WAKEUP_KSWAPD: ("w", 2),
}

MASKS = (
    0x20C0,  # GFP_KERNEL without reclaim
    0x20D0,  # reclaimable
    0x1020CA,  # movable
    0x2008,  # movable, not highmem: Normal and below
    0xA20,  # GFP_ATOMIC
    0x2220,  # GFP_ATOMIC without kswapd
    0x2020,  # HIGH alone
    0x820A0,  # HIGH and NOMEMALLOC
    0x800,  # GFP_NOWAIT
    0x1028CA,  # movable, wakes kswapd
    0x1820CA,  # movable and NOMEMALLOC
    0x20C4,  # DMA32
    0x2221,  # DMA, HIGH and ATOMIC
)


class Compiled:
    """The simulator behind the twin's interface."""

    def __init__(self, zones: list[Record], watermark_boost_factor: int) -> None:
        record = {
            "state": 0,
            "totalreserve_pages": 0,
            "watermark_boost_factor": watermark_boost_factor,
            "zones": zones,
        }
        self.memory = Memory(node_state_from_record(record))
        pgdat = PglistData(self.memory)
        trace, vmstat = Tracepoints(), VmStat(self.memory)
        ops = MmOps(plan_wakeup=mmfw_plan_wakeup, should_shrink_slab=mmfw_should_shrink_slab)
        context = IrqsOff()
        shrinkers = ShrinkerList(trace, vmstat)
        kswapd = KswapdRequests(pgdat, lambda *_: None, ops, SleepingOnce(), trace)
        vmscan = Vmscan(pgdat, shrinkers, None, None, None, ops, kswapd, None, context, trace, vmstat)
        self.freelist = freelist = Freelist(pgdat, kswapd, context)
        slowpath = Slowpath(freelist, vmscan, None, None, context, trace, vmstat)
        self.mm = PageAllocator(freelist, slowpath, context)
        self.memory.S[pg.S_TRACE_MASK] = sum(1 << kind for kind in EVENTS)
        trace.subscribe(
            MmVmscanWakeupKswapd,
            lambda e: pg.trace(self.memory.S, pg.TR_WAKEUP_KSWAPD, e.order, e.zid, 0, 0, 0),
        )

    def alloc(self, gfp_mask: int, order: int) -> int:
        return int(self.mm.alloc_pages(gfp_mask, order))

    def free(self, pfn: int, order: int) -> None:
        self.mm.free_pages(pfn, order)

    def drain(self) -> None:
        self.freelist.drain_local_pages()

    def take_events(self) -> list[list[Any]]:
        rows = self.memory.take_trace().tolist()
        return [[EVENTS[row[0]][0], *row[1 : 1 + EVENTS[row[0]][1]]] for row in rows]

    def zones(self) -> Any:
        return record_from_node_state(self.memory.node_state())["zones"]


@dataclass
class Block:
    """Initial content of a pageblock: its type, and pages at its start that are allocated for good."""

    migratetype: int
    taken: int
    lru: int


@st.composite
def zone_records(draw: st.DrawFn, name: str, start: int, blocks: int, short: int) -> Record:
    """A zone of some pageblocks, the last one ``short`` pages short of whole."""
    first = start >> 9
    end = ((first + blocks) << 9) - short
    free_area: list[Any] = [{"nr_free": 0, "lists": [[], [], [], [], []]} for _ in range(11)]
    types, free, reserved = "", 0, 0
    lru: list[list[int]] = []
    for i in range(blocks):
        taken = draw(st.sampled_from((0, 0, 0, 64, 256, 288, 448, 512)))
        block = Block(draw(st.sampled_from((1, 1, 1, 0, 2, 3))), taken, draw(st.integers(0, taken)))
        types += str(block.migratetype)
        reserved += 512 * (block.migratetype == 3)
        if block.lru:
            lru.append([i, block.lru])
        pfn, last = max(start, ((first + i) << 9) + block.taken), min(end, (first + i + 1) << 9)
        while pfn < last:
            order = min(9, (pfn & -pfn).bit_length() - 1)
            while pfn + (1 << order) > last:
                order -= 1
            free_area[order]["lists"][block.migratetype].append(pfn)
            free_area[order]["nr_free"] += 1
            free += 1 << order
            pfn += 1 << order
    threshold = draw(st.sampled_from((0, 2, 10, 125)))
    diff = max(free - (end - start), min(free, draw(st.integers(-threshold, threshold))))
    low_min = draw(st.integers(0, 120))
    gap = draw(st.integers(0, 60))
    reserve = draw(st.integers(0, 150))
    high = draw(st.sampled_from((0, 8, 41, 200, 532)))
    index = ("DMA", "DMA32", "Normal").index(name)
    return {
        "zone": name,
        "start_pfn": start,
        "spanned": end - start,
        "present": end - start,
        "managed": end - start,
        "watermark": dict(
            zip(("min", "low", "high", "promo"), (low_min + k * gap for k in range(4)), strict=True)
        ),
        "watermark_boost": draw(st.sampled_from((0, 0, 100, 512))),
        "nr_reserved_highatomic": reserved,
        "lowmem_reserve": [0 if j <= index else reserve for j in range(5)],
        # ZONE_BOOSTED_WATERMARK is set and cleared within one rmqueue(), so no zone at rest has it.
        "flags": draw(st.sampled_from((0, 0, 2))),
        "vm_free": free - diff,
        "vm_free_cpu_diff": diff,
        "stat_threshold": threshold,
        "percpu_drift_mark": draw(st.sampled_from((0, 400, 1 << 20))),
        "nr_isolate_pageblock": draw(st.sampled_from((0, 0, 1))),
        "pageset_high": high,
        "pageset_batch": 1,
        "compact_cached_free_pfn": 0,
        "compact_cached_migrate_pfn_async": 0,
        "compact_cached_migrate_pfn_sync": 0,
        "compact_considered": 0,
        "compact_defer_shift": 0,
        "compact_order_failed": 0,
        "pageblock_start_pfn": first << 9,
        "pageblock_mt": types,
        "pageblock_lru": lru,
        "free_area": free_area,
        "pcp": {
            "count": 0,
            "high": high,
            "batch": draw(st.sampled_from((1, 2, 15, 63))),
            "free_factor": draw(st.integers(0, 5)),
            "expire": 0,
            "lists": [[] for _ in range(14)],
        },
    }


@st.composite
def machines(draw: st.DrawFn) -> list[Record]:
    """DMA from pfn 1, DMA32 that ends inside a pageblock, and perhaps Normal (which brings NOFRAGMENT)."""
    zones = [draw(zone_records("DMA", 1, 3, 0))]
    zones.append(draw(zone_records("DMA32", 2048, draw(st.integers(2, 5)), 100)))
    if draw(st.booleans()):
        zones.append(draw(zone_records("Normal", 5120, draw(st.integers(3, 7)), 0)))
    return zones


ORDERS = st.sampled_from((0, 0, 0, 1, 2, 3, 3, 4, 5, 8, 9, 10))
TO_EXHAUSTION = 1 << 20
STEPS = st.one_of(
    st.tuples(st.just("alloc"), st.sampled_from(MASKS), ORDERS, st.sampled_from((1, 5, 40))),
    st.tuples(st.just("alloc"), st.sampled_from(MASKS), ORDERS, st.just(TO_EXHAUSTION)),
    st.tuples(st.just("lifo"), st.just(0), st.just(0), st.sampled_from((1, 5, 40, 300))),
    st.tuples(st.just("thin"), st.just(0), st.just(0), st.integers(2, 9)),
    st.tuples(st.just("drain"), st.just(0), st.just(0), st.just(0)),
)
LOADS = st.lists(STEPS, min_size=8, max_size=40)
RUN = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Pair:
    """Both allocators under one load; they must agree on each pfn and each event, in order."""

    def __init__(self, zones: list[Record], boost_factor: int) -> None:
        self.twin = NaiveMm(zones, boost_factor)
        self.compiled = Compiled(zones, boost_factor)
        self.held: list[tuple[int, int]] = []

    def agree(self, what: str) -> None:
        assert self.compiled.take_events() == self.twin.events, what
        self.twin.events.clear()

    def alloc(self, gfp_mask: int, order: int) -> bool:
        pfn = self.twin.alloc(gfp_mask, order)
        assert self.compiled.alloc(gfp_mask, order) == pfn, f"alloc {gfp_mask:#x} order {order}"
        self.agree(f"alloc {gfp_mask:#x} order {order}: {pfn}")
        if pfn >= 0:
            self.held.append((pfn, order))
        return pfn >= 0

    def free(self, pfn: int, order: int) -> None:
        self.twin.free(pfn, order)
        self.compiled.free(pfn, order)
        self.agree(f"free {pfn} order {order}")

    def step(self, kind: str, gfp_mask: int, order: int, count: int) -> None:
        if kind == "alloc":
            for _ in range(count):
                if not self.alloc(gfp_mask, order):
                    break
        elif kind == "lifo":
            for _ in range(min(count, len(self.held))):
                self.free(*self.held.pop())
        elif kind == "thin":
            for pfn, page_order in self.held[::count]:
                self.free(pfn, page_order)
            del self.held[::count]
        else:
            self.twin.drain()
            self.compiled.drain()
            self.agree("drain")


@pytest.mark.slow
@RUN
@given(machines(), LOADS, st.sampled_from((0, 15000, 30000)))
def test_compiled_allocator_equals_its_twin(
    zones: list[Record], load: list[tuple[str, int, int, int]], boost_factor: int
) -> None:
    pair = Pair(zones, boost_factor)
    for step in load:
        pair.step(*step)
    assert next(differences(pair.twin.state()["zones"], pair.compiled.zones(), "zones"), None) is None


def listed_pages(zones: list[Record]) -> list[int]:
    """Every pfn on a free list or pcp list, as often as it is there."""
    pfns: list[int] = []
    for zone in zones:
        for order, area in enumerate(zone["free_area"]):
            for pages in area["lists"]:
                pfns += [pfn + i for pfn in pages for i in range(1 << order)]
        for pindex, pages in enumerate(zone["pcp"]["lists"]):
            order = 9 if pindex >= 12 else pindex // 3
            pfns += [pfn + i for pfn, _ in pages for i in range(1 << order)]
    return pfns


@RUN
@given(machines(), LOADS)
def test_twin_neither_loses_nor_doubles_a_page(
    zones: list[Record], load: list[tuple[str, int, int, int]]
) -> None:
    mm = NaiveMm(zones)
    held: list[tuple[int, int]] = []
    before = sorted(listed_pages(zones))
    for kind, gfp_mask, order, count in load:
        if kind == "alloc":
            for _ in range(count):
                if (pfn := mm.alloc(gfp_mask, order)) < 0:
                    break
                held.append((pfn, order))
        elif kind == "drain":
            mm.drain()
        else:
            for pfn, page_order in held[-count:]:
                mm.free(pfn, page_order)
            del held[-count:]
    state = mm.state()["zones"]
    taken = [pfn + i for pfn, order in held for i in range(1 << order)]
    assert sorted(listed_pages(state) + taken) == before
    for zone in state:
        free = sum(area["nr_free"] << order for order, area in enumerate(zone["free_area"]))
        assert zone["vm_free"] + zone["vm_free_cpu_diff"] == free


def test_twin_replays_a_captured_trace() -> None:
    result = replay(TRACE)
    assert result.first_mismatch is None
    assert (result.ops, result.allocs, result.pfn_matches) == (2000, 1028, 1028)
    assert (result.events, result.event_matches) == (1611, 1611)
    assert (result.states, result.state_matches) == (2, 2)


@pytest.mark.parametrize(
    ("of", "by", "message"),
    [
        ('["a",', None, "twin returned pfn"),
        ('["z",', None, "twin's events"),
        ('{"state":100', '"free_factor":', "state 100: zones[0].pcp.free_factor"),
    ],
)
def test_twin_replay_finds_one_wrong_number(tmp_path: Path, of: str, by: str | None, message: str) -> None:
    lines = gzip.decompress(TRACE.read_bytes()).decode("ascii").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(of))
    if by is not None:
        lines[at] = lines[at].replace(by, by + "1", 1)
    elif of == '["a",':
        lines[at] = lines[at].replace("]", "1]")
    else:
        lines[at] = lines[at].replace('["z",', '["z",1')
    doctored = tmp_path / "doctored.jsonl.gz"
    doctored.write_bytes(gzip.compress("\n".join(lines).encode("ascii") + b"\n"))
    result = replay(doctored)
    assert result.first_mismatch is not None
    assert message in result.first_mismatch
