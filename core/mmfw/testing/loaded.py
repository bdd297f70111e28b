"""A machine with plugins loaded, as `mmfw.system` assembles one, but without a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfw.binding import SetUp, bind_mm_ops, bind_shrinker, hook_caller
from mmfw.costs import profile
from mmfw.machine import load_machine
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm, MmHost
from mmfw.plugins import load
from mmfw.registry import LoadedPlugins
from mmfw.sched import Scheduler
from mmfw.system import plugin_params


@dataclass(frozen=True, slots=True)
class LoadedMm:
    """A machine and the plugins on it.

    Attributes
    ----------
    mm : Mm
        The machine, before time starts.
    plugins : LoadedPlugins
        Initialised; ``plugins.module_exit(mm)`` takes them down, ``plugins.metrics()`` measures them.
    """

    mm: Mm
    plugins: LoadedPlugins


def load_mm(
    names: Sequence[str],
    machine: str = "256M",
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    buddyinfo: Mapping[str, Sequence[int]] | None = None,
    unmovable_block_fraction: float = 0.0,
    files: Sequence[Path] = (),
    kernel: str = "6.1",
    seed: int = 0,
    nr_cpus: int = 1,
    nr_swap_pages: int = 0,
    wrap_hook: Callable[[str, Callable[..., Any]], Callable[..., Any]] | None = None,
) -> LoadedMm:
    """Build a machine with installed plugins and initialise them, needs first.

    Parameters
    ----------
    names : sequence of str
        Plugins, in the order of loading.
    machine : str
        As for `make_mm`.
    params : mapping, optional
        Parameters by plugin's short name.
    buddyinfo : mapping, optional
        Free blocks by order for each zone that is not to be as boot leaves it.
    unmovable_block_fraction : float
        With ``buddyinfo``: share of pageblocks that hold unmovable pages.
    files : sequence of Path
        Single-file plugins.
    kernel, seed, nr_cpus, nr_swap_pages
        As for `make_mm`.
    wrap_hook : callable, optional
        ``wrap_hook(name, call)`` gives what is called in place of a hook that plugins publish: to listen.

    Raises
    ------
    InputError
        A plugin is not there, or parameters are wrong.

    Examples
    --------
    >>> load_mm(["ttm"], kernel="7.1", params={"ttm": {"page_pool_size": 512}}).plugins.names  # doctest: +SKIP
    ('ttm',)
    """
    plugins = load(names, files)
    state = load_machine(machine, nr_cpus).node_state(0)
    if buddyinfo is not None:
        rows = {zone: list(row) for zone, row in buddyinfo.items()}
        state = with_buddyinfo(state, rows, unmovable_block_fraction, seed, "test")

    def hook(name: str) -> Callable[..., Any]:
        call = hook_caller(plugins, name)
        return call if wrap_hook is None else wrap_hook(name, call)

    set_up = SetUp()
    host = MmHost(
        ops=bind_mm_ops(plugins, set_up),
        bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, plugins.owner_of(shrinker)),
        hook=hook,
    )
    sched = Scheduler(nr_cpus=nr_cpus, costs=profile("default"))
    mm = Mm(state, sched, host, seed=seed, kernel=kernel, nr_swap_pages=nr_swap_pages)
    plugins.module_init(mm, plugin_params(plugins, params or {}))
    set_up.done = True
    return LoadedMm(mm, plugins)
