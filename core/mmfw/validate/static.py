"""Watermarks, reserves and per-CPU list sizes of freshly booted machines, recomputed and compared.

A capture is a folder with ``zoneinfo``, ``sys_vm`` and ``capture.json``. The simulator is told how many pages
each zone manages, how many of them boot freed only after it had set watermarks (``late_freed_pages``, all
in DMA32) and how many CPUs there are. Everything else it must find by itself: khugepaged runs, and raises
``min_free_kbytes``, if the machine has 512 MiB or more and the command line does not forbid it.

Every figure must be equal. A protection with no zone to protect against is 0 by construction: compared,
not counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfw.errors import InputError
from mmfw.machine.jsonread import Node
from mmfw.mm.sizing import boot_sizes
from mmfw.proc.sysctl import SysVm, parse_sys_vm
from mmfw.proc.text import read_text
from mmfw.proc.zoneinfo import ZoneInfo, parse_zoneinfo
from mmfw.state import MAX_NR_ZONES, ZONE_NAMES, ZoneType
from mmfw.validate.common import Comparison


@dataclass(frozen=True, slots=True)
class Figure:
    """Name of one figure.

    Attributes
    ----------
    counter : str
        The kernel's name.
    zone : str
        Zone, or empty for a figure of the whole machine.
    index : int or None
        CPU of a per-CPU figure, or zone index of a protection.
    """

    counter: str
    zone: str = ""
    index: int | None = None

    def trivial(self, populated: Sequence[bool]) -> bool:
        """Whether the figure is 0 by construction: a protection from zones that do not exist.

        Parameters
        ----------
        populated : sequence of bool
            By zone index, whether the zone has present pages.
        """
        if self.counter != "lowmem_reserve" or self.index is None:
            return False
        return not any(populated[ZONE_NAMES.index(self.zone) + 1 : self.index + 1])


@dataclass(frozen=True, slots=True)
class StaticInputs:
    """What the simulator is told about a captured machine.

    Attributes
    ----------
    managed : tuple of int
        ``managed_pages`` by zone index, at the end of boot.
    populated : tuple of bool
        By zone index, whether the zone has present pages.
    late_freed_pages : int
        Pages of DMA32 that were freed after watermarks were set.
    nr_cpus : int
        Online CPUs.
    transparent_hugepage : bool
        Whether the command line leaves THP on.
    """

    managed: tuple[int, ...]
    populated: tuple[bool, ...]
    late_freed_pages: int
    nr_cpus: int
    transparent_hugepage: bool


@dataclass(frozen=True, slots=True)
class StaticCapture:
    """A capture: its name, what the simulator is told, and the figures to find."""

    name: str
    inputs: StaticInputs
    figures: dict[Figure, int]


def read_static_capture(path: Path) -> StaticCapture:
    """Read a capture's folder.

    Raises
    ------
    InputError
        A file is missing or wrong.
    """
    about = path / "capture.json"
    try:
        document: object = json.loads(read_text(about))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", file=str(about)) from error
    node = Node(document, "", str(about))
    late_freed = node.key("late_freed_pages").integer()
    zone_path = path / "zoneinfo"
    zones = [zone for zone in parse_zoneinfo(read_text(zone_path), str(zone_path)).zones if zone.present]
    managed, populated = [0] * MAX_NR_ZONES, [False] * MAX_NR_ZONES
    for zone in zones:
        if zone.node != 0 or zone.name not in ZONE_NAMES:
            raise InputError(
                f"node {zone.node}, zone {zone.name}: captures of one x86-64 node can be compared",
                file=str(zone_path),
                line=zone.line,
            )
        managed[ZONE_NAMES.index(zone.name)] = zone.managed
        populated[ZONE_NAMES.index(zone.name)] = True
    if late_freed > managed[ZoneType.DMA32]:
        raise node.key("late_freed_pages").error(
            f"is {late_freed}, but zone DMA32 manages {managed[ZoneType.DMA32]} pages"
        )
    sysctl_path = path / "sys_vm"
    sysctls = parse_sys_vm(read_text(sysctl_path), str(sysctl_path))
    cmdline = path / "cmdline"
    options = read_text(cmdline).split() if cmdline.is_file() else []
    inputs = StaticInputs(
        tuple(managed),
        tuple(populated),
        late_freed,
        node.key("smp").integer(low=1, high=8192),
        "transparent_hugepage=never" not in options,
    )
    return StaticCapture(node.key("name").text(), inputs, _captured(zones, sysctls))


def _captured(zones: list[ZoneInfo], sysctls: SysVm) -> dict[Figure, int]:
    minimum = sysctls.value("min_free_kbytes")
    if minimum is None:
        raise InputError("has no line 'min_free_kbytes'", file=sysctls.file)
    figures = {Figure("min_free_kbytes"): minimum}
    for zone in zones:
        boost = zone.page_value("boost")
        for mark in ("min", "low", "high"):
            figures[Figure(mark, zone.name)] = zone.page_value(mark) - boost
        for index, pages in enumerate(zone.protection):
            figures[Figure("lowmem_reserve", zone.name, index)] = pages
        for pageset in zone.pagesets or ():
            figures[Figure("pcp_high", zone.name, pageset.cpu)] = pageset.high
            figures[Figure("pcp_batch", zone.name, pageset.cpu)] = pageset.batch
            if pageset.stat_threshold is not None:
                figures[Figure("stat_threshold", zone.name, pageset.cpu)] = pageset.stat_threshold
    return figures


def derive_figures(inputs: StaticInputs) -> dict[Figure, int]:
    """Figures that the kernel's formulas give for a machine.

    Parameters
    ----------
    inputs : StaticInputs
        The machine.
    """
    managed = list(inputs.managed)
    managed[ZoneType.DMA32] -= inputs.late_freed_pages
    sizes = boot_sizes(
        managed,
        inputs.nr_cpus,
        nr_populated_zones=sum(inputs.populated[: ZoneType.NORMAL + 1]),
        transparent_hugepage=inputs.transparent_hugepage,
    )
    figures = {Figure("min_free_kbytes"): sizes.min_free_kbytes}
    for name, populated, zone in zip(ZONE_NAMES, inputs.populated, sizes.zones, strict=True):
        if not populated:
            continue
        figures[Figure("min", name)] = zone.watermark.min
        figures[Figure("low", name)] = zone.watermark.low
        figures[Figure("high", name)] = zone.watermark.high
        for index, pages in enumerate(zone.lowmem_reserve):
            figures[Figure("lowmem_reserve", name, index)] = pages
        for cpu in range(inputs.nr_cpus):
            figures[Figure("pcp_high", name, cpu)] = zone.pageset_high
            figures[Figure("pcp_batch", name, cpu)] = zone.pageset_batch
            figures[Figure("stat_threshold", name, cpu)] = zone.stat_threshold
    return figures


def compare_static(capture: StaticCapture, simulated: dict[Figure, int]) -> list[Comparison]:
    """Compare all of a capture's figures; one that the simulator does not know counts as 0 and as wrong."""
    comparisons = []
    for figure, real in capture.figures.items():
        labels = {"figure": "sizing"}
        if figure.zone:
            labels["zone"] = figure.zone
        if figure.index is not None:
            labels["index" if figure.counter == "lowmem_reserve" else "cpu"] = str(figure.index)
        comparisons.append(
            Comparison(
                experiment=f"static/{capture.name}",
                labels=labels,
                counter=figure.counter,
                real=real,
                simulated=simulated.get(figure, 0),
                within=simulated.get(figure) == real,
                counted=not figure.trivial(capture.inputs.populated),
            )
        )
    return comparisons


def validate_static(path: Path) -> list[Comparison]:
    """Compare one captured machine, figure by figure.

    Parameters
    ----------
    path : Path
        The capture's folder.

    Raises
    ------
    InputError
        A file of the capture is missing or wrong.
    """
    capture = read_static_capture(path)
    return compare_static(capture, derive_figures(capture.inputs))
