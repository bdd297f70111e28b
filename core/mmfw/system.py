"""Assembly: a scenario, a machine and loaded plugins become something ready to run. No logic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from mmfw.binding import SetUp, bind_mm_ops, bind_shrinker, hook_caller
from mmfw.costs import profile
from mmfw.discovery import one_line
from mmfw.errors import InputError, PluginError, did_you_mean
from mmfw.jit.page import NS_WRITEBACK
from mmfw.machine import Machine, load_machine
from mmfw.machine.initial import unfragmented, with_buddyinfo
from mmfw.machine.pcmodel import parse_ram_size
from mmfw.mm.core import Mm, MmHost
from mmfw.offers import Metric, Workload
from mmfw.phases import PhasePlan, Phases
from mmfw.registry import LoadedPlugins
from mmfw.scenario import InitialState, Scenario
from mmfw.sched import Scheduler, Task, TaskState
from mmfw.state import NodeState

#: Virtual time that a machine is given to come to rest after a run.
REST_NS: Final = 10_000_000_000


@dataclass(frozen=True, slots=True)
class System:
    """Everything of one run.

    Attributes
    ----------
    scenario : Scenario
        What is run.
    plugins : LoadedPlugins
        Who takes part.
    sched : Scheduler
        Its clock.
    mm : Mm
        Its memory.
    metrics : dict of str to Metric
        What plugins measure, by name.
    phases : Phases
        Its phases, none of them begun before time runs.
    """

    scenario: Scenario
    plugins: LoadedPlugins
    sched: Scheduler
    mm: Mm
    metrics: dict[str, Metric]
    phases: Phases


def _validated(model: type[BaseModel], values: Mapping[str, Any], where: str) -> BaseModel:
    try:
        return model.model_validate(dict(values), strict=False, extra="forbid")
    except ValidationError as fault:
        first = fault.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InputError(f"{where}.{key}: no such key; {did_you_mean(key, model.model_fields)}") from None
        place = f"{where}.{key}" if key else where
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: {message} (it is {first['input']!r:.60})") from None
    except Exception as fault:
        raise PluginError(one_line(fault), plugin=where, hook="parameters") from fault


def plugin_params(plugins: LoadedPlugins, values: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseModel]:
    """Parameters of every plugin that has some, validated.

    Raises
    ------
    InputError
        Values for a plugin that is not loaded or takes none, or values it does not accept.
    """
    models = plugins.plugin_params()
    for name in values:
        if name not in models:
            if name in plugins.names:
                raise InputError(f"params.{name}: plugin {name} takes no parameters")
            known = sorted(models)
            raise InputError(
                f"params.{name}: no loaded plugin of that name takes parameters; {did_you_mean(name, known)}"
            )
    return {name: _validated(model, values.get(name, {}), f"params.{name}") for name, model in models.items()}


def _start_state(machine: Machine, state: InitialState, seed: int, name: str) -> NodeState:
    node = machine.node_state(seed)
    if not state.buddyinfo:
        return node
    by_zone = {str(zone): row for zone, row in state.buddyinfo.items()}
    if state.fragmentation == "none":
        by_zone = {zone: unfragmented(row) for zone, row in by_zone.items()}
    return with_buddyinfo(node, by_zone, state.unmovable_block_fraction, seed, name)


@lru_cache(maxsize=4)
def _kept_start_state(ram: str, nr_cpus: int, state_json: str, seed: int, name: str) -> NodeState:
    """Arrays of the memory that a run starts from; runs of one scenario and seed in one process share them."""
    return _start_state(load_machine(ram, nr_cpus), InitialState.model_validate_json(state_json), seed, name)


def _new_mm(
    scenario: Scenario, machine: Machine, plugins: LoadedPlugins, set_up: SetUp, seed: int, kernel: str
) -> Mm:
    """The machine, in its first state."""
    if parse_ram_size(machine.name) is None:
        state = _start_state(machine, scenario.state, seed, scenario.name)
    else:
        state_json = scenario.state.model_dump_json()
        state = _kept_start_state(machine.name, machine.nr_cpus, state_json, seed, scenario.name)
    host = MmHost(
        ops=bind_mm_ops(plugins, set_up),
        bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, plugins.owner_of(shrinker)),
        hook=lambda name: hook_caller(plugins, name),
    )
    sched = Scheduler(nr_cpus=machine.nr_cpus, costs=profile(scenario.costs, scenario.cost_ns))
    mm = Mm(
        state,
        sched,
        host,
        seed=seed,
        kernel=kernel,
        nr_swap_pages=scenario.nr_swap_pages,
        vm=scenario.vm.sysctls(),
    )
    if scenario.state.page_cache_pages:
        pages = scenario.state.page_cache_pages
        pfns = mm.claim_resident(pages, movable=True, what="state.page_cache_pages")
        mm.page_cache.adopt(mm.page_cache.open(pages), pfns)
    return mm


@dataclass(frozen=True, slots=True)
class _Start:
    """A workload that will be started `count` times."""

    load: Workload
    values: BaseModel | None
    count: int
    phase: str | None


def _starts(scenario: Scenario, plugins: LoadedPlugins) -> list[_Start]:
    """What the scenario starts, its parameters validated."""
    offered = plugins.workloads()
    starts = []
    for spec in scenario.workloads:
        if spec.name not in offered:
            raise InputError(
                f"scenario {scenario.name}: no loaded plugin offers workload {spec.name!r}; "
                f"{did_you_mean(spec.name, offered)}"
            )
        load = offered[spec.name]
        if load.params is None and spec.params:
            raise InputError(f"scenario {scenario.name}: workload {spec.name} takes no parameters")
        values = (
            None if load.params is None else _validated(load.params, spec.params, f"workload {spec.name}")
        )
        starts.append(_Start(load, values, spec.count, spec.phase))
    return starts


def _spawn(mm: Mm, starts: list[_Start]) -> list[Task]:
    return [
        mm.sched.spawn(start.load.run, mm, start.values, name=f"{start.load.name}-{i}", daemon=True)
        for start in starts
        for i in range(start.count)
    ]


def build_system(
    scenario: Scenario,
    machine: Machine,
    plugins: LoadedPlugins,
    *,
    seed: int,
    kernel: str,
    short: bool = False,
) -> System:
    """Build a run up to the moment before time starts, and start its clock.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    machine : Machine
        On what.
    plugins : LoadedPlugins
        With whom.
    seed : int
        Decides everything that is left to chance.
    kernel : str
        Kernel profile.
    short : bool
        Whether phases last their short durations.

    Raises
    ------
    InputError
        The scenario asks for something that the machine or the plugins do not have.
    PluginError
        A plugin failed in its set-up.
    """
    params = plugin_params(plugins, scenario.params)
    set_up = SetUp()
    mm = _new_mm(scenario, machine, plugins, set_up, seed, kernel)
    plugins.module_init(mm, params)
    set_up.done = True
    starts = _starts(scenario, plugins)
    metrics = plugins.metrics()

    def plan(name: str, duration_ns: int | None) -> PhasePlan:
        own = [start for start in starts if start.phase == name]
        return PhasePlan(name, duration_ns, lambda: _spawn(mm, own))

    plans = [plan(phase.name, phase.duration_ns(short=short)) for phase in scenario.phases]
    phases = Phases(mm.sched, plans)
    mm.start_time()
    phases.clients += _spawn(mm, [start for start in starts if start.phase is None])
    phases.start()
    return System(scenario, plugins, mm.sched, mm, metrics, phases)


def tear_down(system: System) -> bool:
    """Let the run come to rest, take the plugins down, and check that every page came back.

    Workloads are killed, which ends each when it is next in user mode; kernel threads finish what they are
    at. No work costs time any more, but sleeps and fences still take theirs.

    Returns
    -------
    bool
        Whether the check could be made: not if the machine does not come to rest within `REST_NS`.

    Raises
    ------
    PluginError
        Pages stayed allocated that neither the page cache nor the swap store holds.
    """
    mm, sched = system.mm, system.sched
    mm.stop_time()
    for task in system.phases.clients:
        sched.send_sigkill(task)
    deadline = sched.now + REST_NS
    while not _at_rest(system) and sched.now < deadline:
        sched.run(sched.now + REST_NS // 100)
    at_rest = _at_rest(system)
    sched.close()
    if not at_rest:
        return False
    system.plugins.module_exit(mm)
    mm.slab.shrink_kmalloc_caches()
    kept = mm.lruvec.nr_pages + mm.memory.nr_page_table_pages + mm.page_cache.nodes.nr_pages
    leaked = mm.nr_allocated_pages() - kept
    if leaked:
        names = ", ".join(system.plugins.names)
        whose = names if len(system.plugins.names) == 1 else f"one of {names}"
        raise PluginError(f"{leaked} pages were not given back", plugin=whose, hook="mmfw_module_exit")
    return True


def _at_rest(system: System) -> bool:
    mm = system.mm
    done = all(task.state is TaskState.DEAD for task in system.phases.clients)
    written = mm.lruvec.node_stat(NS_WRITEBACK) == 0
    return done and written and mm.kswapd.asleep and mm.kcompactd.asleep
