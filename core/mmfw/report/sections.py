"""A scenario's part of a comparison's page: its tables of metrics, its row of the matrix, what its figures draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from mmfw.compare.model import Cell, StudyScenario
from mmfw.policies import MAINLINE
from mmfw.report.page import json_for_html
from mmfw.report.panels import choose_panels
from mmfw.report.run_page import ScenarioNames, scenario_names, step_words
from mmfw.report.study import Study
from mmfw.report.verdicts import Head, Shown, head_of, shown, tally
from mmfw.report.view import pack_view
from mmfw.results import RunDirectory

#: Success and loss stand side by side: a policy whose requests fail at once loses less.
SUCCESS: Final = "success_ratio_order_9"
LOSS: Final = "working_set_loss_pages"
#: Shown in every scenario, after its primary metrics; the others are folded.
_ALWAYS: Final = (
    SUCCESS, LOSS, "forward_progress_per_second", "kswapd_busy_ratio", "direct_stall_ns", "latency_p99_ns_order_9",
    "free_blocks_order_9", "oom_kills", "order_0_failures",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A policy's row in a table of metrics.

    Attributes
    ----------
    nr : int
        Number of the policy; part of the row's anchor.
    name, note : str
        The policy, and what else is to say of it here.
    instead : str
        What stands in place of figures.
    cells : list of Shown or None
        By column.
    """

    nr: int
    name: str
    note: str
    instead: str
    cells: list[Shown | None]


@dataclass(frozen=True, slots=True)
class Part:
    """A table of metrics."""

    title: str
    heads: list[Head]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A cell of the matrix.

    Attributes
    ----------
    target : str
        Anchor of its details.
    note : str
        What is said in place of verdicts.
    primary : list of Shown
        Verdicts of the scenario's primary metrics.
    others : list of str
        How other metrics fared.
    """

    target: str
    note: str = ""
    primary: list[Shown] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a section's figures draw.

    Attributes
    ----------
    choices : list of (int, str)
        Policies that can be drawn beside mainline.
    first_choice : int
        The one drawn at first.
    seed, interval : str
        Seed of the drawn runs, and how far points of the series lie apart.
    said : list of str
        What is missing.
    data : markupsafe.Markup
        What the page's script reads.
    validated, not_modelled : tuple of str
        What the runs say of themselves.
    """

    choices: list[tuple[int, str]]
    first_choice: int
    seed: str
    interval: str
    said: list[str]
    data: Any = field(repr=False)
    validated: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()


class Section:
    """A scenario's section.

    Parameters
    ----------
    study : Study
        Of which.
    nr : int
        Its number, which its anchor has.
    scenario : StudyScenario
        The scenario.
    """

    def __init__(self, study: Study, nr: int, scenario: StudyScenario) -> None:
        self.id = f"s{nr}"
        self.name = scenario.name
        self.description = scenario.description
        self._study = study
        self._cells: dict[str, dict[str, Cell]] = {policy: {} for policy in study.policies}
        for cell in study.comparison.cells:
            if cell.scenario == self.name and cell.policy in self._cells:
                self._cells[cell.policy][cell.metric] = cell
        self._applies = {
            each.policy: each for each in study.comparison.applicability if each.scenario == self.name
        }
        self._failed = {
            (each.policy, each.seed) for each in study.comparison.missing if each.scenario == self.name
        }
        main, rest = self._heads()
        self.primary = [head for head in main if head.primary]
        self.main = self._part("Metrics", main)
        self.rest = self._part("Other metrics", rest)
        self.drawing = self._drawing()

    def _acts(self, policy: str) -> bool:
        return policy not in self._applies or self._applies[policy].acts

    def _heads(self) -> tuple[list[Head], list[Head]]:
        """Columns that are shown, and those that are folded."""
        first: dict[str, Cell] = {}
        for cells in self._cells.values():
            for metric, cell in cells.items():
                first.setdefault(metric, cell)
        names = [metric for metric, cell in first.items() if cell.primary]
        names += [metric for metric in _ALWAYS if metric in first and metric not in names]
        if SUCCESS in names and LOSS in names:
            names.remove(SUCCESS)
            names.insert(names.index(LOSS), SUCCESS)
        rest = [head_of(cell) for metric, cell in first.items() if metric not in names]
        return [head_of(first[name]) for name in names], rest

    def _note(self, policy: str) -> str:
        """What was left out of a policy here, and which of its runs failed."""
        applies = self._applies.get(policy)
        notes = [applies.why] if applies is not None and applies.acts and applies.why else []
        failed = sorted(seed for name, seed in self._failed if name == policy)
        if failed:
            notes.append(f"failed with seed {', '.join(map(str, failed))}")
        return "; ".join(notes)

    def _instead(self, policy: str) -> str:
        """What is said of a policy without figures of its own."""
        if not self._acts(policy):
            return f"does not act here: {self._applies[policy].why}. Its figures are those of {MAINLINE}."
        return "" if self._has_result(policy) else "no result"

    def _has_result(self, policy: str) -> bool:
        return any(cell.values for cell in self._cells[policy].values())

    def _shown(self, cell: Cell) -> Shown:
        return shown(cell, len(self._study.comparison.study.seeds))

    def _part(self, title: str, heads: list[Head]) -> Part:
        rows = []
        for nr, (policy, cells) in enumerate(self._cells.items()):
            line = [self._shown(cells[head.name]) if head.name in cells else None for head in heads]
            rows.append(Row(nr, policy, self._note(policy), self._instead(policy), line))
        return Part(title, heads, rows)

    def matrix_cell(self, nr: int, policy: str) -> MatrixCell:
        """The policy's cell in the matrix."""
        target, cells = f"{self.id}-p{nr}", self._cells[policy]
        if not self._acts(policy):
            return MatrixCell(target, "does not act here")
        if not self._has_result(policy):
            return MatrixCell(target, "no result")
        primary = [cells[head.name] for head in self.primary if head.name in cells]
        others = [tally(cell for cell in cells.values() if not cell.primary)]
        if any(cell.metric == LOSS for cell in primary) and SUCCESS in cells and not cells[SUCCESS].primary:
            success = self._shown(cells[SUCCESS])
            others.insert(0, f"success {success.symbol} {success.word}" if success.word else "")
        return MatrixCell(
            target, "", [self._shown(cell) for cell in primary], [text for text in others if text]
        )

    def _drawing(self) -> Drawing:
        """Pack the first seed's run of each policy; runs that policies share are packed once."""
        study, policies = self._study, self._study.policies
        by_place: dict[str, tuple[RunDirectory, ...]] = {}
        of_policy: list[str | None] = []
        for policy in policies:
            places = study.places.get((self.name, policy), {})
            key = places[min(places)] if places else None
            if key is not None and key not in by_place:
                by_place[key] = study.runs(self.name, policy)
            of_policy.append(key if key is not None and by_place[key] else None)
        drawn = {key: runs for key, runs in by_place.items() if runs}
        first_runs = [runs[0] for runs in drawn.values()]
        names = scenario_names(first_runs[0]) if first_runs else ScenarioNames()
        panels = choose_panels(names.progress, names.metrics, first_runs)
        views = [pack_view(runs[0], panels, _medians(runs)) for runs in drawn.values()]
        rank = {key: nr for nr, key in enumerate(drawn)}
        of = [None if key is None else rank[key] for key in of_policy]
        choices = [(nr, policy) for nr, policy in enumerate(policies) if policy != MAINLINE]
        acting = [nr for nr, policy in choices if self._acts(policy) and of[nr] is not None]
        gone = [policy for policy, nr in zip(policies, of, strict=True) if nr is None]
        data = {
            "views": [view.packed for view in views],
            "of": of,
            "baseline": policies.index(MAINLINE) if MAINLINE in policies else 0,
            "names": list(policies),
            "panels": [panel.as_json() for panel in panels],
        }
        return Drawing(
            choices=choices,
            first_choice=(acting or [nr for nr, _ in choices] or [0])[0],
            seed=", ".join(str(seed) for seed in sorted({run.manifest.seed for run in first_runs})),
            interval=step_words(max((view.step_ns for view in views), default=0)),
            said=[f"No run to draw of: {', '.join(gone)}."] if gone else [],
            data=json_for_html(data),
            validated=tuple(dict.fromkeys(run.manifest.validated for run in first_runs)),
            not_modelled=tuple(dict.fromkeys(t for run in first_runs for t in run.document.not_modelled)),
        )


def _medians(runs: Sequence[RunDirectory]) -> dict[str, float]:
    """Median over seeds of each counter."""
    names = sorted({name for run in runs for name in run.document.vmstat})
    return {name: median(run.document.vmstat.get(name, 0) for run in runs) for name in names}
