"""Figures of studies that have run, and what an interval says of a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmfw.compare.model import Cell, Comparison
from mmfw.compare.statistics import (
    CONFIDENCE,
    Interval,
    Verdict,
    interval,
    median,
    paired,
    results_words,
    verdict,
)
from mmfw.results import RunDirectory, read_run

Outcome = Literal["confirmed", "refuted", "undecided"]
MAINLINE = "mainline"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over seeds and its interval; `nr_results` is how many different results the seeds gave, if known."""

    median: float
    low: float
    high: float
    nr: int
    nr_results: int | None = None

    def __str__(self) -> str:
        if self.nr_results == 1 and self.nr > 1:
            return f"{number(self.median)} ({results_words(self.nr, 1)})"
        return f"{number(self.median)} [{number(self.low)}, {number(self.high)}]"

    def at_least(self, threshold: float) -> Outcome:
        """Whether it is no less than a threshold, as far as the interval goes."""
        return "confirmed" if self.low >= threshold else "refuted" if self.high < threshold else "undecided"

    def at_most(self, threshold: float) -> Outcome:
        """Whether it is no more than a threshold."""
        return "confirmed" if self.high <= threshold else "refuted" if self.low > threshold else "undecided"

    def within(self, low: float, high: float) -> Outcome:
        """Whether it lies between two thresholds."""
        if low <= self.low and self.high <= high:
            return "confirmed"
        return "refuted" if self.high < low or self.low > high else "undecided"


def number(value: float) -> str:
    """A figure as the page prints it."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def quotient(value: float, base: float) -> float:
    """A figure as a multiple of another: 1 if both are 0, and a base of 0 counts as 1 otherwise.

    Examples
    --------
    >>> quotient(3, 2), quotient(0, 0), quotient(3, 0)
    (1.5, 1, 3.0)
    """
    return 1 if value == base == 0 else value / (base or 1)


class NotRun(Exception):
    """A study that a claim rests on has not been made, or not whole."""


class Evidence:
    """The studies of a folder.

    Parameters
    ----------
    folder : Path
        Has a study's folder for each name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Comparison] = {}

    def comparison(self, study: str) -> Comparison:
        """``compare.json`` of a study.

        Raises
        ------
        NotRun
            It is not there, or runs are missing.
        """
        if study not in self._read:
            file = self._folder / study / "compare.json"
            if not file.exists():
                raise NotRun(f"study {study} has not been made")
            self._read[study] = Comparison.model_validate_json(file.read_text(encoding="utf-8"))
        comparison = self._read[study]
        if comparison.missing:
            first = comparison.missing[0]
            raise NotRun(
                f"{len(comparison.missing)} runs of study {study} failed, the first (seed {first.seed}) since {first.error}"
            )
        return comparison

    def cell(self, study: str, policy: str, metric: str) -> Cell:
        """One cell."""
        for cell in self.comparison(study).cells:
            if (cell.policy, cell.metric) == (policy, metric):
                return cell
        raise NotRun(f"study {study} has no {metric} of {policy}")

    def figure(self, study: str, metric: str, policy: str = MAINLINE) -> Estimate:
        """A figure over seeds."""
        found = self.estimate(
            [v for v in self.cell(study, policy, metric).values if v is not None],
            f"{study} {policy} {metric}",
        )
        return replace(found, nr_results=self.nr_results(study, policy))

    def difference(self, study: str, metric: str, policy: str, base: str = MAINLINE) -> Estimate:
        """Differences of the same seeds, policy less base."""
        values, baseline = self.cell(study, policy, metric).values, self.cell(study, base, metric).values
        found = self.estimate(
            paired(values, baseline).differences, f"{study} {policy} {base} {metric} difference"
        )
        return replace(found, nr_results=self.nr_results(study, policy, base))

    def verdict(self, study: str, metric: str, policy: str) -> Verdict | None:
        """What the interval of `difference` says, by the rules of ``mmfw compare`` as they are now."""
        cell, base = self.cell(study, policy, metric), self.cell(study, MAINLINE, metric)
        if cell.vs_mainline is None:
            return None
        apart = self.difference(study, metric, policy)
        return verdict(
            paired(cell.values, base.values).differences,
            Interval(apart.low, apart.high, CONFIDENCE),
            cell.better,
            cell.vs_mainline.least_difference,
        )

    def ratio(self, study: str, metric: str, policy: str, base: str = MAINLINE) -> Estimate:
        """Ratios of the same seeds, policy to base, as `quotient` has them."""
        values, baseline = self.cell(study, policy, metric).values, self.cell(study, base, metric).values
        both = [(a, b) for a, b in zip(values, baseline, strict=True) if a is not None and b is not None]
        found = self.estimate([quotient(a, b) for a, b in both], f"{study} {policy} {base} {metric} ratio")
        return replace(found, nr_results=self.nr_results(study, policy, base))

    def of_runs(
        self, study: str, read: Callable[[RunDirectory], float | None], policy: str = MAINLINE
    ) -> Estimate:
        """A figure that is read from each run."""
        found = [read(run) for run in self.runs(study, policy)]
        known = [value for value in found if value is not None]
        return replace(
            self.estimate(known, f"{study} {policy} of runs"), nr_results=self.nr_results(study, policy)
        )

    def ratio_of_runs(
        self, study: str, read: Callable[[RunDirectory], float], policy: str, base: str = MAINLINE
    ) -> Estimate:
        """As `ratio`, of a figure that is read from each run."""
        own, others = ([read(run) for run in self.runs(study, each)] for each in (policy, base))
        ratios = [quotient(a, b) for a, b in zip(own, others, strict=True)]
        found = self.estimate(ratios, f"{study} {policy} {base} ratio of runs")
        return replace(found, nr_results=self.nr_results(study, policy, base))

    def ratio_of_studies(self, study: str, base: str, read: Callable[[RunDirectory], float]) -> Estimate:
        """Mainline's figure in one study to that of the same seed in another."""
        by_seed: list[dict[int, float]] = []
        for each in (study, base):
            seeds = (run.seed for run in self.comparison(each).runs if run.policy == MAINLINE)
            by_seed.append(dict(zip(seeds, map(read, self.runs(each)), strict=True)))
        own, others = by_seed
        ratios = [quotient(own[seed], others[seed]) for seed in own if seed in others]
        return self.estimate(ratios, f"{study} {base} ratio of studies")

    def nr_results(self, study: str, *policies: str) -> int:
        """How many different results, or tuples of them, the seeds gave."""
        by_seed: dict[int, list[str]] = {}
        for run in self.comparison(study).runs:
            if run.policy in policies:
                by_seed.setdefault(run.seed, []).append(run.digest)
        return len({tuple(digests) for digests in by_seed.values()})

    def digests(self, study: str) -> dict[tuple[str, int], str]:
        """Digests of all runs, by policy and seed."""
        return {(run.policy, run.seed): run.digest for run in self.comparison(study).runs}

    def runs(self, study: str, policy: str = MAINLINE) -> list[RunDirectory]:
        """Run directories of a policy, seed by seed."""
        comparison = self.comparison(study)
        return [read_run(self._folder / study / run.path) for run in comparison.runs if run.policy == policy]

    @staticmethod
    def estimate(values: Sequence[float], name: str) -> Estimate:
        """Median and interval of values, one a seed; `name` seeds the bootstrap."""
        if not values:
            raise NotRun(f"nothing was measured: {name}")
        found = interval(values, name)
        middle = median(values)
        if found is None:
            return Estimate(middle, middle, middle, len(values))
        return Estimate(middle, found.low, found.high, len(values))


def gained(run: RunDirectory, metric: str, start_s: float, end_s: float) -> float:
    """What a counter gained between two moments, as far as samples tell.

    Raises
    ------
    NotRun
        The run has no samples of it.
    """
    table = run.samples()
    if table is None or f"metric.{metric}" not in table.column_names:
        raise NotRun(f"{run.path} has no samples of {metric}")
    times = table.column("time_ns").to_pylist()
    counts = table.column(f"metric.{metric}").to_pylist()

    def until(seconds: float) -> float:
        return float(
            max((n for t, n in zip(times, counts, strict=True) if t <= seconds * 10**9), default=0.0)
        )

    return until(end_s) - until(start_s)


def phase(run: RunDirectory, name: str) -> dict[str, Any]:
    """What came of a phase of a run.

    Raises
    ------
    NotRun
        It has none of that name.
    """
    for each in (run.document.model_extra or {}).get("phases", []):
        if each["name"] == name:
            found: dict[str, Any] = each
            return found
    raise NotRun(f"{run.path} has no phase {name}")
