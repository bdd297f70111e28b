"""The policy: TTM leaves an order alone for a while after a request failed or cost the device objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field, model_validator

from mmfw import Metric, PluginInfo, gfp, hookimpl
from mmfw_policy_reclaim_backoff.backoff import NSEC_PER_MSEC, Backoff

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw import Mm
    from mmfw_ttm_pool import TtmPool

MMFW_PLUGIN: Final = PluginInfo(
    name="reclaim-backoff",
    hook_api=(1, 0),
    kind="policy",
    composes_with=("ttm-beneficial-order",),
    acts_on=("ttm",),
)
#: Accounts of ``mm.ledger`` whose evictions count: those of drivers that allocate from the pool.
DRIVERS: Final = ("xe",)
#: ``enum zone_watermarks`` (include/linux/mmzone.h).
WMARK_LOW: Final = 1
#: ``mmfw_ttm_pool.SKIP_ORDER``, which may not be installed.
SKIP_ORDER: Final = -1


class BackoffParams(BaseModel):
    """Options of the policy."""

    first_ms: int = Field(10, ge=1, description="how long an order is left alone after its first failure, ms")
    longest_ms: int = Field(1000, ge=1, description="the interval doubles up to this, ms")
    mode: Literal["skip", "no-reclaim"] = Field(
        "skip", description="skip: the order is not asked for; no-reclaim: without any reclaim flag"
    )
    count_evictions: bool = Field(
        True,
        description="a request after which the device lost objects counts as failed, even if it succeeded",
    )
    min_order: int = Field(1, ge=1, le=11, description="orders below it are as in mainline; 11 for all")

    @model_validator(mode="after")
    def _intervals_grow(self) -> BackoffParams:
        if self.longest_ms < self.first_ms:
            raise ValueError(
                f"longest_ms is {self.longest_ms}; it must be at least first_ms, {self.first_ms}"
            )
        return self


class _Policy:
    """The policy's state on one machine."""

    def __init__(self, mm: Mm, params: BackoffParams) -> None:
        self._mm = mm
        self.params = params
        self.backoff = Backoff(params.first_ms * NSEC_PER_MSEC, params.longest_ms * NSEC_PER_MSEC)
        self.nr_heard = 0
        self.nr_kept_back = 0

    def nr_evicted(self) -> int:
        """Objects that drivers have lost so far."""
        if not self.params.count_evictions:
            return 0
        return sum(losses.nr_objects_evicted for name, losses in self._mm.ledger if name in DRIVERS)

    def has_block(self, order: int, flags: int) -> bool:
        """Whether a zone that the request may use has such a block or a larger one to give, its low watermark kept."""
        highest = gfp.gfp_zone(flags)
        for zone in self._mm.pgdat.node_zones[: highest + 1]:
            kept = zone.wmark_pages(WMARK_LOW) + zone.lowmem_reserve[highest] + (1 << order)
            if zone.managed_pages and zone.nr_free_pages > kept and any(map(zone.nr_free, range(order, 11))):
                return True
        return False


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return BackoffParams


@hookimpl
def mmfw_module_init(mm: Mm, params: BackoffParams) -> None:
    """Begin with no order backed off from."""
    mm.attached.put(_Policy(mm, params))


@hookimpl(optionalhook=True)
def ttm_pool_gfp_mask(pool: TtmPool, order: int, flags: int) -> int | None:
    """Leave an order alone while it is backed off from (``ttm_pool_alloc_page()``); a free block ends that."""
    policy = pool.mm.attached.get(_Policy)
    if policy is None or order < policy.params.min_order:
        return None
    policy.nr_heard += 1
    backoff = policy.backoff
    now = pool.mm.sched.now
    backoff.judge(now, policy.nr_evicted())
    if not backoff.is_off(order, now):
        return None
    if policy.has_block(order, flags):
        backoff.forget(order)
        return None
    policy.nr_kept_back += 1
    return SKIP_ORDER if policy.params.mode == "skip" else flags & ~gfp.RECLAIM


@hookimpl(optionalhook=True)
def ttm_pool_asked(pool: TtmPool, order: int, nr_wanted: int, nr_got: int) -> None:
    """Note what came of a run of requests (``__ttm_pool_alloc()``)."""
    policy = pool.mm.attached.get(_Policy)
    if policy is None or order < policy.params.min_order:
        return
    if nr_got < nr_wanted:
        policy.backoff.failed(order, pool.mm.sched.now)
    else:
        policy.backoff.succeeded(order, pool.mm.sched.now, policy.nr_evicted())


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """How much the policy kept back. A ratio, so that a run in which it never answers has the digest of mainline."""
    yield Metric(
        "reclaim_backoff_share",
        "1",
        "ratio",
        "neither",
        "Of the orders of ladders that came to a system request, the share that was backed off from",
        read=_share,
    )


def _share(mm: Mm) -> float:
    policy = mm.attached.get(_Policy)
    return 0.0 if policy is None or not policy.nr_heard else policy.nr_kept_back / policy.nr_heard
