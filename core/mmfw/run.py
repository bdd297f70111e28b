"""What ``mmfw run`` does, without a terminal: choose a scenario, run it, measure, and digest the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmfw.costs import profile
from mmfw.errors import InputError
from mmfw.eventlog import EventLog
from mmfw.figures import PhaseLog, Sampler, check_names, measure
from mmfw.kernels import kernel_profile
from mmfw.machine import Machine, load_machine
from mmfw.machine.pcmodel import parse_ram_size
from mmfw.observe import Observer
from mmfw.plugins import load
from mmfw.policies import Policy, toml_value
from mmfw.registry import LoadedPlugins
from mmfw.result import RunResult
from mmfw.results import Manifest, Recorder, Recording, RunFolder, RunInputs
from mmfw.results.manifest import (
    FORMAT,
    distributions_of,
    interpreter_versions,
    plugin_files_of,
    sha256_costs,
    sha256_file,
    sha256_text,
)
from mmfw.scenario import (
    Scenario,
    ScenarioFile,
    find_scenarios,
    load_scenario,
    parse_duration,
    parse_scenario,
    scenario_file,
)
from mmfw.system import build_system, tear_down
from mmfw.watchdog import watchdog


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for.

    Attributes
    ----------
    scenario : str or None
        Name or file; None chooses by plugins.
    plugins : tuple of str
        Short names, besides the scenario's own.
    plugin_files : tuple of Path
        Single-file prototypes.
    policies : tuple of Policy
        Policies that run with it (`mmfw.policies.parse_policy`); none is mainline.
    kernel, machine, duration : str or None
        In place of the scenario's.
    short : bool
        Run the short durations of the scenario and its phases.
    overrides : dict
        ``--set`` values by key.
    seed : int
        Of everything left to chance.
    sanitize : bool
        Check memory at every sample (`mmfw.mm.sanitize`).
    out : Path or None
        Run directory to write (`mmfw.results`).
    recording : Recording
        What is recorded for it.
    trace, proc : Path or None
        Where a trace and /proc files go (`mmfw.observe`).
    events, trace_options : str or None
        What is traced, and how it is printed (`mmfw.tracing.events`, `mmfw.tracing.options`).
    """

    scenario: str | None = None
    plugins: tuple[str, ...] = ()
    plugin_files: tuple[Path, ...] = ()
    policies: tuple[Policy, ...] = ()
    kernel: str | None = None
    machine: str | None = None
    duration: str | None = None
    short: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    sanitize: bool = False
    trace: Path | None = None
    events: str | None = None
    trace_options: str | None = None
    proc: Path | None = None
    out: Path | None = None
    recording: Recording = field(default_factory=Recording)

    def command(self, scenario: str) -> tuple[str, ...]:
        """The command line that repeats the run; what is only observed, and where it goes, is left out.

        Parameters
        ----------
        scenario : str
            The scenario that was chosen.
        """
        words = ["mmfw", "run", self.scenario or scenario]
        words += ["--plugins", ",".join(self.plugins)] if self.plugins else []
        for file in self.plugin_files:
            words += ["--plugin-file", str(file)]
        words += ["--policy", "+".join(map(str, self.policies))] if self.policies else []
        for option, value in (("--kernel", self.kernel), ("--machine", self.machine)):
            words += [option, value] if value is not None else []
        for key, value in self.overrides.items():
            words += ["--set", f"{key}={toml_value(value)}"]
        words += ["--seed", str(self.seed)]
        words += ["--short"] if self.short else []
        words += ["--duration", self.duration] if self.duration is not None else []
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that has been checked and loaded, and not begun.

    Attributes
    ----------
    scenario : Scenario
        With overrides and the policies' options.
    plugins : LoadedPlugins
        Policies last.
    machine : Machine
        What it runs on.
    until_ns : int
        Virtual time at which it ends at the latest.
    inputs : RunInputs
        All that its result depends on.
    """

    scenario: Scenario
    plugins: LoadedPlugins
    machine: Machine
    until_ns: int
    inputs: RunInputs


def choose_scenario(request: RunRequest, plugins: LoadedPlugins | None) -> Scenario:
    """The scenario asked for, or the one that says it is for the plugins asked for: for most of them, if several do.

    Raises
    ------
    InputError
        None was named and none offers itself; lists those that use the plugins.
    """
    if request.scenario is not None:
        return load_scenario(request.scenario, request.overrides)
    names = set() if plugins is None else set(plugins.names)
    using: list[str] = []
    offered: list[tuple[int, str]] = []
    for found in find_scenarios().values():
        scenario = load_scenario(found.name)
        if scenario.default_for and set(scenario.default_for) <= names:
            offered.append((-len(scenario.default_for), found.name))
        if not names or names & set(scenario.plugins):
            using.append(found.name)
    if offered:
        return load_scenario(min(offered)[1], request.overrides)
    if not names:
        raise InputError(
            f"name a scenario or --plugins; installed scenarios: {', '.join(using) or 'none (install a plugin)'}"
        )
    asked = ", ".join(plugins.names) if plugins is not None else ""
    raise InputError(
        f"no scenario is the default for plugins {asked}; name one that uses them: {', '.join(using) or 'none installed'}"
    )


def _load_all(request: RunRequest, scenario: Scenario) -> LoadedPlugins:
    asked = [name.replace("_", "-") for name in request.plugins]
    names = [*request.plugins, *(name for name in scenario.plugins if name not in asked)]
    # Policies come last, so that the drivers they look at are set up before them.
    # By name: a composition is a set, and must not depend on how it was written.
    installed = (policy.name for policy in request.policies if not policy.file)
    names += sorted(name for name in installed if name not in asked)
    files = [*request.plugin_files, *sorted(Path(each.file) for each in request.policies if each.file)]
    return load(names, files)


def _with_options(scenario: Scenario, policies: tuple[Policy, ...]) -> Scenario:
    params = dict(scenario.params)
    for policy in policies:
        if policy.options:
            params[policy.name] = {**params.get(policy.name, {}), **dict(policy.options)}
    return scenario.model_copy(update={"params": params})


def _machine(request: RunRequest, scenario: Scenario) -> tuple[Scenario, Machine]:
    """The machine to run on; one given as files brings its own CPUs and memory state."""
    if request.machine is None or parse_ram_size(request.machine) is not None:
        return scenario, load_machine(request.machine or scenario.machine, scenario.nr_cpus)
    state = scenario.state.model_copy(update={"buddyinfo": {}})
    return scenario.model_copy(update={"state": state}), load_machine(request.machine)


def _source(request: RunRequest, plugins: LoadedPlugins | None) -> ScenarioFile:
    return scenario_file(request.scenario or choose_scenario(request, plugins).name)


def prepare(request: RunRequest) -> Prepared:
    """Check what was asked for and load it.

    Raises
    ------
    InputError
        What was asked for is wrong.
    PluginError
        A plugin cannot be loaded.
    """
    asked = (
        load(list(request.plugins), list(request.plugin_files))
        if request.plugins or request.plugin_files
        else None
    )
    source = _source(request, asked)
    scenario = parse_scenario(source.text, source.path, request.overrides)
    plugins = _load_all(request, scenario)
    kernel = request.kernel or scenario.kernel
    kernel_profile(kernel)
    lasts = scenario.short_duration if request.short else scenario.duration
    until_ns = parse_duration(request.duration or lasts)
    scenario, machine = _machine(request, _with_options(scenario, request.policies))
    costs = profile(scenario.costs, scenario.cost_ns)
    of_files = request.machine is not None and parse_ram_size(request.machine) is None
    inputs = RunInputs(
        format=FORMAT,
        mmfw=distributions_of(plugins)["mmfw"].version,
        distributions=distributions_of(plugins),
        **interpreter_versions(),
        scenario=scenario.name,
        scenario_toml=source.text,
        scenario_sha256=sha256_text(source.text),
        costs=costs.name,
        costs_sha256=sha256_costs(costs),
        kernel=kernel,
        machine=machine.name,
        machine_sha256=sha256_file(Path(request.machine)) if of_files and request.machine else None,
        nr_cpus=machine.nr_cpus,
        plugins=plugins.names,
        plugin_files=plugin_files_of(plugins),
        policies=tuple(str(policy) for policy in request.policies),
        overrides=request.overrides,
        seed=request.seed,
        short=request.short,
        duration=request.duration,
    )
    return Prepared(scenario, plugins, machine, until_ns, inputs)


def run(request: RunRequest, progress: Callable[[int, int], None] | None = None) -> RunResult:
    """Run a scenario to its end.

    Parameters
    ----------
    request : RunRequest
        What to run.
    progress : callable, optional
        Called with (virtual ns, virtual ns in all) at every sample.

    Raises
    ------
    InputError
        What was asked for is wrong.
    PluginError
        A plugin misbehaved.
    """
    _keep_apart(request)
    observer = Observer(
        trace=request.trace, events=request.events, trace_options=request.trace_options, proc=request.proc
    )
    folder: RunFolder | None = None
    try:
        folder = None if request.out is None else RunFolder(request.out)
        return _run(request, observer, folder, progress)
    finally:
        observer.close()
        if folder is not None:
            folder.discard()


def _keep_apart(request: RunRequest) -> None:
    """Refuse what would lie in a folder that is replaced whole."""
    if request.out is None:
        return
    for option, path in (("--trace", request.trace), ("--proc", request.proc)):
        if path is not None and request.out.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(
                f"{option}: lies in the folder of --out, which a run replaces whole; name another place",
                file=str(path),
            )


def _run(
    request: RunRequest,
    observer: Observer,
    folder: RunFolder | None,
    progress: Callable[[int, int], None] | None,
) -> RunResult:
    started = time.perf_counter()
    prepared = prepare(request)
    scenario, machine, inputs = prepared.scenario, prepared.machine, prepared.inputs
    system = build_system(
        scenario, machine, prepared.plugins, seed=request.seed, kernel=inputs.kernel, short=request.short
    )
    mm, sched = system.mm, system.sched
    check_names(scenario.metrics, scenario.progress, system.metrics, scenario.primary)
    before = mm.buddyinfo()
    observer.start(mm)
    log = EventLog(mm)
    recorder = None if folder is None else Recorder(mm, system.metrics, request.recording)
    sampler = Sampler(
        mm,
        prepared.until_ns,
        progress,
        sanitize=request.sanitize,
        listener=None if recorder is None else recorder.sample,
    )
    phase_log = PhaseLog(mm, system.metrics)
    system.phases.listener = phase_log
    try:
        with watchdog(sched):
            sched.run(prepared.until_ns)
        system.phases.cut()
        metrics, figures = measure(mm, system.metrics, log, sampler, scenario.progress)
        vmstat, buddyinfo, ended_ns = mm.vmstat.as_dict(), mm.buddyinfo(), sched.now
        shrinkers = {
            s.ops.name: {"calls": s.nr_calls, "freed": s.nr_freed, "pages_freed": s.nr_pages_freed}
            for s in mm.shrinkers
        }
        whole = {name: value for name, value in metrics.items() if isinstance(value, int)}
        wakes = {str(order): n for order, n in sorted(log.kswapd_wakes.items())}
        digest = _digest(vmstat, buddyinfo, whole, log.hexdigest())
        # Copies: what is taken down below is counted on.
        requests, losses = mm.requests.rows(), {name: replace(lost) for name, lost in mm.ledger}
        latencies = mm.requests.latencies()
        tables = {} if recorder is None else recorder.tables()
        observer.finish(mm)
        leak_checked = tear_down(system)
    finally:
        sched.close()
    result = RunResult(
        scenario=scenario.name,
        kernel=inputs.kernel,
        plugins=inputs.plugins,
        policies=inputs.policies,
        machine=machine.name,
        nr_cpus=machine.nr_cpus,
        overrides=request.overrides,
        seed=request.seed,
        virtual_ns=ended_ns,
        wall_seconds=time.perf_counter() - started,
        metrics=metrics,
        figures=figures,
        vmstat=vmstat,
        buddyinfo_before=before,
        buddyinfo=buddyinfo,
        kswapd_wakes_by_order=wakes,
        shrinker_calls=shrinkers,
        phases=tuple(phase_log.results),
        requests=requests,
        losses=losses,
        latencies=latencies,
        first_metrics=tuple(scenario.metrics),
        digest=digest,
        leak_checked=leak_checked,
    )
    if folder is not None:
        folder.prepare(_manifest(request, inputs, result, tuple(tables)), result.as_document(), tables)
    # Only now is it known that no plugin misbehaved.
    observer.commit(machine.nr_cpus)
    if folder is not None:
        folder.publish()
    return result


def _manifest(request: RunRequest, inputs: RunInputs, result: RunResult, tables: tuple[str, ...]) -> Manifest:
    return Manifest(
        **{name: getattr(inputs, name) for name in RunInputs.model_fields},
        command=request.command(result.scenario),
        digest=result.digest,
        virtual_ns=result.virtual_ns,
        wall_seconds=round(result.wall_seconds, 3),
        validated=result.validated,
        recorded=("metrics.json", *tables),
    )


def _digest(
    vmstat: dict[str, int], buddyinfo: dict[str, list[int]], metrics: dict[str, int], events: str
) -> str:
    document: Sequence[Any] = (vmstat, buddyinfo, metrics, events)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
