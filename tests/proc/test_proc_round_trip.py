"""Real files come back byte for byte, and mangled ones are refused with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.proc.buddyinfo import format_buddyinfo, parse_buddyinfo
from mmfw.proc.meminfo import MemInfo, MemInfoEntry, format_meminfo, parse_meminfo
from mmfw.proc.pagetypeinfo import format_pagetypeinfo, parse_pagetypeinfo
from mmfw.proc.sysctl import parse_sys_vm
from mmfw.proc.text import read_text, split_sections
from mmfw.proc.vmstat import format_vmstat, parse_vmstat
from mmfw.proc.zoneinfo import format_zoneinfo, parse_zoneinfo

DATA = Path(__file__).parents[1] / "data" / "static"
SIZES = ("256M", "512M", "1G", "2G", "4G", "4G-smp4", "8G", "16G")


def _again(name: str, text: str, first_line: int = 1) -> str:
    if name == "buddyinfo":
        return format_buddyinfo(parse_buddyinfo(text, name, first_line))
    if name == "pagetypeinfo":
        return format_pagetypeinfo(parse_pagetypeinfo(text, name, first_line))
    if name == "zoneinfo":
        return format_zoneinfo(parse_zoneinfo(text, name, first_line))
    if name == "vmstat":
        return format_vmstat(parse_vmstat(text, name, first_line))
    assert name == "meminfo"
    return format_meminfo(parse_meminfo(text, name, first_line))


PARSERS: dict[str, Callable[[str], object]] = {
    "buddyinfo": parse_buddyinfo,
    "pagetypeinfo": parse_pagetypeinfo,
    "zoneinfo": parse_zoneinfo,
    "vmstat": parse_vmstat,
    "meminfo": parse_meminfo,
    "sys_vm": parse_sys_vm,
}
TEXTS = {name: (DATA / "4G-smp4" / name).read_text() for name in PARSERS}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["buddyinfo", "pagetypeinfo", "zoneinfo"])
def test_files_of_every_size_come_back(size: str, name: str) -> None:
    text = (DATA / size / name).read_text()
    assert _again(name, text) == text


@pytest.mark.parametrize("name", ["vmstat", "meminfo"])
def test_counters_come_back(name: str) -> None:
    assert _again(name, TEXTS[name]) == TEXTS[name]


def test_every_section_of_a_capture_comes_back() -> None:
    sections = split_sections((DATA / "sections.txt").read_text(), "after.txt")
    assert [s.name for s in sections] == ["vmstat", "buddyinfo", "zoneinfo", "meminfo", "pagetypeinfo"]
    for section in sections:
        assert _again(section.name, section.text, section.first_line) == section.text


def test_values_are_the_files() -> None:
    zones = parse_zoneinfo(TEXTS["zoneinfo"]).zones
    normal = next(zone for zone in zones if zone.name == "Normal")
    assert (normal.start_pfn, normal.spanned, normal.managed) == (1048576, 262144, 243477)
    assert [p.count for p in normal.pagesets or ()] == [447, 403, 158, 486]
    assert zones[0].protection == (0, 2950, 3901, 3901, 3901)
    assert zones[0].stat("nr_free_pages") == 3712
    assert dict(zones[0].node_stats or ())["nr_kernel_stack"] == 1136
    assert zones[1].node_stats is None
    assert zones[3].pagesets is None
    node = parse_pagetypeinfo(TEXTS["pagetypeinfo"]).nodes[0]
    assert node.blocks[2].counts == (50, 456, 6, 0, 0)
    row = parse_buddyinfo((DATA / "256M" / "buddyinfo").read_text()).rows[1]
    assert row.nr_free == (1, 0, 2, 8, 7, 6, 9, 9, 4, 4, 38)
    assert parse_sys_vm(TEXTS["sys_vm"]).values("lowmem_reserve_ratio") == (256, 256, 32, 0, 0)
    assert parse_sys_vm(TEXTS["sys_vm"]).value("min_free_kbytes") == 67584


def test_later_kernels_lines_are_kept() -> None:
    text = TEXTS["zoneinfo"]
    text = text.replace("        high     96\n", "        high     96\n        promo    112\n")
    text = text.replace("              count: 0\n              high:  20\n              batch: 1\n",
                        "              count:    0\n              high:     20\n              batch:    1\n"
                        "              high_min: 20\n              high_max: 480\n")  # fmt: skip
    text = text.replace("  start_pfn:           1\n", "  start_pfn:           1\n  free_highatomic:     0\n")
    text = text.replace(
        "      nr_free_pages 3712\n", "      nr_free_pages 3712\n      nr_free_pages_blocks 3584\n"
    )
    assert format_zoneinfo(parse_zoneinfo(text)) == text
    dma = parse_zoneinfo(text).zones[0]
    assert dma.page_value("promo") == 112
    assert dma.stat("nr_free_pages_blocks") == 3584
    assert (dma.pagesets or ())[0].fields[-1] == ("high_max", 480)


def test_cma_capped_and_second_node() -> None:
    one = TEXTS["pagetypeinfo"]
    wide = one.replace("   HighAtomic      Isolate \n", "   HighAtomic          CMA      Isolate \n")
    wide = "".join(
        line.replace("            0            0 \n", "            0            0            0 \n")
        if line.startswith("Node 0, zone")
        else line + line.replace("  HighAtomic", "         CMA")
        if "HighAtomic " in line and line.startswith("Node")
        else line
        for line in wide.splitlines(keepends=True)
    )
    wide = wide.replace("type      Movable      0      0", "type      Movable >100000      0")
    both = wide + wide.replace("Node    0", "Node    1").replace("Node 0", "Node 1")
    info = parse_pagetypeinfo(both)
    assert format_pagetypeinfo(info) == both
    assert [node.free[0].node for node in info.nodes] == [0, 1]
    assert info.nodes[0].migratetypes[4] == "CMA"
    assert any(row.capped[0] and row.counts[0] == 100000 for row in info.nodes[0].free)


def test_meminfo_keeps_the_kernels_columns() -> None:
    info = MemInfo((
        MemInfoEntry("MemTotal", 123456789),
        MemInfoEntry("HardwareCorrupted", 0),
        MemInfoEntry("HugePages_Total", 12, in_kb=False),
        MemInfoEntry("HugePages_Free", 1234567, in_kb=False),
    ))  # fmt: skip
    assert format_meminfo(info) == (
        "MemTotal:       123456789 kB\nHardwareCorrupted:     0 kB\n"
        "HugePages_Total:      12\nHugePages_Free:    1234567\n"
    )
    assert parse_meminfo(format_meminfo(info)) == info


@pytest.mark.parametrize(
    ("name", "old", "new", "line", "message"),
    [
        ("buddyinfo", "Node 0, zone    DMA32", "Node 0, zone      DMA", 2, "already on line 1"),
        ("buddyinfo", "zone      DMA      0      0", "zone      DMA      0", 1, "has 10 counts"),
        ("zoneinfo", "        managed  3840\n", "", 1, "no line 'managed'"),
        ("zoneinfo", "  pages free     3712", "  pages free     37x2", 46, "'37x2'"),
        ("zoneinfo", "    cpu: 1\n", "    cpu: 0\n", 79, "cpu 0 occurs a second time"),
        ("zoneinfo", "(0, 2950, 3901", "(0, -2950, 3901", 55, "'-2950'"),
        ("pagetypeinfo", "Pages per block:  512", "Pages per block:  511", 2, "order 9"),
        ("vmstat", "nr_zone_active_anon ", "nr_free_pages ", 3, "a second time"),
        ("meminfo", "MemFree: ", "MemFree; ", 2, "not a line of meminfo"),
        ("sys_vm", "admin_reserve_kbytes 8192", "compact_memory", 2, "a second time"),
    ],
)
def test_errors_name_file_and_line(name: str, old: str, new: str, line: int, message: str) -> None:
    text = TEXTS[name]
    assert old in text
    with pytest.raises(InputError) as caught:
        PARSERS[name](text.replace(old, new, 1))
    assert (caught.value.file, caught.value.line) == (name, line)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_a_file_cut_inside_a_line_is_refused(name: str) -> None:
    text = TEXTS[name]
    for cut in range(1, len(text), 97):
        if text[cut - 1] != "\n":
            with pytest.raises(InputError, match="middle of a line"):
                PARSERS[name](text[:cut])


@pytest.mark.parametrize("name", ["buddyinfo", "pagetypeinfo", "zoneinfo"])
def test_a_lost_line_is_refused_or_a_whole_row(name: str) -> None:
    """Of a table only whole rows can go unnoticed; of zoneinfo, only whole zones and counters."""
    lines = TEXTS[name].splitlines(keepends=True)
    noticed = 0
    for i in range(len(lines)):
        text = "".join(lines[:i])
        try:
            PARSERS[name](text)
        except InputError:
            noticed += 1
        else:
            assert i == len(lines) or lines[i].startswith("Node")
    assert noticed >= 1


@st.composite
def mangled(draw: st.DrawFn) -> tuple[str, str]:
    name = draw(st.sampled_from(sorted(PARSERS)))
    text = TEXTS[name]
    for _ in range(draw(st.integers(1, 3))):
        if not text:
            break
        at = draw(st.integers(0, len(text) - 1))
        lines = text.splitlines(keepends=True)
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["cut", "flip", "swap", "double", "drop", "huge", "junk"]))
        if kind == "cut":
            text = text[:at]
        elif kind == "flip":
            text = text[:at] + chr(ord(text[at]) ^ (1 << draw(st.integers(0, 7)))) + text[at + 1 :]
        elif kind == "swap":
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == "double":
            lines.insert(j, lines[i])
        elif kind == "drop":
            del lines[i]
        elif kind == "huge":
            words = lines[i].split(" ")
            words[-1 if len(words) < 3 else -2] = "9" * draw(st.integers(1, 6000))
            lines[i] = " ".join(words)
        else:
            text = text[:at] + draw(st.text(max_size=8)) + text[at:]
        if kind in ("swap", "double", "drop", "huge"):
            text = "".join(lines)
    return name, text


@settings(max_examples=400, deadline=None)
@given(mangled())
def test_mangled_files_are_refused_or_still_well_formed(case: tuple[str, str]) -> None:
    name, text = case
    refused: InputError | None = None
    try:
        PARSERS[name](text)
    except InputError as error:
        refused = error
    if refused is not None:
        assert refused.file == name
        assert refused.line is not None
        assert 1 <= refused.line <= text.count("\n") + 1
        assert len(str(refused)) < 400
    elif name != "sys_vm":
        canonical = _again(name, text)
        assert _again(name, canonical) == canonical
    else:
        assert text.endswith("\n")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
    bad = tmp_path / "bad"
    bad.write_bytes(b"nr_free_pages 1\nnr\xff 2\n")
    with pytest.raises(InputError) as caught:
        read_text(bad)
    assert caught.value.line == 2
    with pytest.raises(InputError, match="second time"):
        split_sections("== a\n1\n== a\n", "x")
    with pytest.raises(InputError, match="before the first"):
        split_sections("1\n== a\n", "x")
