"""``/proc/zoneinfo``: every zone's size, watermarks, counters and per-CPU lists.

Printed by ``zoneinfo_show_print()`` (mm/vmstat.c).

Kernels differ in which lines they print. The fields that a machine description needs are attributes;
all lines of the regular groups, known or not, are kept in order, so that the text comes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import Line, split_lines

Entries = tuple[tuple[str, int], ...]

_NODE: Final = re.compile(r"Node +([0-9]{1,6}), +zone +(\w+)", re.ASCII)
_STAT: Final = re.compile(r" {6}(\w+) +(\S+)", re.ASCII)
_FREE: Final = re.compile(r" +pages free +(\S+)", re.ASCII)
_PAGES: Final = re.compile(r" {8}(\w+) +(\S+)", re.ASCII)
_PROTECTION: Final = re.compile(r" +protection: \(([^()]*)\)", re.ASCII)
_CPU: Final = re.compile(r" {4}cpu: +(\S+)", re.ASCII)
_PCP: Final = re.compile(r" {14}(\w+): +(\S+)", re.ASCII)
_THRESHOLD: Final = re.compile(r" +vm stats threshold: +(\S+)", re.ASCII)
_TAIL: Final = re.compile(r" {2}(\w+): +(\S+)", re.ASCII)

_NEEDED: Final = ("free", "min", "low", "high", "spanned", "present", "managed")
_PCP_NEEDED: Final = ("count", "high", "batch")


def _get(entries: Entries, name: str, default: int = 0) -> int:
    return next((value for key, value in entries if key == name), default)


@dataclass(frozen=True, slots=True)
class PagesetInfo:
    """One CPU's page lists.

    Attributes
    ----------
    cpu : int
        CPU number.
    fields : tuple of (str, int)
        ``count``, ``high``, ``batch`` in pages; 6.7 and later add ``high_min`` and ``high_max``.
    stat_threshold : int or None
        ``vm stats threshold``; None from a kernel without SMP.
    """

    cpu: int
    fields: Entries
    stat_threshold: int | None

    @property
    def count(self) -> int:
        """Pages on the lists."""
        return _get(self.fields, "count")

    @property
    def high(self) -> int:
        """``pcp->high``, in pages."""
        return _get(self.fields, "high")

    @property
    def batch(self) -> int:
        """``pcp->batch``, in pages."""
        return _get(self.fields, "batch")


@dataclass(frozen=True, slots=True)
class ZoneInfo:
    """One zone.

    Attributes
    ----------
    node : int
        NUMA node.
    name : str
        Zone name.
    node_stats : tuple of (str, int), or None
        Per-node counters; only the first populated zone of a node has them.
    pages : tuple of (str, int)
        From ``free`` to ``managed`` and ``cma``: pages. ``min``, ``low``, ``high`` include ``boost``.
    protection : tuple of int
        ``lowmem_reserve``, in pages.
    stats : tuple of (str, int)
        Per-zone counters; none for an unpopulated zone.
    pagesets : tuple of PagesetInfo, or None
        One for each online CPU; None for an unpopulated zone.
    tail : tuple of (str, int)
        ``node_unreclaimable``, ``start_pfn`` and what later kernels add.
    line : int
        Line of the zone's heading.
    """

    node: int
    name: str
    node_stats: Entries | None
    pages: Entries
    protection: tuple[int, ...]
    stats: Entries
    pagesets: tuple[PagesetInfo, ...] | None
    tail: Entries
    line: int = 0

    def page_value(self, name: str) -> int:
        """One entry of `pages`; 0 if this kernel does not print it."""
        return _get(self.pages, name)

    def stat(self, name: str) -> int:
        """One entry of `stats`; 0 if this kernel does not print it."""
        return _get(self.stats, name)

    @property
    def spanned(self) -> int:
        """``spanned_pages``."""
        return self.page_value("spanned")

    @property
    def present(self) -> int:
        """``present_pages``; a zone with none is unpopulated."""
        return self.page_value("present")

    @property
    def managed(self) -> int:
        """``managed_pages``."""
        return self.page_value("managed")

    @property
    def start_pfn(self) -> int:
        """``zone_start_pfn``; 0 for an unpopulated zone."""
        return _get(self.tail, "start_pfn")


@dataclass(frozen=True, slots=True)
class ZoneInfoFile:
    """The file: its zones in the order printed, and its name for messages."""

    zones: tuple[ZoneInfo, ...]
    file: str = "zoneinfo"


class _Reader:
    """The lines of one zone, read group by group."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines
        self._at = 0

    def line(self) -> Line | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def match(self, pattern: re.Pattern[str]) -> tuple[Line, re.Match[str]] | None:
        line = self.line()
        if line is None or (match := pattern.fullmatch(line.text)) is None:
            return None
        self._at += 1
        return line, match

    def need(self, pattern: re.Pattern[str], what: str) -> tuple[Line, re.Match[str]]:
        found = self.match(pattern)
        if found is None:
            line = self.line()
            if line is None:
                raise self._lines[-1].error(
                    f"the zone ends here, but {what} should follow; copy the whole file"
                )
            raise line.error(f"{what} should stand here")
        return found

    def literal(self, text: str) -> bool:
        line = self.line()
        if line is None or line.text != text:
            return False
        self._at += 1
        return True

    def entries(self, pattern: re.Pattern[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        while (hit := self.match(pattern)) is not None:
            line, match = hit
            if match[1] in found:
                raise line.error(f"{match[1]} occurs a second time in this zone")
            found[match[1]] = line.unsigned(match[2], match[1])
        return found


def parse_zoneinfo(text: str, file: str = "zoneinfo", first_line: int = 1) -> ZoneInfoFile:
    """Read ``/proc/zoneinfo``.

    Parameters
    ----------
    text : str
        The file's text.
    file : str
        Name for error messages.
    first_line : int
        Number of the text's first line in `file`.

    Raises
    ------
    InputError
        A group of lines is missing, cut or out of place; an entry or a zone occurs twice.
    """
    lines = [line for line in split_lines(text, file, first_line) if line.text]
    if not lines:
        raise InputError("no zone; copy the file again", file=file, line=first_line)
    if _NODE.fullmatch(lines[0].text) is None:
        raise lines[0].error("zoneinfo starts with 'Node N, zone NAME'")
    starts = [i for i, line in enumerate(lines) if _NODE.fullmatch(line.text) is not None]
    zones: list[ZoneInfo] = []
    seen: dict[tuple[int, str], int] = {}
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        zone = _parse_zone(_Reader(lines[start:end]))
        if (zone.node, zone.name) in seen:
            raise lines[start].error(
                f"node {zone.node}, zone {zone.name} was already on line {seen[zone.node, zone.name]}"
            )
        seen[zone.node, zone.name] = zone.line
        zones.append(zone)
    return ZoneInfoFile(tuple(zones), file)


def _parse_zone(reader: _Reader) -> ZoneInfo:
    heading, match = reader.need(_NODE, "'Node N, zone NAME'")
    node_stats: Entries | None = None
    if reader.literal("  per-node stats"):
        node_stats = tuple(reader.entries(_STAT).items())
    line, free = reader.need(_FREE, "'pages free'")
    pages = {"free": line.unsigned(free[1], "pages free")}
    for name, value in reader.entries(_PAGES).items():
        if name in pages:
            raise line.error(f"{name} occurs a second time in this zone")
        pages[name] = value
    for name in _NEEDED:
        if name not in pages:
            raise heading.error(f"zone {match[2]} has no line {name!r}; copy the whole file")
    line, values = reader.need(_PROTECTION, "'protection: (...)'")
    protection = tuple(line.unsigned(word.strip(), "protection") for word in values[1].split(","))
    stats = tuple(reader.entries(_STAT).items())
    pagesets = _parse_pagesets(reader) if reader.literal("  pagesets") else None
    tail = reader.entries(_TAIL)
    following = reader.line()
    if following is not None:
        raise following.error("no line that zoneinfo prints at this place")
    if pages["present"] and (not pagesets or "start_pfn" not in tail):
        lacks = "pagesets" if not pagesets else "start_pfn"
        raise heading.error(f"zone {match[2]} has present pages but no {lacks}; copy the whole file")
    return ZoneInfo(
        int(match[1]),
        match[2],
        node_stats,
        tuple(pages.items()),
        protection,
        stats,
        pagesets,
        tuple(tail.items()),
        heading.number,
    )


def _parse_pagesets(reader: _Reader) -> tuple[PagesetInfo, ...]:
    pagesets: dict[int, PagesetInfo] = {}
    while (hit := reader.match(_CPU)) is not None:
        line, match = hit
        cpu = line.unsigned(match[1], "cpu")
        if cpu in pagesets:
            raise line.error(f"cpu {cpu} occurs a second time in this zone")
        fields = reader.entries(_PCP)
        for name in _PCP_NEEDED:
            if name not in fields:
                raise line.error(f"cpu {cpu} has no line {name!r}; copy the whole file")
        threshold = None
        if (found := reader.match(_THRESHOLD)) is not None:
            threshold = found[0].unsigned(found[1][1], "vm stats threshold")
        pagesets[cpu] = PagesetInfo(cpu, tuple(fields.items()), threshold)
    return tuple(pagesets.values())


def format_zoneinfo(info: ZoneInfoFile) -> str:
    """Text as the kernel prints it."""
    return "".join(_format_zone(zone) for zone in info.zones)


def _format_zone(zone: ZoneInfo) -> str:
    out = [f"Node {zone.node}, zone {zone.name:>8}"]
    if zone.node_stats is not None:
        out.append("  per-node stats")
        out += [f"      {name:<12} {value}" for name, value in zone.node_stats]
    for name, value in zone.pages:
        out.append(f"  pages free     {value}" if name == "free" else f"        {name:<8} {value}")
    out.append(f"        protection: ({', '.join(map(str, zone.protection))})")
    out += [f"      {name:<12} {value}" for name, value in zone.stats]
    if zone.pagesets is not None:
        out.append("  pagesets")
        for pageset in zone.pagesets:
            out.append(f"    cpu: {pageset.cpu}")
            width = max(len(name) for name, _ in pageset.fields) + 2
            out += [f"              {name + ':':<{width}}{value}" for name, value in pageset.fields]
            if pageset.stat_threshold is not None:
                out.append(f"  vm stats threshold: {pageset.stat_threshold}")
    out += [f"  {name + ':':<20} {value}" for name, value in zone.tail]
    return "\n".join(out) + "\n"
