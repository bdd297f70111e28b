"""Comparing policies over seeds: plan, run what is missing, judge (`mmfw.compare.model` has what comes of it)."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from mmfw.compare.cells import cells_of
from mmfw.compare.execute import Failure, Job, Progress, execute
from mmfw.compare.model import FORMAT, Cell, Comparison, MissingRun, RunReference, Study, StudyScenario
from mmfw.compare.plan import Plan, PlannedRun, make_plan
from mmfw.compare.request import CompareRequest
from mmfw.compare.statistics import METHOD
from mmfw.compare.store import COMPARISON, STUDY, State, StudyFolder
from mmfw.compare.threshold import threshold_words
from mmfw.results import RunDirectory, read_run
from mmfw.results.extras import study_module

#: Runs that a line names at the most.
_NAMED: Final = 3

__all__ = ["CompareRequest", "Comparison", "Progress", "Study", "compare"]


def compare(
    request: CompareRequest,
    progress: Callable[[Progress], None] | None = None,
    remark: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare policies with mainline; runs that are in the folder already are not made again.

    Parameters
    ----------
    request : CompareRequest
        What was asked for.
    progress : callable, optional
        Called now and then while runs are made.
    remark : callable, optional
        Called with a line that the user should see.

    Returns
    -------
    Comparison
        Also in ``compare.json``.

    Raises
    ------
    InputError
        What was asked for is wrong, or the folder is.
    PluginError
        A plugin cannot be loaded. One that misbehaves in a run is in `Comparison.missing`.
    """
    for library in ("pyarrow.parquet", "scipy.stats"):
        study_module(library, "mmfw compare")
    plan, remarks = make_plan(request)
    for text in remarks:
        remark(text)
    with StudyFolder(request.out) as folder:
        states = [(run, folder.state(run)) for run in plan.runs]
        jobs = [Job(run, folder.place(run)) for run, state in states if state != "done"]
        for text in _made_again(states, folder):
            remark(text)
        if lost := folder.left_out(plan.study):
            remark(
                f"{folder.path / COMPARISON} will no longer tell of {', '.join(lost)}; the runs stay, and asking for "
                "them again brings them back"
            )
        folder.clear_stages()
        # A damaged run is made of the same inputs again: what was found with it still holds meanwhile.
        more = any(state in ("missing", "other") for _, state in states)
        folder.clear_answer(plan.study, more_to_run=more)
        folder.write(STUDY, plan.study)
        for run, state in states:
            if state in ("other", "damaged"):
                folder.drop(run)
        try:
            failures = execute(jobs, request.jobs, progress)
        finally:
            folder.clear_stages()
        comparison = _judge(plan, folder, failures, request.jobs)
        folder.write(COMPARISON, comparison)
    return comparison


def _made_again(states: list[tuple[PlannedRun, State]], folder: StudyFolder) -> list[str]:
    """A line each for runs that came of other inputs, and for those that are damaged."""
    found = []
    for asked, why in (("other", "came of other inputs"), ("damaged", "damaged")):
        places = [folder.place(run).relative_to(folder.path) for run, state in states if state == asked]
        if places:
            named = ", ".join(map(str, places[:_NAMED])) + (" ..." if len(places) > _NAMED else "")
            found.append(f"{len(places)} of {len(states)} runs in {folder.path} made again, {why}: {named}")
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """What the cells of one scenario are made of; small enough to hand to a process."""

    scenario: StudyScenario
    seeds: tuple[int, ...]
    places: dict[str, dict[int, Path]]
    runs_as: dict[str, str]
    least_effect: float


def _cells(part: _Part) -> list[Cell]:
    documents = {
        text: {seed: read_run(place).document for seed, place in by_seed.items()}
        for text, by_seed in part.places.items()
    }
    return cells_of(part.scenario, part.seeds, documents, part.runs_as, part.least_effect)


def _judge(plan: Plan, folder: StudyFolder, failures: list[Failure], nr_processes: int) -> Comparison:
    failed = {id(failure.planned) for failure in failures}
    made = [run for run in plan.runs if id(run) not in failed]
    parts = [_part(plan, folder, made, scenario) for scenario in plan.study.scenarios]
    if nr_processes > 1 and len(parts) > 1:
        context = get_context("fork")
        ignore = (signal.SIGINT, signal.SIG_IGN)
        with ProcessPoolExecutor(nr_processes, context, signal.signal, ignore) as pool:
            cells = [cell for found in pool.map(_cells, parts) for cell in found]
    else:
        cells = [cell for part in parts for cell in _cells(part)]
    directories = {(run.scenario, run.policies, run.seed): read_run(folder.place(run)) for run in made}
    errors = {(f.planned.scenario, f.planned.policies, f.planned.seed): f for f in failures}
    return Comparison(
        format=FORMAT,
        study=plan.study,
        method=f"{METHOD} {threshold_words(plan.study.least_effect)}",
        cells=tuple(cells),
        applicability=plan.applicability,
        runs=_references(plan, folder, directories),
        missing=_missing(plan, errors),
    )


def _part(plan: Plan, folder: StudyFolder, made: list[PlannedRun], scenario: StudyScenario) -> _Part:
    places: dict[str, dict[int, Path]] = {}
    for run in made:
        if run.scenario == scenario.name:
            places.setdefault(run.policies, {})[run.seed] = folder.place(run)
    runs_as = {policy.name: plan.runs_as[scenario.name, policy.name] for policy in plan.study.policies}
    return _Part(scenario, plan.study.seeds, places, runs_as, plan.study.least_effect)


def _references(
    plan: Plan, folder: StudyFolder, directories: dict[tuple[str, str, int], RunDirectory]
) -> tuple[RunReference, ...]:
    found = []
    for (scenario, policy), text in plan.runs_as.items():
        for seed in plan.study.seeds:
            run = directories.get((scenario, text, seed))
            if run is not None:
                found.append(
                    RunReference(
                        scenario=scenario,
                        policy=policy,
                        seed=seed,
                        path=run.path.relative_to(folder.path).as_posix(),
                        digest=run.manifest.digest,
                    )
                )
    return tuple(found)


def _missing(plan: Plan, errors: dict[tuple[str, str, int], Failure]) -> tuple[MissingRun, ...]:
    found = []
    for (scenario, policy), text in plan.runs_as.items():
        for seed in plan.study.seeds:
            failure = errors.get((scenario, text, seed))
            if failure is not None:
                command = shlex.join(failure.planned.request.command(scenario))
                found.append(
                    MissingRun(
                        scenario=scenario, policy=policy, seed=seed, error=failure.error, command=command
                    )
                )
    return tuple(found)
