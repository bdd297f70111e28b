"""Snapshots come back as they were, and impossible ones are refused with the path of the key."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.machine import load_machine
from mmfw.machine.snapshot import node_state_from_record, read_snapshot, record_from_node_state

DATA = Path(__file__).parent / "data" / "static"
TRACE = DATA / "256M-state.jsonl.gz"
HEADER, RECORD = (json.loads(line) for line in gzip.decompress(TRACE.read_bytes()).splitlines())
ADDED = ("watermark_boost_factor", "min_free_kbytes", "page_group_by_mobility_disabled")


def test_a_trace_state_comes_back() -> None:
    record = record_from_node_state(read_snapshot(TRACE))
    for key in ADDED:
        del record[key]
    assert record == RECORD


def test_values_are_the_records() -> None:
    state = node_state_from_record(RECORD, HEADER, str(TRACE), 2)
    zone = state.zones[1]
    assert (zone.start_pfn, zone.managed, zone.vm_free) == (4096, 51812, 41063)
    assert zone.watermark == (426, 532, 638, 744)
    assert zone.free_lists[0][1].tolist() == [65060, 13847, 12961, 10736, 12316]
    assert zone.pcp[0].lists[1][0][:3].tolist() == [10740, 12315, 65061]
    assert zone.pageblock_lru[1].tolist() == [12, 17]
    assert zone.pageblock_mt[20:24].tolist() == [1, 1, 0, 0]
    assert (state.nr_cpus, state.totalreserve_pages, state.watermark_boost_factor) == (1, 879, 15000)


def test_the_header_tells_the_boost_factor() -> None:
    assert node_state_from_record(RECORD, {"watermark_boost_factor": 0}).watermark_boost_factor == 0


def test_several_cpus_come_back() -> None:
    state = load_machine(str(DATA / "4G-smp4")).node_state(3)
    record = json.loads(json.dumps(record_from_node_state(state, "x")))
    again = node_state_from_record(record)
    assert again.nr_cpus == 4
    assert record_from_node_state(again, "x") == record
    assert [pcp.count for pcp in again.zones[2].pcp] == [447, 403, 158, 486]


def test_a_machine_from_a_snapshot_is_fresh_at_each_call() -> None:
    machine = load_machine(str(TRACE))
    first = machine.node_state(1)
    first.zones[1].free_lists[0][1][0] = 5
    first.zones[1].pcp[0].count = 0
    again = machine.node_state(2)
    assert again.zones[1].free_lists[0][1][0] == 65060
    assert again.zones[1].pcp[0].count == 53
    assert machine.managed_pages == 55652


Change = Callable[[dict[str, Any]], object]


def _dma32(record: dict[str, Any]) -> Any:
    return record["zones"][1]


FAULTS: list[tuple[str, Change, str]] = [
    ("unknown zone", lambda r: _dma32(r).update(zone="Narmol"), r"zones\[1\]\.zone: is 'Narmol'"),
    ("zones out of order", lambda r: r["zones"].reverse(), r"zones\[1\]: zone DMA is out of place"),
    ("zone twice", lambda r: r["zones"].append(r["zones"][1]), r"zones\[2\]: zone DMA32 is out of place"),
    ("no zones", lambda r: r.update(zones=[]), "zones: is empty"),
    ("zones overlap", lambda r: r["zones"][0].update(spanned=9000), "inside zone DMA|pageblock"),
    ("missing key", lambda r: _dma32(r).pop("managed"), r"zones\[1\]: has no key 'managed'"),
    ("a fraction", lambda r: _dma32(r).update(managed=1.5), r"zones\[1\]\.managed: is a number with a frac"),
    ("a bool", lambda r: _dma32(r).update(flags=True), r"zones\[1\]\.flags: is true or false"),
    ("huge", lambda r: _dma32(r).update(spanned=10**30), r"zones\[1\]\.spanned: is a huge number"),
    ("watermarks", lambda r: _dma32(r)["watermark"].update(min=600), r"watermark: is \[600, 532"),
    ("reserve", lambda r: _dma32(r)["lowmem_reserve"].pop(), "lowmem_reserve: has 4 values"),
    (
        "misaligned",
        lambda r: _dma32(r)["free_area"][3]["lists"][1].__setitem__(0, 10721),
        r"free_area\[3\]\.lists\[1\]\[0\]: pfn 10721 is not aligned to order 3",
    ),
    (
        "outside",
        lambda r: _dma32(r)["free_area"][0]["lists"][1].__setitem__(2, 70000),
        r"free_area\[0\]\.lists\[1\]\[2\]: pfn 70000, order 0, is outside zone DMA32 \(4096\.\.65500\)",
    ),
    (
        "half outside",
        lambda r: _dma32(r)["free_area"][10]["lists"][1].__setitem__(0, 64512),
        r"pfn 64512, order 10, is outside",
    ),
    (
        "twice",
        lambda r: _dma32(r)["free_area"][0]["lists"][1].__setitem__(1, 65060),
        r"zones\[1\]: pfn 65060 is listed twice",
    ),
    (
        "free and on a pcp list",
        lambda r: _dma32(r)["pcp"]["lists"][1].__setitem__(0, [13841, 1]),
        r"zones\[1\]: pfn 13841 lies in the block at 13840",
    ),
    (
        "nr_free",
        lambda r: _dma32(r)["free_area"][2].update(nr_free=4),
        r"free_area\[2\]\.nr_free: is 4, but the lists hold 3",
    ),
    ("orders", lambda r: _dma32(r)["free_area"].pop(), "free_area: has 10 orders"),
    ("types", lambda r: _dma32(r)["free_area"][4]["lists"].pop(), r"free_area\[4\]\.lists: has 4 lists"),
    (
        "text among pfns",
        lambda r: _dma32(r)["free_area"][0]["lists"][1].__setitem__(3, "9"),
        r"lists\[1\]\[3\]: is a text; it should be an integer",
    ),
    (
        "null among pfns",
        lambda r: _dma32(r)["free_area"][0]["lists"][1].__setitem__(3, None),
        r"lists\[1\]\[3\]: is null",
    ),
    (
        "pfn over 64 bits",
        lambda r: _dma32(r)["free_area"][0]["lists"][1].__setitem__(3, 2**70),
        "does not fit 64 bits",
    ),
    ("pcp count", lambda r: _dma32(r)["pcp"].update(count=54), r"pcp\.count: is 54, but the lists hold 53"),
    ("pcp lists", lambda r: _dma32(r)["pcp"]["lists"].pop(), r"pcp\.lists: has 13 lists"),
    (
        "pcp entry",
        lambda r: _dma32(r)["pcp"]["lists"][1].__setitem__(2, [5]),
        r"pcp\.lists\[1\]\[2\]: should be a pair",
    ),
    (
        "pcp type",
        lambda r: _dma32(r)["pcp"]["lists"][1][0].__setitem__(1, 2),
        r"pcp\.lists\[1\]\[0\]: migratetype 2 cannot be on list 1",
    ),
    ("cpus", lambda r: _dma32(r).update(stat_threshold=[4, 4]), "stat_threshold: has 2 values"),
    ("vm_free", lambda r: _dma32(r).update(vm_free=41064), "vm_free: with vm_free_cpu_diff is 41064"),
    ("block digits", lambda r: _dma32(r).update(pageblock_mt="1" * 119), "pageblock_mt: has 119 digits"),
    ("block type", lambda r: _dma32(r).update(pageblock_mt="1" * 119 + "9"), "digit 119 is '9'"),
    ("block text", lambda r: _dma32(r).update(pageblock_mt="1" * 119 + "é"), "digits 0..4 and f"),
    ("block start", lambda r: _dma32(r).update(pageblock_start_pfn=4097), "it should be 4096"),
    (
        "lru block",
        lambda r: _dma32(r)["pageblock_lru"].append([120, 1]),
        r"pageblock_lru\[8\]: is \[120, 1\]",
    ),
    ("lru twice", lambda r: _dma32(r)["pageblock_lru"].append([12, 1]), "names a block twice"),
    ("absent block", lambda r: _dma32(r).update(pageblock_mt="f" * 120), "is absent"),
]


@pytest.mark.parametrize(("change", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_impossible_records_are_refused(change: Change, message: str) -> None:
    record = copy.deepcopy(RECORD)
    change(record)
    with pytest.raises(InputError, match=message) as caught:
        node_state_from_record(record, HEADER, "x.jsonl", 2)
    assert (caught.value.file, caught.value.line) == ("x.jsonl", 2)


JUNK = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        7,
        2**31,
        2**63,
        2**80,
        0.5,
        float("nan"),
        "",
        "1",
        [],
        [1],
        [[1, 2]],
        {},
        {"a": 1},
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_is_refused_or_gives_a_state(data: st.DataObject) -> None:
    record = copy.deepcopy(RECORD)
    value: Any = record
    for _ in range(data.draw(st.integers(0, 6))):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        keys = [key for key in keys if isinstance(value[key], dict | list) and value[key]]
        if not keys:
            break
        value = value[data.draw(st.sampled_from(keys))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = data.draw(st.sampled_from(keys))
    junk = data.draw(JUNK)
    value[key] = junk
    failed: InputError | None = None
    try:
        node_state_from_record(record, HEADER, "x", 2)
    except InputError as error:
        failed = error
    assert failed is None or str(failed).startswith(("x:2: ", "x:1: header"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]\n", '{"a": 1}\n{"b": 2}\n', "[" * 100000, '{"state": 0}\n', "\x00\xff"]
)
def test_files_that_are_no_snapshots(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"s\.json"):
        read_snapshot(path)
    packed = tmp_path / "s.json.gz"
    packed.write_bytes(gzip.compress(b'{"state": 0}')[:15])
    with pytest.raises(InputError, match="is not a snapshot"):
        read_snapshot(packed)
