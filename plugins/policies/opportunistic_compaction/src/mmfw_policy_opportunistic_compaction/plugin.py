"""The hint ``shrink_control.opportunistic_compaction``: every waker of this run of kswapd could do without.

Stands for the series "mm, drm/ttm, drm/xe: Avoid reclaim/eviction loops under fragmentation", v6 (M. Brost, 2026-06-16):
a tri-state beside ``kswapd_order``, a bit in ``struct shrink_control``, and its one user, Xe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import Metric, PluginInfo, Reclaimer, WakeReason, attach, attachment, gfp, hookimpl

if TYPE_CHECKING:
    from mmfw import KswapdRequest, KswapdWake, Mm, PgdatView, ReclaimContext, ShrinkControl

MMFW_PLUGIN: Final = PluginInfo(
    name="opportunistic-compaction", hook_api=(1, 0), kind="policy", acts_on=("xe",)
)


class Requeue(StrEnum):
    """When a premature wake-up of kswapd puts back the state of the run that has just ended."""

    #: Only where it puts back the order, too: where the order of that run exceeds what has been asked since.
    AS_ORDER = "as-order"
    ALWAYS = "always"
    NEVER = "never"


class Params(BaseModel):
    """Readings of the series; the defaults are v6."""

    hint_direct: bool = Field(False, description="direct reclaim gives the hint too, from its own request")
    reread: bool = Field(
        False,
        description="a waker that needs the memory ends the hint of the run under way, not of the next only",
    )
    boost_counts: bool = Field(
        True,
        description="a boosted watermark wakes kswapd as an order-0 waker does, as the code has it; false passes it over",
    )
    requeue: Requeue = Field(
        Requeue.AS_ORDER,
        description="whether a premature wake-up puts back who had asked: as-order (where it puts back the order), "
        "always or never",
    )
    no_direct_is_failable: bool = Field(
        False,
        description="a request that may not reclaim directly counts as failable; v6 looks at flags only",
    )


class WakerClass(Enum):
    """What a request says of itself."""

    ORDER_0 = "order 0"
    FAILABLE = "failable"  #: above order 0, NORETRY or RETRY_MAYFAIL, and not NOFAIL
    MUST = "must"  #: above order 0, any other
    NO_DIRECT = "no direct reclaim"  #: one of the others that cannot reclaim directly; v6 takes it for MUST


class HintState(Enum):
    """The tri-state of a node, ``kswapd_opportunistic_compaction_type``; the names of its values are ours."""

    NONE = 0  #: nobody has asked yet
    OPPORTUNISTIC = 1  #: all that asked could do without
    REQUIRED = 2  #: somebody that asked could not


def waker_class(order: int, gfp_mask: int) -> WakerClass:
    """Class of a request by its order and mask.

    Examples
    --------
    >>> waker_class(9, gfp.GFP_HIGHUSER | gfp.NORETRY)
    <WakerClass.FAILABLE: 'failable'>
    >>> waker_class(3, gfp.GFP_KERNEL)
    <WakerClass.MUST: 'must'>
    """
    if order == 0:
        return WakerClass.ORDER_0
    if gfp_mask & gfp.NOFAIL:
        return WakerClass.MUST
    if gfp_mask & (gfp.NORETRY | gfp.RETRY_MAYFAIL):
        return WakerClass.FAILABLE
    return WakerClass.MUST if gfp_mask & gfp.DIRECT_RECLAIM else WakerClass.NO_DIRECT


def _folded(one: HintState, other: HintState) -> HintState:
    """NONE gives way to either, and REQUIRED stays."""
    return max(one, other, key=lambda state: state.value)


@dataclass(frozen=True, slots=True)
class OpportunisticCompaction:
    """``shrink_control.opportunistic_compaction``; attached where it is set, so that absent is false."""


@dataclass(slots=True)
class NodeHint:
    """What a node remembers of kswapd's wakers; attached to its ``pg_data_t``.

    Attributes
    ----------
    params : Params
        Options.
    asked : HintState
        Wakers since kswapd last took a request.
    asked_order : int
        Their highest order.
    run : HintState
        Wakers of the run under way.
    nr_runs, nr_hinted_runs : int
        Runs for an order above 0, and those of them that began with the hint.
    nr_wakers : dict
        Wake-ups by class.
    """

    params: Params = field(default_factory=Params)
    asked: HintState = HintState.NONE
    asked_order: int = 0
    run: HintState = HintState.NONE
    nr_runs: int = 0
    nr_hinted_runs: int = 0
    nr_wakers: dict[WakerClass, int] = field(default_factory=lambda: dict.fromkeys(WakerClass, 0))

    def is_failable(self, cls: WakerClass) -> bool:
        """Whether a request of a class could do without the memory."""
        if cls is WakerClass.NO_DIRECT:
            return self.params.no_direct_is_failable
        return cls is WakerClass.FAILABLE

    def fold(self, order: int, gfp_mask: int) -> None:
        """Take one more waker into account."""
        cls = waker_class(order, gfp_mask)
        self.nr_wakers[cls] += 1
        self.asked_order = max(self.asked_order, order)
        state = HintState.OPPORTUNISTIC if self.is_failable(cls) else HintState.REQUIRED
        self.asked = _folded(self.asked, state)


def node_hint(pgdat: PgdatView) -> NodeHint:
    """State of a node; a new one for a node that nobody has asked yet."""
    node = attachment(pgdat, NodeHint)
    if node is None:
        node = NodeHint()
        attach(pgdat, node)
    return node


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return Params


@hookimpl
def mmfw_module_init(mm: Mm, params: Params) -> None:
    """Keep the options where the hooks find them."""
    node_hint(mm.pgdat).params = params


@hookimpl
def mmfw_fold_kswapd_waker(pgdat: PgdatView, wake: KswapdWake) -> None:
    """Fold a waker into the request (``wakeup_kswapd()``), whether kswapd sleeps or runs."""
    node = node_hint(pgdat)
    if wake.reason is not WakeReason.BOOST or node.params.boost_counts:
        node.fold(wake.order, wake.gfp_mask)


@hookimpl
def mmfw_kswapd_begin(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Take the request's state and clear it (``kswapd()``)."""
    node = node_hint(pgdat)
    node.run, node.asked, node.asked_order = node.asked, HintState.NONE, 0
    if request.order:
        node.nr_runs += 1
        node.nr_hinted_runs += node.run is HintState.OPPORTUNISTIC


@hookimpl
def mmfw_kswapd_requeue(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Put it back, as ``kswapd_order`` is after a premature wake-up (``kswapd_try_to_sleep()``; inferred).

    Wakers that come within kswapd's nap are the rule in the loop that the series is about. Would the state be put back
    every time, one waker that needs the memory would end the hint until kswapd sleeps soundly.
    """
    node = node_hint(pgdat)
    mode = node.params.requeue
    if mode is Requeue.ALWAYS or (mode is Requeue.AS_ORDER and node.asked_order < request.order):
        node.asked = _folded(node.asked, node.run)
        node.asked_order = max(node.asked_order, request.order)


@hookimpl
def mmfw_init_shrink_control(shrinkctl: ShrinkControl, reclaim_context: ReclaimContext) -> None:
    """Set the hint (``shrink_slab()``); never for order 0, so that it ends where kswapd drops the order."""
    if reclaim_context.order == 0:
        return
    node = node_hint(reclaim_context.pgdat)
    if reclaim_context.caller is Reclaimer.KSWAPD:
        if node.params.reread:
            node.run = _folded(node.run, node.asked)
        hint = node.run is HintState.OPPORTUNISTIC
    elif reclaim_context.caller is Reclaimer.DIRECT and node.params.hint_direct:
        hint = node.is_failable(waker_class(reclaim_context.order, reclaim_context.sc.gfp_mask))
    else:
        hint = False
    if hint:
        attach(shrinkctl, OpportunisticCompaction())


@hookimpl(optionalhook=True)
def xe_can_backup(sc: ShrinkControl) -> bool | None:
    """Under the hint neither count nor back up what is in use (``xe_shrinker_count()``, ``xe_shrinker_scan()``)."""
    return False if attachment(sc, OpportunisticCompaction) is not None else None


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """How often the hint was given; a ratio, so that a policy that changes nothing changes no digest."""
    yield Metric(
        "opportunistic_compaction_hinted_run_ratio",
        "1",
        "ratio",
        "neither",
        "Share of kswapd's runs for an order above 0 that began with the hint",
        read=lambda mm: _ratio(node_hint(mm.pgdat).nr_hinted_runs, node_hint(mm.pgdat).nr_runs),
    )
    for cls in WakerClass:
        yield Metric(
            f"opportunistic_compaction_{cls.name.lower()}_waker_ratio",
            "1",
            "ratio",
            "neither",
            f"Share of the wakers taken into account whose request is of class {cls.value!r}",
            read=partial(_waker_ratio, cls=cls),
        )


def _waker_ratio(mm: Mm, *, cls: WakerClass) -> float:
    wakers = node_hint(mm.pgdat).nr_wakers
    return _ratio(wakers[cls], sum(wakers.values()))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
