"""What ``mmfw run`` does, without a terminal: choose a scenario, run it, measure, and digest the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfw.errors import InputError
from mmfw.eventlog import EventLog
from mmfw.figures import PhaseLog, Sampler, check_names, measure
from mmfw.kernels import kernel_profile
from mmfw.machine import Machine, load_machine
from mmfw.machine.pcmodel import parse_ram_size
from mmfw.observe import Observer
from mmfw.plugins import load
from mmfw.policies import Policy
from mmfw.registry import LoadedPlugins
from mmfw.result import RunResult
from mmfw.scenario import Scenario, find_scenarios, load_scenario, parse_duration
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
    names += [policy.name for policy in request.policies if policy.name not in asked]
    return load(names, list(request.plugin_files))


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
    observer = Observer(
        trace=request.trace, events=request.events, trace_options=request.trace_options, proc=request.proc
    )
    try:
        return _run(request, observer, progress)
    finally:
        observer.close()


def _run(request: RunRequest, observer: Observer, progress: Callable[[int, int], None] | None) -> RunResult:
    started = time.perf_counter()
    asked = (
        load(list(request.plugins), list(request.plugin_files))
        if request.plugins or request.plugin_files
        else None
    )
    scenario = choose_scenario(request, asked)
    plugins = _load_all(request, scenario)
    kernel = request.kernel or scenario.kernel
    kernel_profile(kernel)
    lasts = scenario.short_duration if request.short else scenario.duration
    until_ns = parse_duration(request.duration or lasts)
    scenario, machine = _machine(request, _with_options(scenario, request.policies))
    system = build_system(scenario, machine, plugins, seed=request.seed, kernel=kernel, short=request.short)
    mm, sched = system.mm, system.sched
    check_names(scenario.metrics, scenario.progress, system.metrics)
    before = mm.buddyinfo()
    observer.start(mm)
    log = EventLog(mm)
    sampler = Sampler(mm, until_ns, progress, sanitize=request.sanitize)
    phase_log = PhaseLog(mm, system.metrics)
    system.phases.listener = phase_log
    try:
        with watchdog(sched):
            sched.run(until_ns)
        system.phases.cut()
        metrics, units = measure(mm, system.metrics, log, sampler, scenario.progress)
        vmstat, buddyinfo, ended_ns = mm.vmstat.as_dict(), mm.buddyinfo(), sched.now
        shrinkers = {
            s.ops.name: {"calls": s.nr_calls, "freed": s.nr_freed, "pages_freed": s.nr_pages_freed}
            for s in mm.shrinkers
        }
        whole = {name: value for name, value in metrics.items() if isinstance(value, int)}
        wakes = {str(order): n for order, n in sorted(log.kswapd_wakes.items())}
        digest = _digest(vmstat, buddyinfo, whole, log.hexdigest())
        requests, losses = mm.requests.rows(), dict(mm.ledger)
        observer.finish(mm)
        leak_checked = tear_down(system)
    finally:
        sched.close()
    # Only now is it known that no plugin misbehaved.
    observer.commit(machine.nr_cpus)
    return RunResult(
        scenario=scenario.name,
        kernel=kernel,
        plugins=plugins.names,
        policies=tuple(str(policy) for policy in request.policies),
        machine=machine.name,
        nr_cpus=machine.nr_cpus,
        overrides=request.overrides,
        seed=request.seed,
        virtual_ns=ended_ns,
        wall_seconds=time.perf_counter() - started,
        metrics=metrics,
        units=units,
        vmstat=vmstat,
        buddyinfo_before=before,
        buddyinfo=buddyinfo,
        kswapd_wakes_by_order=wakes,
        shrinker_calls=shrinkers,
        phases=tuple(phase_log.results),
        requests=requests,
        losses=losses,
        first_metrics=tuple(scenario.metrics),
        digest=digest,
        leak_checked=leak_checked,
    )


def _digest(
    vmstat: dict[str, int], buddyinfo: dict[str, list[int]], metrics: dict[str, int], events: str
) -> str:
    document: Sequence[Any] = (vmstat, buddyinfo, metrics, events)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
