"""Assembly: a scenario, a machine and loaded plugins become something ready to run. No logic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from mmfw.binding import bind_mm_ops, bind_shrinker, hook_caller
from mmfw.costs import profile
from mmfw.discovery import one_line
from mmfw.errors import InputError, PluginError, did_you_mean
from mmfw.machine import Machine
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm, MmHost
from mmfw.registry import LoadedPlugins
from mmfw.scenario import Scenario
from mmfw.sched import Scheduler, Task, TaskState
from mmfw.types import Metric, Workload

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
    clients : tuple of Task
        Tasks of the workloads, in the order of the scenario.
    """

    scenario: Scenario
    plugins: LoadedPlugins
    sched: Scheduler
    mm: Mm
    metrics: dict[str, Metric]
    clients: tuple[Task, ...]


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
            known = sorted(models)
            raise InputError(
                f"params.{name}: no loaded plugin of that name takes parameters; {did_you_mean(name, known)}"
            )
    return {name: _validated(model, values.get(name, {}), f"params.{name}") for name, model in models.items()}


def build_system(
    scenario: Scenario, machine: Machine, plugins: LoadedPlugins, *, seed: int, kernel: str
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

    Raises
    ------
    InputError
        The scenario asks for something that the machine or the plugins do not have.
    PluginError
        A plugin failed in its set-up.
    """
    state = machine.node_state(seed)
    if scenario.state.buddyinfo:
        by_zone: dict[str, list[int]] = {str(zone): row for zone, row in scenario.state.buddyinfo.items()}
        state = with_buddyinfo(state, by_zone, scenario.state.unmovable_block_fraction, seed, scenario.name)
    params = plugin_params(plugins, scenario.params)
    sched = Scheduler(nr_cpus=machine.nr_cpus, costs=profile(scenario.costs))
    host = MmHost(
        ops=bind_mm_ops(plugins),
        bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, plugins.owner_of(shrinker)),
        hook=lambda name: hook_caller(plugins, name),
    )
    mm = Mm(state, sched, host, seed=seed, kernel=kernel, nr_swap_pages=scenario.nr_swap_pages)
    if scenario.state.page_cache_pages:
        pages = scenario.state.page_cache_pages
        pfns = mm.claim_resident(pages, movable=True, what="state.page_cache_pages")
        mm.page_cache.adopt(mm.page_cache.open(pages), pfns)
    plugins.module_init(mm, params)
    offered = plugins.workloads()
    metrics = plugins.metrics()
    clients: list[Task] = []
    starts: list[tuple[Workload, BaseModel | None, int]] = []
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
        starts += [(load, values, i) for i in range(spec.count)]
    mm.start_time()
    for load, values, number in starts:
        clients.append(sched.spawn(load.run, mm, values, name=f"{load.name}-{number}", daemon=True))
    return System(scenario, plugins, sched, mm, metrics, tuple(clients))


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
    for task in system.clients:
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
    kept = mm.lruvec.nr_pages + mm.memory.nr_page_table_pages + mm.swap.nr_shmem
    kept += mm.page_cache.nodes.nr_pages
    leaked = mm.nr_allocated_pages() - kept
    if leaked:
        names = ", ".join(system.plugins.names)
        raise PluginError(f"{leaked} pages were not given back", plugin=names, hook="mmfw_module_exit")
    return True


def _at_rest(system: System) -> bool:
    mm = system.mm
    done = all(task.state is TaskState.DEAD for task in system.clients)
    return done and mm.kswapd.asleep and mm.kcompactd.asleep
