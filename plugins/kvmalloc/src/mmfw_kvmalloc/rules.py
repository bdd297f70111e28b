"""With which mask kvmalloc asks for a block, by kernel."""

from __future__ import annotations

from enum import Enum

from mmfw import gfp

PAGE_SIZE = 4096


class Rules(Enum):
    """Whose ``kvmalloc_node()`` it is."""

    #: Up to 6.15: one round of direct compaction and reclaim (mm/util.c of 6.1).
    V6_1 = "6.1"
    #: Since 6.16 ("mm: kvmalloc: make kmalloc fast path real fast path", M. Hocko, 2025): kswapd is woken, that is all.
    V6_16 = "6.16"

    @classmethod
    def of_kernel(cls, kernel: str) -> Rules:
        """Those of a kernel profile."""
        return cls.V6_1 if kernel == "6.1" else cls.V6_16


def kmalloc_gfp_adjust(gfp_mask: int, size: int, rules: Rules) -> int:
    """Mask of the attempt to get a contiguous block (``kmalloc_gfp_adjust()``; in 6.1 within ``kvmalloc_node()``).

    A request of a page or less is left as it is, for vmalloc would not help it. Both rule sets let
    ``__GFP_RETRY_MAYFAIL`` try harder, and both leave ``__GFP_NOFAIL`` to vmalloc. 6.16's holds for every size above a
    page, not for costly orders only.

    Parameters
    ----------
    gfp_mask : int
        The caller's.
    size : int
        Bytes.
    rules : Rules
        Which kernel's.

    Examples
    --------
    >>> hex(kmalloc_gfp_adjust(gfp.GFP_KERNEL, 65536, Rules.V6_1)), hex(gfp.GFP_KERNEL | gfp.NOWARN | gfp.NORETRY)
    ('0x12cc0', '0x12cc0')
    >>> hex(kmalloc_gfp_adjust(gfp.GFP_KERNEL, 65536, Rules.V6_16))
    '0x28c0'
    """
    if size <= PAGE_SIZE:
        return gfp_mask
    mask = gfp_mask | gfp.NOWARN
    if not mask & gfp.RETRY_MAYFAIL:
        mask = mask | gfp.NORETRY if rules is Rules.V6_1 else mask & ~gfp.DIRECT_RECLAIM
    return mask & ~gfp.NOFAIL
