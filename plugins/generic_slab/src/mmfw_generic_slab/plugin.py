"""What mmfw loads: the caches of a list or of the table, their shrinkers, loads and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field, model_validator

from mmfw import InputError, Metric, PluginInfo, Workload, hookimpl
from mmfw_generic_slab.cache import ShrinkableCache
from mmfw_generic_slab.spec import CacheSpec, linux_shrinkers
from mmfw_generic_slab.users import (
    DemandParams,
    GenericCaches,
    UserParams,
    generic_slab_user,
    slab_order_demand,
)

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="generic-slab", hook_api=(1, 0), kind="shrinker")
PAGE_SIZE: Final = 4096


class GenericSlabParams(BaseModel):
    """Which caches there are."""

    table: Literal["linux", "none"] = Field(
        "linux", description="linux: the table of Linux's shrinkers that this distribution brings"
    )
    caches: list[CacheSpec] = Field(
        default_factory=list, description="further caches, or others in place of the table's of the same name"
    )
    leave_out: list[str] = Field(default_factory=list, description="names of the table that are not wanted")
    total_pages: int = Field(
        40_000, ge=0, description="pages shared out to caches without objects; slabs waste some more"
    )
    initial_memory: Literal["free", "resident"] = Field(
        "free",
        description="where initial objects lie: allocated from free memory, or in single pages that the state holds "
        "allocated",
    )

    @model_validator(mode="after")
    def _names_are_known_and_differ(self) -> GenericSlabParams:
        names = [each.name for each in self.caches]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"two caches are named {doubled!r}")
        known = [row.name for row in linux_shrinkers()]
        unknown = next((name for name in self.leave_out if name not in known), None)
        if unknown is not None:
            raise ValueError(f"leave_out: the table has no {unknown!r}; it has {', '.join(known)}")
        return self

    def specs(self) -> list[CacheSpec]:
        """The caches wanted: the table's in its order, then the others."""
        own = {each.name: each for each in self.caches}
        rows = linux_shrinkers() if self.table == "linux" else ()
        wanted = [own.pop(row.name, row) for row in rows if row.name not in self.leave_out]
        return [*wanted, *own.values()]


def share_out(specs: list[CacheSpec], total_pages: int) -> list[int]:
    """Number of objects of each cache: its own, or what its share of the pages holds, at least one if it has a share."""
    shares = sum(spec.share for spec in specs if not spec.objects)
    numbers = []
    for spec in specs:
        if spec.objects or not spec.share or not total_pages:
            numbers.append(spec.objects)
        else:
            numbers.append(
                max(1, int(total_pages * spec.share / shares * PAGE_SIZE) // spec.bytes_per_object)
            )
    return numbers


def _refuse_if_too_many(mm: Mm, nr_pages: int) -> None:
    """An initial state is not made by reclaim: it must fit into what is free above the high watermarks."""
    room = mm.global_free_pages() - sum(zone.watermark[2] for zone in mm.pgdat.node_zones)
    if nr_pages > room:
        raise InputError(
            f"params.generic-slab: the caches want some {nr_pages} pages, but {room} are free; make total_pages smaller, "
            'the machine larger, or initial_memory "resident"'
        )


def _refuse_if_modelled_already(mm: Mm, specs: list[CacheSpec]) -> None:
    """A slab cache belongs to one plugin."""
    taken = {cache.name for cache in mm.slab.caches}
    for spec in specs:
        if spec.kind == "slab" and (spec.slab_cache or spec.name) in taken:
            raise InputError(
                f"params.generic-slab: slab cache {spec.slab_cache or spec.name!r} of {spec.name} exists, so another "
                f"plugin models it; put {spec.name!r} into leave_out, or give it another slab_cache"
            )


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the caches."""
    return GenericSlabParams


@hookimpl
def mmfw_module_init(mm: Mm, params: GenericSlabParams) -> None:
    """Make the caches, fill them and register their shrinkers."""
    state = GenericCaches()
    specs = params.specs()
    numbers = share_out(specs, params.total_pages)
    _refuse_if_modelled_already(mm, specs)
    if params.initial_memory == "free":
        nr_bytes = sum(n * spec.bytes_per_object for n, spec in zip(numbers, specs, strict=True))
        _refuse_if_too_many(mm, nr_bytes // PAGE_SIZE)
    for spec, nr_objects in zip(specs, numbers, strict=True):
        cache = ShrinkableCache(mm, spec, nr_objects)
        state.caches[spec.name] = cache
        if nr_objects:
            cache.fill(resident=params.initial_memory == "resident")
        state.shrinkers.append(mm.register_shrinker(cache, spec.name))
    mm.attached.put(state)


@hookimpl
def mmfw_register_workloads() -> Iterable[Workload]:
    """Users, and a demand for large blocks."""
    yield Workload(
        "generic-slab-user",
        "Uses objects of the generic caches, some keys more than others, and makes again what is gone",
        run=generic_slab_user,
        params=UserParams,
    )
    yield Workload(
        "slab-order-demand",
        "Asks for blocks of one order at a rate and holds some of them",
        run=slab_order_demand,
        params=DemandParams,
    )


def _sum(read: Callable[[ShrinkableCache], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        state = mm.attached.get(GenericCaches)
        return 0 if state is None else sum(read(cache) for cache in state.caches.values())

    return from_mm


def _of_state(read: Callable[[GenericCaches], int]) -> Callable[[Mm], int]:
    def from_mm(mm: Mm) -> int:
        state = mm.attached.get(GenericCaches)
        return 0 if state is None else read(state)

    return from_mm


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Sums over the caches; ``mm.ledger`` has them one by one."""
    yield Metric(
        "generic_slab_touches",
        "1",
        "counter",
        "higher",
        "Uses of objects",
        read=_of_state(lambda state: state.nr_touches),
    )
    yield Metric(
        "generic_slab_misses",
        "1",
        "counter",
        "lower",
        "Uses of objects that had to be made first",
        read=_sum(lambda cache: cache.nr_misses),
    )
    yield Metric(
        "generic_slab_objects",
        "1",
        "gauge",
        "neither",
        "Objects of all caches",
        read=_sum(lambda cache: cache.nr_objects),
    )
    yield Metric(
        "generic_slab_pages",
        "pages",
        "gauge",
        "neither",
        "Pages of all caches",
        read=_sum(lambda cache: cache.nr_pages),
    )
    yield Metric(
        "generic_slab_objects_freed",
        "1",
        "counter",
        "lower",
        "Objects that the shrinkers freed",
        read=_sum(lambda cache: cache.nr_evicted),
    )
    yield Metric(
        "generic_slab_pages_freed",
        "pages",
        "counter",
        "neither",
        "Pages that came free with them",
        read=_sum(lambda cache: cache.nr_pages_freed),
    )
    yield Metric(
        "generic_slab_enomem",
        "1",
        "counter",
        "lower",
        "Objects not made for want of memory",
        read=_sum(lambda cache: cache.nr_enomem),
        each_matters=True,
    )
    yield Metric(
        "generic_slab_demands_met",
        "1",
        "counter",
        "higher",
        "Blocks that slab-order-demand got",
        read=_of_state(lambda state: state.nr_demands_met),
    )


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Unregister the shrinkers and free the caches, the newest first."""
    state = mm.attached.get(GenericCaches)
    if state is not None:
        for shrinker in reversed(state.shrinkers):
            mm.unregister_shrinker(shrinker)
        for cache in reversed(state.caches.values()):
            cache.destroy()
