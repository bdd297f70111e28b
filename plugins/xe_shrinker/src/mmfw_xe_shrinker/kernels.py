"""What the driver does otherwise in later kernels, as named switches (drivers/gpu/drm/xe/xe_shrinker.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class XeKernel:
    """Rules of one kernel.

    Attributes
    ----------
    staged_walk : bool
        Since 6.17 a walk takes idle objects first, then active ones, then asks for writeback. Before, one walk in which
        kswapd waits for the GPU as it goes along, and asks for writeback at once.
    """

    staged_walk: bool


#: By `mmfw.kernels.KernelProfile.name`. 6.1 has no Xe; there it is the driver as its shrinker was first merged, in 6.15.
XE_KERNELS: Final = {
    "6.1": XeKernel(staged_walk=False),
    "7.1": XeKernel(staged_walk=True),
    "7.2": XeKernel(staged_walk=True),
}
