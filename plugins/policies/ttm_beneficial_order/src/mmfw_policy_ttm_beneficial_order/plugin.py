"""TTM asks for orders beyond the device's gain without reclaim: a change of masks in ``ttm_pool_alloc_page()``.

Stands for the TTM part of the series "mm, drm/ttm, drm/xe: Avoid reclaim/eviction loops under fragmentation" (M. Brost,
v1 to v5, 2026), and for Xe's ``beneficial_order`` of 2 MiB, which 7.2 merged by itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import BaseModel, Field

from mmfw import InputError, PluginInfo, gfp, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm

MMFW_PLUGIN: Final = PluginInfo(name="ttm-beneficial-order", hook_api=(1, 0), kind="policy", acts_on=("ttm",))


class TtmPool(Protocol):
    """What the policy needs of ttm's pool, which it does not import."""

    mm: Mm


class Mode(StrEnum):
    """Which orders lose what."""

    #: Only the beneficial order reclaims directly, with ``__GFP_NORETRY``; so does order 0, as ever (published).
    NORETRY = "noretry"
    #: Orders above the beneficial one do not reclaim directly; what 7.2 does.
    NO_DIRECT = "no-direct"
    #: Nor do they wake kswapd.
    NO_KSWAPD = "no-kswapd"


class Params(BaseModel):
    """Which change, for which order."""

    mode: Mode = Field(
        Mode.NORETRY, description="noretry (published), no-direct (as merged for 7.2) or no-kswapd"
    )
    beneficial_order: int = Field(
        9, ge=1, le=10, description="order that the device gains from: 2 MiB for Xe"
    )


def beneficial_gfp_mask(flags: int, order: int, params: Params) -> int:
    """Mask of a system allocation under the policy.

    Examples
    --------
    >>> hex(beneficial_gfp_mask(gfp.GFP_KERNEL, 10, Params(mode=Mode.NO_DIRECT)))
    '0x8c0'
    >>> hex(beneficial_gfp_mask(gfp.GFP_KERNEL, 10, Params(mode=Mode.NO_KSWAPD)))
    '0xc0'
    >>> hex(beneficial_gfp_mask(gfp.GFP_KERNEL, 4, Params(mode=Mode.NORETRY)))
    '0x8c0'
    """
    if order == 0:
        return flags
    if params.mode is Mode.NORETRY:
        return flags | gfp.NORETRY if order == params.beneficial_order else flags & ~gfp.DIRECT_RECLAIM
    if order <= params.beneficial_order:
        return flags
    return flags & ~(gfp.DIRECT_RECLAIM if params.mode is Mode.NO_DIRECT else gfp.RECLAIM)


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Options of the policy."""
    return Params


@hookimpl
def mmfw_module_init(mm: Mm, params: Params) -> None:
    """Keep the options where the hook finds them.

    Raises
    ------
    InputError
        The kernel does this already.
    """
    if params.mode is Mode.NO_DIRECT and mm.kernel == "7.2":
        raise InputError(
            "policy ttm-beneficial-order: kernel 7.2 has mode=no-direct itself, so the policy would change nothing; "
            "take kernel 7.1 or another mode (noretry, no-kswapd)"
        )
    mm.attached.put(params)


@hookimpl(optionalhook=True)
def ttm_pool_gfp_mask(pool: TtmPool, order: int, flags: int) -> int | None:
    """Answer only where the mask changes (``ttm_pool_alloc_page()``)."""
    params = pool.mm.attached.get(Params)
    if params is None:
        return None
    mask = beneficial_gfp_mask(flags, order, params)
    return None if mask == flags else mask
