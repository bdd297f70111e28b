"""What mmfw loads: settings, khugepaged, the huge zero page with its shrinker, loads and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import Metric, PluginInfo, Workload, hookimpl
from mmfw.mm.vmstat import VmEvent
from mmfw_thp.cache_reader import CacheReaderParams, thp_cache_reader
from mmfw_thp.huge_zero_page import SUBSYSTEM, HugeZeroPage, HugeZeroPageShrinker
from mmfw_thp.khugepaged import Khugepaged
from mmfw_thp.settings import ThpEnabled, ThpParams
from mmfw_thp.workloads import (
    FaultStormParams,
    Storm,
    ZeroReaderParams,
    thp_fault_storm,
    thp_zero_reader,
)

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="thp", hook_api=(1, 0), kind="shrinker")


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[ThpParams]:
    """The settings."""
    return ThpParams


@hookimpl
def mmfw_module_init(mm: Mm, params: ThpParams) -> None:
    """Apply the settings, register "thp-zero", start khugepaged (``hugepage_init()``, ``start_stop_khugepaged()``)."""
    thp = mm.memory.thp
    thp.defrag = params.defrag
    thp.khugepaged_defrag = params.khugepaged_defrag
    thp.max_ptes_none = params.max_ptes_none
    thp.max_ptes_swap = params.max_ptes_swap
    page = HugeZeroPage(mm)
    mm.ledger.hold(SUBSYSTEM, lambda: page.nr_pages)
    mm.attached.put(page)
    mm.attached.put(Storm(params))
    mm.attached.put(_Registered(mm.register_shrinker(HugeZeroPageShrinker(page), "thp-zero")))
    if params.khugepaged and params.enabled is not ThpEnabled.NEVER:
        khugepaged = Khugepaged(
            mm,
            pages_to_scan=params.pages_to_scan,
            scan_sleep_millisecs=params.scan_sleep_millisecs,
            alloc_sleep_millisecs=params.alloc_sleep_millisecs,
        )
        mm.attached.put(khugepaged)
        mm.kthread_run(khugepaged.run, "khugepaged")


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Programs that use huge pages."""
    yield Workload(
        "thp-fault-storm",
        "Fault fresh anonymous memory in, give it back, and again",
        run=thp_fault_storm,
        params=FaultStormParams,
    )
    yield Workload(
        "thp-cache-reader",
        "Read a file that is in the page cache at first, round and round",
        run=thp_cache_reader,
        params=CacheReaderParams,
    )
    yield Workload(
        "thp-zero-reader",
        "Read 2 MiB that were never written, one short program after another",
        run=thp_zero_reader,
        params=ZeroReaderParams,
    )


def _of_storm(read: Callable[[Storm], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        storm = mm.attached.get(Storm)
        return 0 if storm is None else read(storm)

    return from_mm


def _of_khugepaged(read: Callable[[Khugepaged], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        khugepaged = mm.attached.get(Khugepaged)
        return 0 if khugepaged is None else read(khugepaged)

    return from_mm


def _fallback_ratio(mm: Mm) -> float:
    failed = mm.vmstat[VmEvent.thp_fault_fallback]
    return failed / max(1, failed + mm.vmstat[VmEvent.thp_fault_alloc])


def _stalls(mm: Mm) -> int:
    return sum(mm.vmstat[event] for event in VmEvent if event.name.startswith("allocstall_"))


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Faults and their fallback, stalls, khugepaged."""
    yield Metric(
        "thp_fault_alloc",
        "1",
        "counter",
        "higher",
        "Faults that got a huge page",
        read=lambda mm: mm.vmstat[VmEvent.thp_fault_alloc],
    )
    yield Metric(
        "thp_fault_fallback",
        "1",
        "counter",
        "lower",
        "Faults that wanted a huge page and fell back to single pages",
        read=lambda mm: mm.vmstat[VmEvent.thp_fault_fallback],
    )
    yield Metric(
        "thp_fallback_ratio", "1", "ratio", "lower", "Share of the latter in both", read=_fallback_ratio
    )
    yield Metric("thp_allocstalls", "1", "counter", "lower", "Entries of direct reclaim", read=_stalls)
    yield Metric(
        "thp_compact_stalls",
        "1",
        "counter",
        "lower",
        "Entries of direct compaction (compact_stall)",
        read=lambda mm: mm.vmstat[VmEvent.compact_stall],
    )
    yield Metric(
        "thp_pages_faulted",
        "pages",
        "counter",
        "higher",
        "Pages that fault storms wrote first",
        read=_of_storm(lambda storm: storm.pages_faulted),
    )
    yield Metric(
        "thp_storm_rounds",
        "1",
        "counter",
        "higher",
        "Times that a fault storm had all of its memory",
        read=_of_storm(lambda storm: storm.rounds),
    )
    yield Metric(
        "thp_khugepaged_collapsed",
        "1",
        "counter",
        "higher",
        "Huge pages that khugepaged made",
        read=_of_khugepaged(lambda khugepaged: khugepaged.stats.pages_collapsed),
    )
    yield Metric(
        "thp_khugepaged_full_scans",
        "1",
        "counter",
        "neither",
        "Times that khugepaged went through all address spaces",
        read=_of_khugepaged(lambda khugepaged: khugepaged.stats.full_scans),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Free the huge zero page and unregister its shrinker."""
    page, registered = mm.attached.get(HugeZeroPage), mm.attached.get(_Registered)
    if page is not None and registered is not None:
        page.release()
        mm.unregister_shrinker(registered.shrinker)
