"""Whether later code still gives what the studies' runs gave: one seed of each, made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmfw.compare import CompareRequest
from verdict import sources
from verdict.evidence import Evidence, NotRun
from verdict.studies import Studies, StudySpec, request_of, varied

#: Where they lie, below the studies' folder.
FOLDER: Final = "check"
#: So many runs with other digests are named one by one.
_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the runs with other digests: how many, how many lie between the least and the greatest of their study's
    seeds, and how many a further seed's would be expected to, (n - 1) / (n + 1) of each for n seeds.
    """

    nr: int = 0
    nr_within: int = 0
    expected: float = 0

    def __str__(self) -> str:
        return (
            f"{self.nr_within:,} of their {self.nr:,} figures lie between the least and the greatest of the study's seeds; of "
            f"as many figures of one seed more, about {self.expected:,.0f} would"
        )

    def with_value(self, value: float, seeds: Sequence[float]) -> Figures:
        """These and one figure more."""
        low, high, n = min(seeds), max(seeds), len(seeds)
        expected = 1 if low == high else (n - 1) / (n + 1)
        return Figures(self.nr + 1, self.nr_within + (low <= value <= high), self.expected + expected)


@dataclass(frozen=True, slots=True)
class Check:
    """How many runs were made again, with core of which sources, and which gave another digest ("study with policy")."""

    core_sha256: str
    nr_runs: int
    others: tuple[str, ...]
    figures: Figures = Figures()

    def __str__(self) -> str:
        known = sources.commits()
        sha256 = self.core_sha256
        made = f"commit {known[sha256]}" if sha256 in known else f"sources {sha256[:16]}"
        text = (
            f"One seed of each policy in each study was run again with core of {made}: of {self.nr_runs} runs "
            f"{self.nr_runs - len(self.others)} gave the digest that they had"
        )
        if 0 < len(self.others) <= _NAMED:
            text += f"; others: {', '.join(self.others)}"
        return f"{text}. Of the rest, {self.figures}." if self.figures.nr else f"{text}."


def specs_of(studies: Studies) -> list[StudySpec]:
    """All studies, those with something varied last."""
    return [*studies.studies, *(each.spec for each in varied(studies.sensitivity))]


def requests(studies: Studies, out: Path, jobs: int) -> Iterator[tuple[str, CompareRequest]]:
    """What is run again: seed 0 of each study, by its name."""
    for spec in specs_of(studies):
        yield spec.name, request_of(spec.model_copy(update={"seeds": 1}), 1, out / FOLDER, jobs)


def find_check(studies: Studies, folder: Path) -> Check | None:
    """What came of it; None unless every study that has run was run again, all with one core."""
    before, now = Evidence(folder), Evidence(folder / FOLDER)
    nr_runs = 0
    others: list[str] = []
    figures = Figures()
    cores: set[str] = set()
    for spec in specs_of(studies):
        try:
            known = before.digests(spec.name)
        except NotRun:
            continue
        try:
            found = now.digests(spec.name)
        except NotRun:
            return None
        cores.add(now.comparison(spec.name).study.distributions["mmfw"].sha256)
        nr_runs += len(found)
        differ = [policy for (policy, seed), digest in found.items() if known.get((policy, seed)) != digest]
        others += [f"{spec.name} with {policy}" for policy in differ]
        for cell in now.comparison(spec.name).cells:
            value = cell.values[0]
            if cell.policy in differ and value is not None:
                old = before.cell(spec.name, cell.policy, cell.metric).values
                seeds = [each for each in old if each is not None]
                if len(seeds) > 1:
                    figures = figures.with_value(value, seeds)
    return Check(cores.pop(), nr_runs, tuple(others), figures) if len(cores) == 1 else None
