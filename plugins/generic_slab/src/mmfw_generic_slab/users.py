"""Loads: users of the caches, and requests for large blocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field

from mmfw import InputError, gfp
from mmfw_generic_slab.cache import ShrinkableCache

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker
    from mmfw.rawrandom import Rng
    from mmfw_generic_slab.backing import Ints

NSEC_PER_SEC: Final = 1_000_000_000
#: Time between two rounds of a user, in which it touches every cache once.
ROUND_NS: Final = 50_000_000
#: What using an object takes, ns; an estimate: a lookup in a hash table and a lock.
TOUCH_NS: Final = 100


@dataclass(slots=True)
class GenericCaches:
    """The caches of a machine and their shrinkers, in order of registration; attached to the `Mm`.

    Attributes
    ----------
    caches : dict of str to ShrinkableCache
        By name.
    shrinkers : list of Shrinker
        Theirs.
    nr_demands_met : int
        Blocks that ``slab-order-demand`` got.
    nr_touches : int
        Uses of objects.
    """

    caches: dict[str, ShrinkableCache] = field(default_factory=dict)
    shrinkers: list[Shrinker] = field(default_factory=list)
    nr_demands_met: int = 0
    nr_touches: int = 0


class UserParams(BaseModel):
    """Whoever uses the objects."""

    caches: list[str] = Field(default_factory=list, description="names of the caches; all if empty")
    touches_per_second: int = Field(
        100_000, ge=1, description="uses of objects, over all caches by their number"
    )
    hot_percent: int = Field(20, ge=1, le=100, description="keys of each cache that are hot")
    hot_touch_percent: int = Field(80, ge=0, le=100, description="uses that go to the hot keys")


class DemandParams(BaseModel):
    """Requests for blocks of one order."""

    order: int = Field(9, ge=0, le=10, description="their order")
    per_second: int = Field(100, ge=1, description="requests")
    hold: int = Field(50, ge=0, description="blocks kept at a time; the oldest is freed for a new one")
    request: Literal["opportunistic", "must", "nowait"] = Field(
        "opportunistic",
        description="GFP_KERNEL with __GFP_NORETRY, plain GFP_KERNEL, or without direct reclaim",
    )


MASKS: Final = {
    "opportunistic": gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN | gfp.COMP,
    "must": gfp.GFP_KERNEL | gfp.NOWARN | gfp.COMP,
    "nowait": (gfp.GFP_KERNEL | gfp.NOWARN | gfp.COMP) & ~gfp.DIRECT_RECLAIM,
}


def caches_of(mm: Mm, load: str) -> GenericCaches:
    """The machine's caches.

    Raises
    ------
    InputError
        There are none: plugin generic-slab is not set up.
    """
    caches = mm.attached.get(GenericCaches)
    if caches is None:
        raise InputError(f"workload {load}: there are no generic caches; load plugin generic-slab")
    return caches


def draw_keys(rng: Rng, nr_keys: int, size: int, params: UserParams) -> Ints:
    """Keys to use: the hot ones are the first `hot_percent` of a cache's keys, at least one."""
    nr_hot = max(1, nr_keys * params.hot_percent // 100)
    keys = rng.below(nr_keys, size)
    hot = rng.below(100, size) < params.hot_touch_percent
    keys[hot] %= nr_hot
    return keys


def generic_slab_user(mm: Mm, params: UserParams) -> None:
    """Use objects of every cache in turn, round after round, and make again what is gone, waiting for it."""
    state = caches_of(mm, "generic-slab-user")
    unknown = [name for name in params.caches if name not in state.caches]
    if unknown:
        raise InputError(
            f"workload generic-slab-user: no cache {unknown[0]!r}; there are {', '.join(state.caches)}"
        )
    chosen = [state.caches[name] for name in params.caches or state.caches]
    chosen = [cache for cache in chosen if cache.nr_keys]
    rng = mm.rng(f"generic-slab-user {mm.sched.current.pid}")
    nr_keys = sum(cache.nr_keys for cache in chosen)
    per_round = params.touches_per_second * ROUND_NS // NSEC_PER_SEC
    sched, owed, due = mm.sched, dict.fromkeys(params.caches or state.caches, 0), mm.sched.now
    while True:
        for cache in chosen:
            # What a round owes a small cache adds up until it is a use.
            owed[cache.spec.name] += per_round * cache.nr_keys
            nr, owed[cache.spec.name] = divmod(owed[cache.spec.name], nr_keys)
            if nr:
                made = cache.touch(draw_keys(rng, cache.nr_keys, nr, params))
                state.nr_touches += nr
                mm.charge(nr * TOUCH_NS, "use")
                if made:
                    sched.sleep(made * cache.spec.recreate_us * 1_000)
        due = max(due + ROUND_NS, sched.now)
        sched.nanosleep(max(due - sched.now, 1))


def slab_order_demand(mm: Mm, params: DemandParams) -> None:
    """Ask for blocks at a rate and hold some; they are freed when the load is killed."""
    state = caches_of(mm, "slab-order-demand")
    held: deque[int] = deque()
    period = NSEC_PER_SEC // params.per_second
    due = mm.sched.now
    try:
        while True:
            pfn = mm.alloc_pages(MASKS[params.request], params.order)
            if pfn >= 0:
                state.nr_demands_met += 1
                held.append(pfn)
            while len(held) > params.hold:
                mm.free_pages(held.popleft(), params.order)
            due = max(due + period, mm.sched.now)
            mm.sched.nanosleep(max(due - mm.sched.now, 1))
    finally:
        for pfn in held:
            mm.free_pages(pfn, params.order)
