"""/proc of a simulated machine: what a real one printed where the machine was laid out from it, and the kernel's sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmfw import gfp
from mmfw.errors import InputError
from mmfw.machine import load_machine
from mmfw.mm.core import Mm
from mmfw.mm.fragmentation import fragmentation_index, unusable_free_index
from mmfw.mm.sysctl import SysctlVm
from mmfw.proc.buddyinfo import parse_buddyinfo
from mmfw.proc.extfrag import format_extfrag_index, format_unusable_index, parse_index
from mmfw.proc.gauges import global_dirty_limits, si_mem_available
from mmfw.proc.meminfo import parse_meminfo
from mmfw.proc.pagetypeinfo import parse_pagetypeinfo
from mmfw.proc.snapshot import PROC_FILES, proc_files
from mmfw.proc.sysctl import parse_sys_vm
from mmfw.proc.text import split_sections
from mmfw.proc.vmstat import parse_vmstat
from mmfw.proc.zoneinfo import ZoneInfo, parse_zoneinfo
from mmfw.testing import make_mm

STATIC = Path(__file__).parents[1] / "data" / "static"
FOLDERS = {"256M": 1, "1G": 1, "4G-smp4": 4, "16G": 1}
SMP4 = STATIC / "4G-smp4"


def vmstat_of(files: dict[str, str]) -> dict[str, int]:
    return parse_vmstat(files["vmstat"]).as_dict()


def meminfo_of(files: dict[str, str]) -> dict[str, int]:
    return parse_meminfo(files["meminfo"]).as_dict()


@pytest.fixture(scope="module")
def smp4() -> dict[str, str]:
    return proc_files(make_mm(str(SMP4), nr_cpus=4))


@pytest.mark.parametrize(("size", "nr_cpus"), FOLDERS.items())
def test_a_machine_laid_out_from_a_real_one_prints_its_tables(size: str, nr_cpus: int) -> None:
    files = proc_files(make_mm(str(STATIC / size), nr_cpus=nr_cpus))
    assert files.keys() == set(PROC_FILES)
    for name in ("buddyinfo", "pagetypeinfo"):
        assert files[name] == (STATIC / size / name).read_text()
    sysctls = parse_sys_vm((STATIC / size / "sys_vm").read_text())
    for name in ("min_free_kbytes", "watermark_boost_factor"):
        assert files[f"sys/vm/{name}"] == f"{sysctls.value(name)}\n"


def test_its_zones_are_the_real_ones(smp4: dict[str, str]) -> None:
    real = parse_zoneinfo((SMP4 / "zoneinfo").read_text()).zones
    ours = parse_zoneinfo(smp4["zoneinfo"]).zones
    for mine, its in zip(ours, real, strict=True):
        assert (mine.node, mine.name, mine.protection, mine.tail) == (
            its.node,
            its.name,
            its.protection,
            its.tail,
        )
        assert mine.pages[1:] == its.pages[1:]  # free pages lag behind buddyinfo by the CPUs' private deltas
        assert mine.pagesets == its.pagesets
        assert [name for name, _ in mine.stats] == [name for name, _ in its.stats]
        assert [name for name, _ in mine.node_stats or ()] == [name for name, _ in its.node_stats or ()]
        deltas = sum(pageset.stat_threshold or 0 for pageset in its.pagesets or ())
        assert abs(mine.stat("nr_free_pages") - its.stat("nr_free_pages")) <= deltas
    empty = smp4["zoneinfo"].split("Node 0, zone  Movable\n")[1]
    real_empty = (SMP4 / "zoneinfo").read_text().split("Node 0, zone  Movable\n")[1]
    assert empty == real_empty


@pytest.mark.parametrize("name", ["vmstat", "meminfo"])
def test_counters_have_the_names_and_the_order_of_6_1(smp4: dict[str, str], name: str) -> None:
    real = (SMP4 / name).read_text()
    assert [line.split()[0] for line in smp4[name].splitlines()] == [
        line.split()[0] for line in real.splitlines()
    ]
    if name == "meminfo":
        units = [line.endswith(" kB") for line in real.splitlines()]
        assert [line.endswith(" kB") for line in smp4[name].splitlines()] == units


def test_counters_that_are_state_are_the_real_ones(smp4: dict[str, str]) -> None:
    ours, real = vmstat_of(smp4), parse_vmstat((SMP4 / "vmstat").read_text()).as_dict()
    mem, real_mem = meminfo_of(smp4), parse_meminfo((SMP4 / "meminfo").read_text()).as_dict()
    assert abs(ours["nr_free_pages"] - real["nr_free_pages"]) <= 3 * 4 * 125
    for name in ("MemTotal", "SwapTotal", "CommitLimit", "Hugepagesize", "HugePages_Total"):
        assert mem[name] == real_mem[name]


def test_what_is_written_can_be_read_as_a_machine(smp4: dict[str, str], tmp_path: Path) -> None:
    for name, text in smp4.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = load_machine(str(tmp_path))
    assert machine.nr_cpus == 4
    again = proc_files(make_mm(str(tmp_path), nr_cpus=4))
    for name in ("buddyinfo", "pagetypeinfo", "extfrag_index", "unusable_index", "sys/vm/min_free_kbytes"):
        assert again[name] == smp4[name]
    real, ours = parse_zoneinfo(smp4["zoneinfo"]).zones, parse_zoneinfo(again["zoneinfo"]).zones
    assert [(z.pages, z.pagesets) for z in ours] == [(z.pages, z.pagesets) for z in real]


# --- sums of the kernel's, against real files -----------------------------------------------------------


def totalreserve_pages(zones: tuple[ZoneInfo, ...]) -> int:
    """``calculate_totalreserve_pages()``."""
    highs = [zone.page_value("high") - zone.page_value("boost") for zone in zones]
    return sum(
        min(zone.managed, max(zone.protection[at:]) + highs[at])
        for at, zone in enumerate(zones)
        if zone.managed
    )


def captured() -> dict[str, dict[str, str]]:
    sections = split_sections((STATIC / "sections.txt").read_text(), "sections.txt")
    smp4 = {name: (SMP4 / name).read_text() for name in ("vmstat", "meminfo", "zoneinfo")}
    return {"after boot": smp4, "after pressure": {section.name: section.text for section in sections}}


@pytest.mark.parametrize("moment", ["after boot", "after pressure"])
def test_dirty_limits_and_available_memory_are_the_kernels(moment: str) -> None:
    files = captured()[moment]
    stats, zones = vmstat_of(files), parse_zoneinfo(files["zoneinfo"]).zones
    reserve = totalreserve_pages(zones)
    file = stats["nr_inactive_file"] + stats["nr_active_file"]
    assert global_dirty_limits(stats["nr_free_pages"], file, reserve, SysctlVm()) == (
        stats["nr_dirty_threshold"],
        stats["nr_dirty_background_threshold"],
    )
    wmark_low = sum(zone.page_value("low") for zone in zones)
    available = si_mem_available(stats, reserve, wmark_low)
    # The files were read one after another, so free memory may have changed between them.
    between = abs(stats["nr_free_pages"] * 4 - meminfo_of(files)["MemFree"])
    assert abs(available * 4 - meminfo_of(files)["MemAvailable"]) <= between + 64


def test_available_memory_keeps_half_of_a_small_cache_and_is_never_negative() -> None:
    stats = dict.fromkeys(
        ("nr_free_pages", "nr_active_file", "nr_inactive_file", "nr_slab_reclaimable", "nr_kernel_misc_reclaimable"), 0
    )  # fmt: skip
    assert si_mem_available(stats, 500, 100) == 0
    stats |= {"nr_free_pages": 500, "nr_active_file": 20, "nr_inactive_file": 30}
    assert si_mem_available(stats, 500, 100) == 25
    assert si_mem_available(stats | {"nr_inactive_file": 3000}, 500, 100) == 2920
    assert si_mem_available(stats | {"nr_slab_reclaimable": 900}, 500, 100) == 825


def test_dirty_limits_of_almost_no_memory() -> None:
    assert global_dirty_limits(100, 0, 500, SysctlVm()) == (0, 0)
    assert global_dirty_limits(100, 4, 500, SysctlVm()) == (0, 0)
    assert global_dirty_limits(100, 5, 500, SysctlVm()) == (1, 0)  # one page more counts as dirtyable
    assert global_dirty_limits(100, 10, 500, SysctlVm()) == (2, 1)


def test_indices_follow_from_buddyinfo_as_in_a_real_kernel() -> None:
    sections = {s.name: s.text for s in split_sections((STATIC / "2G" / "extfrag").read_text(), "extfrag")}
    rows = parse_buddyinfo((STATIC / "2G" / "buddyinfo").read_text()).rows
    for name, index in (("extfrag_index", fragmentation_index), ("unusable_index", unusable_free_index)):
        real = parse_index(sections[name], name)
        assert [(row.node, row.zone) for row in real] == [(row.node, row.zone) for row in rows]
        assert [row.index for row in real] == [
            tuple(index(row.nr_free, order) for order in range(11)) for row in rows
        ]
    assert format_extfrag_index(parse_index(sections["extfrag_index"])) == sections["extfrag_index"]
    assert format_unusable_index(parse_index(sections["unusable_index"])) == sections["unusable_index"]


def test_indices_of_fragmented_memory_are_worked_out_by_hand() -> None:
    """``__fragmentation_index()``: 1000 - (1000 + pages * 1000 / requested) / blocks, in whole numbers."""
    nr_free = [1000, 10] + [0] * 9
    assert fragmentation_index(nr_free, 1) == -1000
    assert fragmentation_index(nr_free, 2) == 1000 - (1000 + 1020 * 1000 // 4) // 1010
    assert fragmentation_index(nr_free, 10) == 1000 - (1000 + 1020 * 1000 // 1024) // 1010
    assert fragmentation_index([0] * 11, 3) == 0
    assert unusable_free_index(nr_free, 1) == 1000 * 1000 // 1020
    assert unusable_free_index(nr_free, 2) == 1000
    assert unusable_free_index([0] * 11, 3) == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n", "no row of a zone"),
        ("Node 0, zone      DMA 0.000 \n", "not a row of an index"),
        ("Node 0, zone      DMA" + " 0.000" * 10 + " 2.000\n", "order 10 is no index"),
        ("Node 0, zone      DMA" + " -0.500" * 11 + "\n", "order 0 is no index"),
        ("Node 0, zone      DMA" + " 0.0001" * 11 + "\n", "order 0 is no index"),
    ],
)
def test_what_is_no_index_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as fault:
        parse_index(text)
    assert fault.value.line == 1


# --- a machine that has worked --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worked() -> tuple[Mm, dict[str, str]]:
    """3000 pages of a file, 100 of them dirty; 2000 anonymous pages and one huge page; 50 blocks of order 3."""
    mm = make_mm("512M", nr_swap_pages=5000)
    file = mm.page_cache.open(3000)
    file.read(0, 3000)
    file.write(0, 100)
    mm.mmap_anonymous(2000).touch(0, 2000)
    mm.mmap_anonymous(512, thp=True).touch(0, 512)
    mm.alloc_pages_batch(gfp.GFP_KERNEL, 3, 50)
    return mm, proc_files(mm)


def test_vmstat_counts_what_was_done(worked: tuple[Mm, dict[str, str]]) -> None:
    mm, files = worked
    stats, before = vmstat_of(files), vmstat_of(proc_files(make_mm("512M", nr_swap_pages=5000)))
    grown = {name: value - before[name] for name, value in stats.items()}
    assert grown["nr_file_pages"] == 3000
    assert grown["nr_inactive_file"] + grown["nr_active_file"] == 3000
    assert grown["nr_zone_inactive_file"] + grown["nr_zone_active_file"] == 3000
    assert grown["nr_dirty"] == 100
    assert grown["nr_anon_pages"] == 2512
    assert grown["nr_anon_transparent_hugepages"] == 1
    assert grown["nr_inactive_anon"] + grown["nr_active_anon"] == 2512
    assert grown["thp_fault_alloc"] == 1
    assert grown["nr_page_table_pages"] == mm.memory.nr_page_table_pages
    slab = grown["nr_slab_reclaimable"] + grown["nr_slab_unreclaimable"]
    allocated = 3000 + 2512 + 400 + slab + mm.memory.nr_page_table_pages
    assert sum(grown[f"pgalloc_{zone}"] for zone in ("dma", "dma32", "normal", "movable")) == allocated
    # The CPUs' private deltas are left out, as in the kernel; a delta may be as large as the threshold.
    assert abs(grown["nr_free_pages"] + allocated) <= 2 * 125 + 600


def test_meminfo_is_vmstat_in_kib(worked: tuple[Mm, dict[str, str]]) -> None:
    mm, files = worked
    stats, mem = vmstat_of(files), meminfo_of(files)
    assert mem["MemTotal"] == sum(zone.managed_pages for zone in mm.pgdat.node_zones) * 4
    assert mem["MemFree"] == stats["nr_free_pages"] * 4
    assert mem["Cached"] == stats["nr_file_pages"] * 4 >= 12_000
    assert mem["Active"] == mem["Active(anon)"] + mem["Active(file)"]
    assert mem["Inactive"] == mem["Inactive(anon)"] + mem["Inactive(file)"]
    assert mem["Inactive(file)"] == stats["nr_inactive_file"] * 4
    assert mem["AnonPages"] == stats["nr_anon_pages"] * 4 == 10_048
    assert mem["AnonHugePages"] == 2048
    assert mem["Dirty"] == 400
    assert mem["PageTables"] == stats["nr_page_table_pages"] * 4
    assert (mem["SwapTotal"], mem["SwapFree"]) == (20_000, 20_000)
    assert mem["CommitLimit"] == mem["MemTotal"] // 4 * 50 // 100 * 4 + 20_000
    assert mem["MemAvailable"] < mem["MemFree"] + mem["Cached"]


def test_free_pages_of_all_files_agree(worked: tuple[Mm, dict[str, str]]) -> None:
    _, files = worked
    buddy = {row.zone: row.nr_free for row in parse_buddyinfo(files["buddyinfo"]).rows}
    (types,) = parse_pagetypeinfo(files["pagetypeinfo"]).nodes
    for zone, nr_free in buddy.items():
        of_types = [row.counts for row in types.free if row.zone == zone]
        assert tuple(map(sum, zip(*of_types, strict=True))) == nr_free
    zones = {zone.name: zone for zone in parse_zoneinfo(files["zoneinfo"]).zones}
    for zone, nr_free in buddy.items():
        pages = sum(n << order for order, n in enumerate(nr_free))
        deltas = sum(pageset.stat_threshold or 0 for pageset in zones[zone].pagesets or ())
        assert abs(zones[zone].page_value("free") - pages) <= deltas
    assert sum(zone.stat("nr_free_pages") for zone in zones.values()) == vmstat_of(files)["nr_free_pages"]
    for zone in zones.values():
        assert zone.stat("nr_free_pages") == (zone.page_value("free") if zone.present else 0)


def test_a_free_list_is_counted_to_100000_as_in_the_kernel() -> None:
    mm = make_mm("1G")
    pfns = np.sort(mm.alloc_pages_batch(gfp.GFP_HIGHUSER_MOVABLE & ~gfp.RECLAIM, 0, 250_000))
    mm.free_pages_batch(pfns[::2], 0)
    files = proc_files(mm)
    (row,) = [row for row in parse_buddyinfo(files["buddyinfo"]).rows if row.zone == "DMA32"]
    assert row.nr_free[0] > 100_000
    assert "Node    0, zone    DMA32, type      Movable >100000 " in files["pagetypeinfo"]
    (types,) = parse_pagetypeinfo(files["pagetypeinfo"]).nodes
    (movable,) = [each for each in types.free if (each.zone, each.migratetype) == ("DMA32", "Movable")]
    assert movable.counts[0] == 100_000
    assert movable.capped == (True, *(False,) * 10)


def test_a_node_that_was_given_up_is_unreclaimable() -> None:
    mm = make_mm("256M")
    for failures, said in ((15, 0), (16, 1)):
        mm.pgdat.kswapd_failures = failures
        text = proc_files(mm)["zoneinfo"]
        assert text.count(f"\n  node_unreclaimable:  {said}\n") == 2
