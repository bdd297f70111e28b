"""What TTM's pool does otherwise in later kernels, as named switches (drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmfw import gfp


@dataclass(frozen=True, slots=True)
class TtmKernel:
    """Rules of one kernel.

    Attributes
    ----------
    high_order_gfp : int
        What a request above order 0 adds: 6.1 asks for kswapd by name, 7.x keeps to the node, which also means that it
        never reclaims directly.
    lifo : bool
        The block that came last leaves a pool first.
    shrinks_one_block : bool
        The shrinker and the pool's limit free one block a step (6.1), not as many as are to be freed (7.x); the
        shrinker's batch is the default then.
    lower_order_opens_pools : bool
        After a system page the pools are asked again as soon as the order falls (6.1), not only once an order failed.
    xe_beneficial_order : int
        What the driver modelled here, Xe, says: 2 MiB since 7.2, nothing before.
    """

    high_order_gfp: int
    lifo: bool
    shrinks_one_block: bool
    lower_order_opens_pools: bool
    xe_beneficial_order: int


_6_1: Final = TtmKernel(
    high_order_gfp=gfp.KSWAPD_RECLAIM,
    lifo=True,
    shrinks_one_block=True,
    lower_order_opens_pools=True,
    xe_beneficial_order=0,
)


def _since_7(xe_beneficial_order: int) -> TtmKernel:
    return TtmKernel(
        high_order_gfp=gfp.THISNODE,
        lifo=False,
        shrinks_one_block=False,
        lower_order_opens_pools=False,
        xe_beneficial_order=xe_beneficial_order,
    )


#: By `mmfw.kernels.KernelProfile.name`.
TTM_KERNELS: Final = {"6.1": _6_1, "7.1": _since_7(0), "7.2": _since_7(9)}
