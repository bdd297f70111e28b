"""Whether later code still gives what the studies' runs gave: one seed of each, made again."""

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
    """How many runs were made again, with core of which sources, and which gave another digest ("study with policy")."""

    core_sha256: str
    nr_runs: int
    others: tuple[str, ...]

    def __str__(self) -> str:
        known = sources.commits()
        sha256 = self.core_sha256
        made = f"commit {known[sha256]}" if sha256 in known else f"sources {sha256[:16]}"
        text = (
            f"One seed of each policy in each study was run again with core of {made}: of {self.nr_runs} runs "
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
    """What came of it; None unless every study that has run was run again, all with one core."""
    before, now = Evidence(folder), Evidence(folder / FOLDER)
    nr_runs = 0
    others: list[str] = []
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
        others += [
            f"{spec.name} with {policy}"
            for (policy, seed), digest in found.items()
            if known.get((policy, seed)) != digest
        ]
    return Check(cores.pop(), nr_runs, tuple(others)) if len(cores) == 1 else None
