"""Whether the code as it is still gives what the studies' runs gave: one seed of each, made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmfw.compare import CompareRequest
from verdict import sources
from verdict.evidence import Evidence, NotRun
from verdict.studies import Studies, StudySpec, request_of, varied

#: Where they lie, below the studies' folder.
FOLDER: Final = "check"


@dataclass(frozen=True, slots=True)
class Check:
    """How many runs were made again, and which gave another digest ("study with policy")."""

    nr_runs: int
    others: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"One seed of each policy in each study was run again with the code as it is: of {self.nr_runs} runs "
            f"{self.nr_runs - len(self.others)} gave the digest that they had"
        )
        return f"{text}; others: {', '.join(self.others)}." if self.others else f"{text}."


def specs_of(studies: Studies) -> list[StudySpec]:
    """All studies, those with something varied last."""
    return [*studies.studies, *(each.spec for each in varied(studies.sensitivity))]


def requests(studies: Studies, out: Path, jobs: int) -> Iterator[tuple[str, CompareRequest]]:
    """What is run again: seed 0 of each study, by its name."""
    for spec in specs_of(studies):
        yield spec.name, request_of(spec.model_copy(update={"seeds": 1}), 1, out / FOLDER, jobs)


def find_check(studies: Studies, folder: Path) -> Check | None:
    """What came of it; None unless every study that has run was run again with the installed sources."""
    before, now = Evidence(folder), Evidence(folder / FOLDER)
    nr_runs = 0
    others: list[str] = []
    for spec in specs_of(studies):
        try:
            known = before.digests(spec.name)
        except NotRun:
            continue
        try:
            found = now.digests(spec.name)
        except NotRun:
            return None
        if sources.changed_since(now.comparison(spec.name).study.distributions, sources.installed()):
            return None
        nr_runs += len(found)
        others += [
            f"{spec.name} with {policy}"
            for (policy, seed), digest in found.items()
            if known.get((policy, seed)) != digest
        ]
    return Check(nr_runs, tuple(others)) if nr_runs else None
