"""From what was asked to the runs that it takes; all that can be wrong with it is found here, before any run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmfw.binding import bind_mm_ops
from mmfw.compare.model import FORMAT, Applicability, Study, StudyPolicy, StudyScenario
from mmfw.compare.policies import ALL, Composition, PolicyBook
from mmfw.compare.request import CompareRequest
from mmfw.errors import InputError, did_you_mean
from mmfw.figures import FIXED, check_names
from mmfw.mm.vmstat import VmEvent
from mmfw.policies import MAINLINE, Policy, policy_text
from mmfw.results import Recording, RunInputs
from mmfw.results.manifest import Distribution, version_of
from mmfw.run import Prepared, RunRequest, prepare
from mmfw.scenario import Scenario, find_scenarios, parse_scenario

#: Passes of kswapd for order 9, which is no figure of its own (`mmfw.compare.cells`).
WAKES_ORDER_9 = "kswapd_wakes_order_9"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that cells need.

    Attributes
    ----------
    scenario : str
        Scenario's name.
    policies : str
        Composition, written in one way.
    seed : int
        Seed.
    request : RunRequest
        The run, without where it goes.
    inputs : RunInputs
        What its manifest will say: a run directory that says the same need not be made again.
    """

    scenario: str
    policies: str
    seed: int
    request: RunRequest
    inputs: RunInputs


@dataclass(frozen=True, slots=True)
class Plan:
    """A study and its runs.

    Attributes
    ----------
    study : Study
        What was asked for.
    applicability : tuple of Applicability
        For each scenario and policy but mainline.
    runs_as : dict of (str, str) to str
        Composition that runs for a scenario and a policy's name.
    runs : tuple of PlannedRun
        Each once; scenario by scenario, seed by seed, mainline first.
    """

    study: Study
    applicability: tuple[Applicability, ...]
    runs_as: dict[tuple[str, str], str]
    runs: tuple[PlannedRun, ...]


def make_plan(request: CompareRequest) -> tuple[Plan, tuple[str, ...]]:
    """Plan a study.

    Returns
    -------
    plan : Plan
        What it takes.
    remarks : tuple of str
        What the user should know before it runs.

    Raises
    ------
    InputError
        What was asked for is wrong.
    PluginError
        A plugin cannot be loaded.
    """
    if request.nr_seeds < 1:
        raise InputError(f"--seeds {request.nr_seeds}: at least 1; verdicts take 5")
    if not 0 <= request.least_effect < 1:
        raise InputError(
            f"--least-effect {request.least_effect!r}: a share of mainline's, from 0 to less than 1"
        )
    book = PolicyBook()
    compositions, remarks = book.compositions(request.policies)
    if len(compositions) < 2:
        raise InputError("--policies: names nothing but mainline; name policies to compare with it")
    scenarios = [_Planned(request, source, book, compositions) for source in _sources(request)]
    for each in scenarios:
        others = [other.name for other in scenarios if other.name == each.name]
        if len(others) > 1:
            raise InputError(f"two of the scenarios are named {each.name!r}; compare each by itself")
    _check_metrics(request, scenarios)
    distributions = {name: found for each in scenarios for name, found in each.distributions.items()}
    first = scenarios[0].mainline.inputs
    study = Study(
        format=FORMAT,
        command=request.command(),
        scenarios=tuple(each.described for each in scenarios),
        policies=tuple(
            StudyPolicy(name=each.name, policies=policy_text(each.policies), description=each.description)
            for each in compositions
        ),
        seeds=tuple(range(request.nr_seeds)),
        short=request.short,
        duration=request.duration,
        kernel=request.kernel,
        overrides=request.overrides,
        least_effect=request.least_effect,
        mmfw=first.mmfw,
        python=first.python,
        numpy=first.numpy,
        numba=first.numba,
        scipy=version_of("scipy"),
        distributions=dict(sorted(distributions.items())),
    )
    plan = Plan(
        study,
        tuple(row for each in scenarios for row in each.applicability),
        {key: text for each in scenarios for key, text in each.runs_as.items()},
        tuple(run for each in scenarios for run in each.runs(study.seeds)),
    )
    return plan, remarks


def _sources(request: CompareRequest) -> list[str]:
    """Scenarios to load, each once."""
    found: dict[str, None] = {}
    for source in request.scenarios:
        if source != ALL:
            found[source] = None
            continue
        for each in find_scenarios().values():
            if parse_scenario(each.text, each.path).comparable:
                found[each.name] = None
    if not found:
        raise InputError("no installed scenario says that it is comparable; name some")
    return list(found)


def recording(seed: int) -> Recording:
    """What is recorded of a run of a study: samples always, blocks of the first seed."""
    return Recording(samples=True, blocks=seed == 0, events=False)


class _Planned:
    """One scenario of a study.

    Parameters
    ----------
    request : CompareRequest
        What was asked for.
    source : str
        The scenario, as it was named.
    book : PolicyBook
        Where policies are looked up.
    compositions : sequence of Composition
        What to compare, mainline first.
    """

    def __init__(
        self, request: CompareRequest, source: str, book: PolicyBook, compositions: Sequence[Composition]
    ) -> None:
        self._base = RunRequest(
            scenario=source,
            kernel=request.kernel,
            duration=request.duration,
            short=request.short,
            overrides=request.overrides,
        )
        self.mainline = prepare(self._base)
        self.name = self.mainline.scenario.name
        self._prepared = {MAINLINE: self.mainline}
        self._requests = {MAINLINE: self._base}
        self.runs_as = {(self.name, MAINLINE): MAINLINE}
        self.applicability: list[Applicability] = []
        for each in compositions:
            if each.policies:
                reduced = book.reduce(each, self.mainline.plugins.names)
                text = self._run_with(reduced.policies)
                self.runs_as[self.name, each.name] = text
                self.applicability.append(
                    Applicability(
                        scenario=self.name,
                        policy=each.name,
                        acts=bool(reduced.policies),
                        runs_as=text,
                        why=reduced.why,
                    )
                )
        figures = self.mainline.plugins.metrics()
        scenario = self.mainline.scenario
        check_names(scenario.metrics, scenario.progress, figures, scenario.primary)
        self.known = {WAKES_ORDER_9, *(each.name for each in FIXED), *(event.name for event in VmEvent)}
        self.known |= {name for each in self._prepared.values() for name in each.plugins.metrics()}
        self.described = self._describe(source, scenario, request.metrics)

    def _run_with(self, policies: tuple[Policy, ...]) -> str:
        text = policy_text(policies)
        if text not in self._prepared:
            self._requests[text] = replace(self._base, policies=policies)
            self._prepared[text] = prepare(self._requests[text])
            # Refuses two that answer one decision: here, where nothing has been written yet.
            bind_mm_ops(self._prepared[text].plugins)
        return text

    def _describe(self, source: str, scenario: Scenario, more: tuple[str, ...]) -> StudyScenario:
        inputs = self.mainline.inputs
        primary = tuple(scenario.primary or scenario.metrics[:1]) or ("kswapd_wakes",)
        progress = (scenario.progress,) if scenario.progress is not None else ()
        names = (
            *primary,
            *scenario.metrics,
            *progress,
            *(each.name for each in FIXED),
            WAKES_ORDER_9,
            *(name for name in more if name in self.known),
        )
        return StudyScenario(
            name=self.name,
            source=source,
            sha256=inputs.scenario_sha256,
            kernel=inputs.kernel,
            costs=inputs.costs,
            costs_sha256=inputs.costs_sha256,
            description=scenario.description,
            metrics=tuple(dict.fromkeys(names)),
            primary=primary,
        )

    @property
    def distributions(self) -> dict[str, Distribution]:
        """Everything that takes part in some run."""
        return {name: d for each in self._prepared.values() for name, d in each.inputs.distributions.items()}

    def runs(self, seeds: Sequence[int]) -> list[PlannedRun]:
        """Every run, seed by seed."""
        return [
            PlannedRun(
                self.name,
                text,
                seed,
                replace(self._requests[text], seed=seed, recording=recording(seed)),
                _with_seed(prepared, seed),
            )
            for seed in seeds
            for text, prepared in self._prepared.items()
        ]


def _with_seed(prepared: Prepared, seed: int) -> RunInputs:
    return prepared.inputs.model_copy(update={"seed": seed})


def _check_metrics(request: CompareRequest, scenarios: Sequence[_Planned]) -> None:
    known = {name for each in scenarios for name in each.known}
    for name in request.metrics:
        if name not in known:
            raise InputError(
                f"--metric {name!r}: no scenario here has such a figure; {did_you_mean(name, known)}"
            )
