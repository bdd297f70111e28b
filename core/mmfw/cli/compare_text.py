"""A comparison as tables for a terminal of 120 columns: what decides, and beside it what that cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw.compare.statistics import TOO_FEW, alike_words, results_words
from mmfw.policies import MAINLINE

if TYPE_CHECKING:
    from mmfw.compare import Comparison
    from mmfw.compare.model import Cell, StudyScenario

#: Columns of a terminal that figures may take; what does not fit goes into a further table.
WIDTH: Final = 120
#: Between two columns.
_GAP: Final = "  "
SUCCESS: Final = "success_ratio_order_9"
#: Shown in every scenario that has requests of order 9 or 10, with heading and factor: a policy under which such requests
#: fail sooner, or wait longer, loses less.
_BESIDE: Final = {
    SUCCESS: ("success S, %", 100),
    "direct_stall_ns": ("direct stall, ms", 1e-6),
    "working_set_loss_pages": ("loss W, pages", 1),
}

Cells = Mapping[tuple[str, str], "Cell"]


def comparison_text(found: Comparison) -> list[str]:
    """Lines of all tables, and what is to know of them."""
    seeds = found.study.seeds
    nr = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    asked = found.study
    how = "short durations" if asked.short else f"{asked.duration} each" if asked.duration else ""
    lines = [
        f"{nr}, {how + ', ' if how else ''}differences to mainline of the same seed with their intervals",
    ]
    if asked.short:
        lines.append(
            "  a policy may have done nothing yet in so short a time: its own figures in compare.json say"
        )
    for scenario in found.study.scenarios:
        table = _Scenario(found, scenario)
        lines += ["", f"{scenario.name}: {scenario.description}", *table.primary()]
        beside = table.beside()
        lines += ["", *beside] if beside else []
    left_out = dict.fromkeys(each.why for each in found.applicability if each.acts and each.why)
    if left_out:
        lines += ["", "* leaves out what changes nothing in a scenario; compare.json says what"]
    if found.missing:
        failed = dict.fromkeys((each.scenario, each.policy) for each in found.missing)
        lines += ["", "runs that failed are missing from: " + ", ".join(f"{s} with {p}" for s, p in failed)]
    lines += ["", found.method]
    if len(seeds) < 5:
        lines.append("With fewer than 5 seeds there is no verdict.")
    return lines


@dataclass(frozen=True, slots=True)
class _Group:
    """Columns under one heading: their names, and a row for each policy."""

    head: str
    names: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def widths(self) -> list[int]:
        """Of the columns; the first is wide enough for the heading."""
        found = [max(len(row[i]) for row in (self.names, *self.rows)) for i in range(len(self.names))]
        found[0] += max(0, len(self.head) - sum(found) - len(_GAP) * (len(found) - 1))
        return found

    def lines(self) -> Iterator[str]:
        """Heading, names and rows, each as wide as the others."""
        widths = self.widths()
        yield f"{self.head:>{sum(widths) + len(_GAP) * (len(widths) - 1)}}"
        for row in (self.names, *self.rows):
            yield _GAP.join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True))


class _Scenario:
    """Tables of one scenario."""

    def __init__(self, found: Comparison, scenario: StudyScenario) -> None:
        self._scenario = scenario
        self._cells: Cells = {
            (cell.policy, cell.metric): cell for cell in found.cells if cell.scenario == scenario.name
        }
        self._policies = [policy.name for policy in found.study.policies]
        applies = {each.policy: each for each in found.applicability if each.scenario == scenario.name}
        self._acts = {name: name not in applies or applies[name].acts for name in self._policies}
        marked = {name for name, each in applies.items() if each.acts and each.why}
        self._labels = [name + (" *" if name in marked else "") for name in self._policies]

    def primary(self) -> list[str]:
        """The figures that decide: three columns for each, under its name."""
        groups = []
        for name in self._scenario.primary:
            rows = [
                _columns(self._cells.get((policy, name)), acts=self._acts[policy])
                for policy in self._policies
            ]
            groups.append(_Group(self._head(name), ("median", "difference", "verdict"), rows))
        return _tables(self._labels, groups)

    def beside(self) -> list[str]:
        """Success and stalls beside loss, and how the figures fared that no table shows."""
        cells = self._cells
        asked = any(cell.median is not None for cell in cells.values() if cell.metric == SUCCESS)
        known = {metric for _, metric in cells}
        shown = [name for name in _BESIDE if name in known] if asked else []
        groups = [
            _Group("", (_BESIDE[name][0],), [(self._brief(policy, name),) for policy in self._policies])
            for name in shown
        ]
        hidden = known - {*shown, *self._scenario.primary}
        if any(cell.verdict for cell in cells.values()):
            counts = [(self._count(policy, hidden),) for policy in self._policies]
            groups.append(_Group("", (f"of {len(hidden)} other figures",), counts))
        lines = [line for line in _tables(self._labels, groups) if line.strip()]
        if not lines:
            return []
        what = "medians, with their verdict where it is better or worse; " if shown else ""
        return [f"  beside it: {what}all are in compare.json", *lines]

    def _brief(self, policy: str, name: str) -> str:
        cell = self._cells.get((policy, name))
        if cell is None or cell.median is None:
            return "-"
        text = _number(cell.median, _BESIDE[name][1])
        word = cell.verdict if self._acts[policy] and cell.verdict in ("better", "worse") else ""
        return f"{word} {text}".lstrip()

    def _count(self, policy: str, names: set[str]) -> str:
        """How many of these got better, and how many worse."""
        found = [self._cells[policy, name].verdict for name in sorted(names) if (policy, name) in self._cells]
        if policy == MAINLINE or not self._acts[policy]:
            return ""
        if not any(found):
            return "no verdict"
        return f"{found.count('better')} better, {found.count('worse')} worse"

    def _head(self, name: str) -> str:
        """A figure's name, its unit, and which direction is an improvement."""
        cell = next((each for (_, metric), each in self._cells.items() if metric == name), None)
        if cell is None:
            return name
        unit = "%" if _is_share(cell) else "" if cell.unit in ("1", "ratio") else cell.unit
        better = "" if cell.better == "neither" else f" ({cell.better} is better)"
        return name + (f", {unit}" if unit else "") + better


def _tables(labels: Sequence[str], groups: Sequence[_Group]) -> list[str]:
    """Groups beside each other as far as they fit, the others below."""
    first = max(len(label) for label in labels)
    lines: list[str] = []
    row: list[_Group] = []

    def put() -> None:
        columns = zip(*(group.lines() for group in row), strict=True)
        for label, texts in zip(("", "", *labels), columns, strict=True):
            lines.append((_GAP + _GAP.join((f"{label:<{first}}", *texts))).rstrip())

    used = first + len(_GAP)
    for group in groups:
        widths = group.widths()
        width = sum(widths) + len(_GAP) * len(widths)
        if row and used + width > WIDTH:
            put()
            lines.append("")
            row, used = [], first + len(_GAP)
        row.append(group)
        used += width
    if row:
        put()
    return lines


def _columns(cell: Cell | None, *, acts: bool) -> tuple[str, str, str]:
    """Median, difference with its interval or what stands in its place, and verdict."""
    if cell is None:
        return "-", "-", "-"
    times = 100 if _is_share(cell) else 1
    alike = alike_words(cell.values, cell.nr_results)
    median = _number(cell.median, times) + (f" ({alike})" if alike else "")
    if not acts:
        return median, "", "does not act here"
    against = cell.vs_mainline
    if against is None:
        return median, "", "" if cell.policy == MAINLINE else TOO_FEW
    bounds = "" if against.ci is None else " [{}, {}]".format(*(_signed(end, times) for end in against.ci))
    said = results_words(against.nr_pairs, against.nr_results)
    bounds += f" ({said})" if said else ""
    return median, _signed(against.median_difference, times) + bounds, cell.verdict or TOO_FEW


def _is_share(cell: Cell) -> bool:
    """Whether it is shown in percent."""
    return cell.kind == "share" and cell.unit == "1"


def _number(value: float | None, times: float = 1) -> str:
    if value is None:
        return "-"
    value *= times
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def _signed(value: float, times: float = 1) -> str:
    return ("+" if value > 0 else "") + _number(value, times)
