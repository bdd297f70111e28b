"""Machines for tests: a whole mm in one line, for the project's own tests and for plugin authors'.

>>> mm = make_mm("256M")
>>> pfn = mm.alloc_pages(GFP_KERNEL, 0)
>>> mm.free_pages(pfn, 0)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmfw.binding import bind_shrinker
from mmfw.costs import profile
from mmfw.errors import InputError
from mmfw.gfp import GFP_KERNEL as GFP_KERNEL
from mmfw.machine import load_machine
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.core import Mm, MmHost
from mmfw.sched import Scheduler
from mmfw.state import NodeState
from mmfw.testing.loaded import LoadedMm, load_mm
from mmfw.types import MmOps

__all__ = ["GFP_KERNEL", "LoadedMm", "load_mm", "make_mm", "recorded"]


def make_mm(
    machine: str | NodeState = "256M",
    *,
    kernel: str = "6.1",
    seed: int = 0,
    nr_cpus: int = 1,
    nr_swap_pages: int = 0,
    ops: MmOps | None = None,
    hooks: dict[str, Callable[..., Any]] | None = None,
    start: bool = False,
) -> Mm:
    """Build a machine with mainline's decisions and no plugin.

    Parameters
    ----------
    machine : str or NodeState
        A RAM size (freshly booted), a folder, a snapshot file, or a state.
    kernel : str
        Kernel profile.
    seed : int
        Of everything left to chance.
    nr_cpus : int
        Online CPUs; for a RAM size.
    nr_swap_pages : int
        Size of the swap device.
    ops : MmOps, optional
        Decisions in place of mainline's.
    hooks : dict, optional
        Callers of plugin-published hooks, by name.
    start : bool
        Whether time runs: kswapd lives and work costs.
    """
    state = load_machine(machine, nr_cpus).node_state(seed) if isinstance(machine, str) else machine
    known = hooks or {}

    def hook(name: str) -> Callable[..., Any]:
        if name not in known:
            raise InputError(f"no loaded plugin has published a hook {name!r}")
        return known[name]

    host = MmHost(
        ops=ops or MmOps(plan_wakeup=mmfw_plan_wakeup, should_shrink_slab=mmfw_should_shrink_slab),
        bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, "test"),
        hook=hook,
    )
    sched = Scheduler(nr_cpus=state.nr_cpus, costs=profile("default"))
    mm = Mm(state, sched, host, seed=seed, kernel=kernel, nr_swap_pages=nr_swap_pages)
    if start:
        mm.start_time()
    return mm


def recorded(mm: Mm) -> list[Any]:
    """A list that every trace event of a machine is appended to from now on."""
    events: list[Any] = []
    mm.trace.subscribe_all(events.append)
    return events
