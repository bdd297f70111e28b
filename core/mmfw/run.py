"""What ``mmfw run`` does, without a terminal: choose a scenario, run it, measure, and digest the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mmfw.errors import InputError
from mmfw.eventlog import EventLog
from mmfw.kernels import kernel_profile
from mmfw.machine import Machine, load_machine
from mmfw.machine.pcmodel import parse_ram_size
from mmfw.observe import Observer
from mmfw.plugins import load
from mmfw.registry import LoadedPlugins
from mmfw.scenario import Scenario, find_scenarios, load_scenario, parse_duration
from mmfw.system import System, build_system, tear_down
from mmfw.watchdog import watchdog

#: Virtual time between two samples.
SAMPLE_NS: Final = 100_000_000


#: What this version leaves out of every run; printed with the result.
NOT_MODELLED: Final = (
    "memory cgroups, NUMA, CMA, the multi-gen LRU, khugepaged, vm.defrag_mode, PSI",
    "contention between CPUs on zone->lock and lru_lock",
    "shmem of backed-up objects on the LRU (it leaves RAM at the device's pace, not under pressure)",
)


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
    kernel, machine, duration : str or None
        In place of the scenario's.
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
    kernel: str | None = None
    machine: str | None = None
    duration: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    sanitize: bool = False
    trace: Path | None = None
    events: str | None = None
    trace_options: str | None = None
    proc: Path | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run; `as_json` has the names that scripts rely on.

    Attributes
    ----------
    scenario, kernel : str
        What ran.
    plugins : tuple of str
        Loaded plugins, needs first.
    machine, nr_cpus, overrides
        What it ran on, and what ``--set`` changed.
    seed, virtual_ns : int
        Seed, and virtual time run.
    wall_seconds : float
        Real time; not part of the digest.
    metrics : dict
        By name; integers, and floats for ratios.
    units : dict
        Unit of each metric.
    vmstat : dict
        Counters by their /proc/vmstat names.
    buddyinfo_before, buddyinfo : dict
        Free blocks by zone and order, at the start and at the end.
    kswapd_wakes_by_order : dict
        Passes of kswapd by the order they were for.
    shrinker_calls : dict
        By shrinker: scans started and objects freed.
    first_metrics : tuple of str
        Metrics that the scenario wants shown first.
    digest : str
        SHA-256 over vmstat, buddyinfo, events and integer metrics.
    leak_checked : bool
        Whether the machine came to rest after the run, so that every page could be asked back.
    """

    scenario: str
    kernel: str
    plugins: tuple[str, ...]
    machine: str
    nr_cpus: int
    overrides: dict[str, Any]
    seed: int
    virtual_ns: int
    wall_seconds: float
    metrics: dict[str, int | float]
    units: dict[str, str]
    vmstat: dict[str, int]
    buddyinfo_before: dict[str, list[int]]
    buddyinfo: dict[str, list[int]]
    kswapd_wakes_by_order: dict[str, int]
    shrinker_calls: dict[str, dict[str, int]]
    first_metrics: tuple[str, ...]
    digest: str
    leak_checked: bool

    @property
    def validated(self) -> str:
        """What of this run has been held against a real kernel."""
        said = f"core validated against 6.1.192; drivers modelled after {self.kernel}, not validated"
        if self.kernel != "6.1":
            said += f"; what the core of {self.kernel} does otherwise is modelled from its sources and not validated"
        return said

    def as_json(self) -> dict[str, Any]:
        """The JSON document of ``mmfw run --format json``."""
        return {
            "scenario": self.scenario,
            "kernel": self.kernel,
            "plugins": list(self.plugins),
            "policies": [],
            "machine": self.machine,
            "nr_cpus": self.nr_cpus,
            "set": self.overrides,
            "seed": self.seed,
            "virtual_seconds": self.virtual_ns / 1e9,
            "wall_seconds": round(self.wall_seconds, 3),
            "digest": self.digest,
            "metrics": self.metrics,
            "vmstat": self.vmstat,
            "buddyinfo_before": self.buddyinfo_before,
            "buddyinfo": self.buddyinfo,
            "kswapd_wakes_by_order": self.kswapd_wakes_by_order,
            "shrinker_calls": self.shrinker_calls,
            "leak_checked": self.leak_checked,
            "validated": self.validated,
            "not_modelled": list(NOT_MODELLED),
        }


class _Sampler:
    """Reads free memory at fixed virtual times, from a timer, so that the load does not notice."""

    def __init__(
        self, system: System, until_ns: int, progress: Callable[[int, int], None] | None, *, sanitize: bool
    ) -> None:
        self._mm = system.mm
        self._sched = system.sched
        self._until = until_ns
        self._progress = progress
        self._sanitize = sanitize
        self._total: int | None = None
        self.nr_free_pages: list[int] = [self._mm.global_free_pages()]
        self._arm()

    def _arm(self) -> None:
        if self._sched.now + SAMPLE_NS <= self._until:
            self._sched.call_at(self._sched.now + SAMPLE_NS, self._sample)

    def _sample(self) -> None:
        self.nr_free_pages.append(self._mm.global_free_pages())
        if self._sanitize:
            self._total = self._mm.check_memory(self._total)
        if self._progress is not None:
            self._progress(self._sched.now, self._until)
        self._arm()


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
    return load(names, list(request.plugin_files))


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
    until_ns = parse_duration(request.duration or scenario.duration)
    scenario, machine = _machine(request, scenario)
    system = build_system(scenario, machine, plugins, seed=request.seed, kernel=kernel)
    mm, sched = system.mm, system.sched
    before = mm.buddyinfo()
    observer.start(mm)
    log = EventLog(mm)
    sampler = _Sampler(system, until_ns, progress, sanitize=request.sanitize)
    try:
        with watchdog(sched):
            sched.run(until_ns)
        metrics, units = _measure(system, log, sampler, until_ns)
        vmstat, buddyinfo = mm.vmstat.as_dict(), mm.buddyinfo()
        shrinkers = {s.ops.name: {"calls": s.nr_calls, "freed": s.nr_freed} for s in mm.shrinkers}
        whole = {name: value for name, value in metrics.items() if isinstance(value, int)}
        wakes = {str(order): n for order, n in sorted(log.kswapd_wakes.items())}
        digest = _digest(vmstat, buddyinfo, whole, log.hexdigest())
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
        machine=machine.name,
        nr_cpus=machine.nr_cpus,
        overrides=request.overrides,
        seed=request.seed,
        virtual_ns=until_ns,
        wall_seconds=time.perf_counter() - started,
        metrics=metrics,
        units=units,
        vmstat=vmstat,
        buddyinfo_before=before,
        buddyinfo=buddyinfo,
        kswapd_wakes_by_order=wakes,
        shrinker_calls=shrinkers,
        first_metrics=tuple(scenario.metrics),
        digest=digest,
        leak_checked=leak_checked,
    )


def _measure(
    system: System, log: EventLog, sampler: _Sampler, until_ns: int
) -> tuple[dict[str, int | float], dict[str, str]]:
    samples = sorted(sampler.nr_free_pages)
    metrics: dict[str, int | float] = {
        "kswapd_wakes": sum(log.kswapd_wakes.values()),
        "kswapd_busy_ratio": system.mm.kswapd.busy_ns / until_ns,
        "nr_free_pages_min": samples[0],
        "nr_free_pages_median": samples[len(samples) // 2],
        "nr_free_pages_end": sampler.nr_free_pages[-1],
    }
    units = {"kswapd_wakes": "1", "kswapd_busy_ratio": "ratio"}
    units |= {name: "pages" for name in metrics if name.startswith("nr_free")}
    for name, metric in system.metrics.items():
        metrics[name] = metric.read(system.mm)
        units[name] = metric.unit
    return metrics, units


def _digest(
    vmstat: dict[str, int], buddyinfo: dict[str, list[int]], metrics: dict[str, int], events: str
) -> str:
    document: Sequence[Any] = (vmstat, buddyinfo, metrics, events)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
