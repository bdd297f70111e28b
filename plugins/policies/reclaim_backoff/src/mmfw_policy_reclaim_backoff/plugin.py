"""The policy: TTM leaves an order alone for a while after a request failed or cost objects; a worker defragments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field, model_validator

from mmfw import Metric, PluginInfo, gfp, hookimpl
from mmfw_policy_reclaim_backoff.backoff import NSEC_PER_MSEC, Backoff
from mmfw_policy_reclaim_backoff.blocks import nr_free_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw import Mm
    from mmfw_policy_reclaim_backoff.defragmenter import Defragmenter
    from mmfw_ttm_pool import TtmPool
    from mmfw_xe_shrinker import XeDevice

MMFW_PLUGIN: Final = PluginInfo(
    name="reclaim-backoff",
    hook_api=(1, 0),
    kind="policy",
    composes_with=("ttm-beneficial-order",),
    acts_on=("ttm",),
)
#: Accounts of ``mm.ledger`` whose evictions count: those of drivers that allocate from the pool.
DRIVERS: Final = ("xe",)
#: Order of the defragmenter's blocks if neither the user nor TTM names one: 2 MiB, what Xe says it gains from in 7.2.
PMD_ORDER: Final = 9
NSEC_PER_SEC: Final = 1_000_000_000
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
    min_order: int = Field(
        1, ge=1, le=11, description="orders below it are asked for as in mainline; 11 for all"
    )
    defrag_pages_per_second: int = Field(
        32_768,
        ge=0,
        description="pages that the defragmenter may copy a second; 0: there is none. Assumption: 128 MiB, what "
        "DAMON_RECLAIM allows itself by default (quota_sz)",
    )
    defrag_interval_ms: int = Field(
        500,
        ge=1,
        description="how long the defragmenter sleeps between two passes, ms. Assumption: as kcompactd between two looks "
        "at fragmentation (HPAGE_FRAG_CHECK_INTERVAL_MSEC)",
    )
    defrag_order: int | None = Field(
        None,
        ge=1,
        le=10,
        description="blocks that it moves objects to; by default TTM's beneficial_order, else 9",
    )

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
        self.defragmenter: Defragmenter | None = None
        self.nr_heard = 0
        self.nr_kept_back = 0

    def nr_evicted(self) -> int:
        """Objects that drivers have lost so far."""
        if not self.params.count_evictions:
            return 0
        return sum(losses.nr_objects_evicted for name, losses in self._mm.ledger if name in DRIVERS)

    def start_defragmenter(self, device: XeDevice) -> None:
        """Start the worker for a device."""
        # Not at import: without Xe, this module must not need it.
        from mmfw_policy_reclaim_backoff.defragmenter import Defragmenter

        params = self.params
        self.defragmenter = Defragmenter(
            device,
            order=params.defrag_order or device.pool.beneficial_order or PMD_ORDER,
            pages_per_second=params.defrag_pages_per_second,
            interval_ns=params.defrag_interval_ms * NSEC_PER_MSEC,
        )
        self._mm.kthread_run(self.defragmenter.run, "ttm_defrag")

    def moved_pages_per_second(self) -> float:
        """Pages that the worker has moved, by the time it has had."""
        worker = self.defragmenter
        elapsed = 0 if worker is None else self._mm.sched.now - worker.started
        return 0.0 if worker is None or not elapsed else worker.nr_moved_pages * NSEC_PER_SEC / elapsed


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return BackoffParams


@hookimpl
def mmfw_module_init(mm: Mm, params: BackoffParams) -> None:
    """Begin with no order backed off from; start the defragmenter once every plugin is there, if Xe is one of them.

    A timer set here fires before any load runs, as ``late_initcall()`` would, whatever the order of loading; it costs no
    time.
    """
    policy = _Policy(mm, params)
    mm.attached.put(policy)
    if params.defrag_pages_per_second:
        mm.sched.call_at(mm.sched.now, lambda: _start_defragmenter(policy, mm))


def _start_defragmenter(policy: _Policy, mm: Mm) -> None:
    try:
        from mmfw_xe_shrinker import XeDevice
    except ImportError:
        return
    device = mm.attached.get(XeDevice)
    if device is not None:
        policy.start_defragmenter(device)


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
    if nr_free_blocks(pool.mm, order, flags):
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
    """How much it kept back and moved. Ratios, so that a run in which it never acts has the digest of mainline."""
    yield Metric(
        "reclaim_backoff_share",
        "1",
        "ratio",
        "neither",
        "Of the orders of ladders that came to a system request, the share that was backed off from",
        read=_share,
    )
    yield Metric(
        "reclaim_backoff_defrag_pages_per_second",
        "pages/s",
        "ratio",
        "neither",
        "Pages of objects that the defragmenter copied into larger blocks, by the time since its start",
        read=_moved_pages_per_second,
    )


def _share(mm: Mm) -> float:
    policy = mm.attached.get(_Policy)
    return 0.0 if policy is None or not policy.nr_heard else policy.nr_kept_back / policy.nr_heard


def _moved_pages_per_second(mm: Mm) -> float:
    policy = mm.attached.get(_Policy)
    return 0.0 if policy is None else policy.moved_pages_per_second()
