"""GFP bits and masks of Linux 6.1, and the text the tracepoints print for them.

Source: include/linux/gfp_types.h and include/trace/events/mmflags.h of 6.1, built without KASAN
hardware tags and without lockdep (so ``__GFP_SKIP_*`` and ``__GFP_NOLOCKDEP`` are 0).
"""

from __future__ import annotations

from typing import Final

#: Highest order for which the allocator tries hard (include/linux/mmzone.h).
PAGE_ALLOC_COSTLY_ORDER: Final = 3

__GFP_DMA: Final = 0x1
__GFP_HIGHMEM: Final = 0x2
__GFP_DMA32: Final = 0x4
__GFP_MOVABLE: Final = 0x8
__GFP_RECLAIMABLE: Final = 0x10
__GFP_HIGH: Final = 0x20
__GFP_IO: Final = 0x40
__GFP_FS: Final = 0x80
__GFP_ZERO: Final = 0x100
__GFP_ATOMIC: Final = 0x200
__GFP_DIRECT_RECLAIM: Final = 0x400
__GFP_KSWAPD_RECLAIM: Final = 0x800
__GFP_WRITE: Final = 0x1000
__GFP_NOWARN: Final = 0x2000
__GFP_RETRY_MAYFAIL: Final = 0x4000
__GFP_NOFAIL: Final = 0x8000
__GFP_NORETRY: Final = 0x10000
__GFP_MEMALLOC: Final = 0x20000
__GFP_COMP: Final = 0x40000
__GFP_NOMEMALLOC: Final = 0x80000
__GFP_HARDWALL: Final = 0x100000
__GFP_THISNODE: Final = 0x200000
__GFP_ACCOUNT: Final = 0x400000
__GFP_ZEROTAGS: Final = 0x800000

__GFP_RECLAIM: Final = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM

# The same bits without the leading underscores, for use inside a class body, where Python would rewrite
# ``__GFP_FS`` to ``_ClassName__GFP_FS``: ``gfp.FS`` and ``gfp.__GFP_FS`` are one number.
DMA: Final = __GFP_DMA
HIGHMEM: Final = __GFP_HIGHMEM
DMA32: Final = __GFP_DMA32
MOVABLE: Final = __GFP_MOVABLE
RECLAIMABLE: Final = __GFP_RECLAIMABLE
HIGH: Final = __GFP_HIGH
IO: Final = __GFP_IO
FS: Final = __GFP_FS
ZERO: Final = __GFP_ZERO
ATOMIC: Final = __GFP_ATOMIC
DIRECT_RECLAIM: Final = __GFP_DIRECT_RECLAIM
KSWAPD_RECLAIM: Final = __GFP_KSWAPD_RECLAIM
WRITE: Final = __GFP_WRITE
NOWARN: Final = __GFP_NOWARN
RETRY_MAYFAIL: Final = __GFP_RETRY_MAYFAIL
NOFAIL: Final = __GFP_NOFAIL
NORETRY: Final = __GFP_NORETRY
MEMALLOC: Final = __GFP_MEMALLOC
COMP: Final = __GFP_COMP
NOMEMALLOC: Final = __GFP_NOMEMALLOC
HARDWALL: Final = __GFP_HARDWALL
THISNODE: Final = __GFP_THISNODE
ACCOUNT: Final = __GFP_ACCOUNT
ZEROTAGS: Final = __GFP_ZEROTAGS
RECLAIM: Final = __GFP_RECLAIM

GFP_ATOMIC: Final = __GFP_HIGH | __GFP_ATOMIC | __GFP_KSWAPD_RECLAIM
GFP_KERNEL: Final = __GFP_RECLAIM | __GFP_IO | __GFP_FS
GFP_KERNEL_ACCOUNT: Final = GFP_KERNEL | __GFP_ACCOUNT
GFP_NOWAIT: Final = __GFP_KSWAPD_RECLAIM
GFP_NOIO: Final = __GFP_RECLAIM
GFP_NOFS: Final = __GFP_RECLAIM | __GFP_IO
GFP_USER: Final = GFP_KERNEL | __GFP_HARDWALL
GFP_DMA: Final = __GFP_DMA
GFP_DMA32: Final = __GFP_DMA32
GFP_HIGHUSER: Final = GFP_USER | __GFP_HIGHMEM
GFP_HIGHUSER_MOVABLE: Final = GFP_HIGHUSER | __GFP_MOVABLE
GFP_TRANSHUGE_LIGHT: Final = (
    GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NOWARN
) & ~__GFP_RECLAIM
GFP_TRANSHUGE: Final = GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM

GFP_MOVABLE_MASK: Final = __GFP_RECLAIMABLE | __GFP_MOVABLE
GFP_MOVABLE_SHIFT: Final = 3
GFP_ZONEMASK: Final = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE
#: Every bit that exists in this build; anything else in a mask is an error of the caller.
GFP_BITS_MASK: Final = 0xFFFFFF
#: What of a caller's mask says how its memory is found, and where it may lie (mm/internal.h).
GFP_RECLAIM_MASK: Final = (
    __GFP_RECLAIM
    | __GFP_HIGH
    | __GFP_IO
    | __GFP_FS
    | __GFP_NOWARN
    | __GFP_RETRY_MAYFAIL
    | __GFP_NOFAIL
    | __GFP_NORETRY
    | __GFP_MEMALLOC
    | __GFP_NOMEMALLOC
    | __GFP_ATOMIC
)
GFP_CONSTRAINT_MASK: Final = __GFP_HARDWALL | __GFP_THISNODE

#: mmflags.h's table, in its order: printing is greedy from the top.
_GFP_NAMES: Final[tuple[tuple[int, str], ...]] = (
    (GFP_TRANSHUGE, "GFP_TRANSHUGE"),
    (GFP_TRANSHUGE_LIGHT, "GFP_TRANSHUGE_LIGHT"),
    (GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
    (GFP_HIGHUSER, "GFP_HIGHUSER"),
    (GFP_USER, "GFP_USER"),
    (GFP_KERNEL_ACCOUNT, "GFP_KERNEL_ACCOUNT"),
    (GFP_KERNEL, "GFP_KERNEL"),
    (GFP_NOFS, "GFP_NOFS"),
    (GFP_ATOMIC, "GFP_ATOMIC"),
    (GFP_NOIO, "GFP_NOIO"),
    (GFP_NOWAIT, "GFP_NOWAIT"),
    (GFP_DMA, "GFP_DMA"),
    (__GFP_HIGHMEM, "__GFP_HIGHMEM"),
    (GFP_DMA32, "GFP_DMA32"),
    (__GFP_HIGH, "__GFP_HIGH"),
    (__GFP_ATOMIC, "__GFP_ATOMIC"),
    (__GFP_IO, "__GFP_IO"),
    (__GFP_FS, "__GFP_FS"),
    (__GFP_NOWARN, "__GFP_NOWARN"),
    (__GFP_RETRY_MAYFAIL, "__GFP_RETRY_MAYFAIL"),
    (__GFP_NOFAIL, "__GFP_NOFAIL"),
    (__GFP_NORETRY, "__GFP_NORETRY"),
    (__GFP_COMP, "__GFP_COMP"),
    (__GFP_ZERO, "__GFP_ZERO"),
    (__GFP_NOMEMALLOC, "__GFP_NOMEMALLOC"),
    (__GFP_MEMALLOC, "__GFP_MEMALLOC"),
    (__GFP_HARDWALL, "__GFP_HARDWALL"),
    (__GFP_THISNODE, "__GFP_THISNODE"),
    (__GFP_RECLAIMABLE, "__GFP_RECLAIMABLE"),
    (__GFP_MOVABLE, "__GFP_MOVABLE"),
    (__GFP_ACCOUNT, "__GFP_ACCOUNT"),
    (__GFP_WRITE, "__GFP_WRITE"),
    (__GFP_RECLAIM, "__GFP_RECLAIM"),
    (__GFP_DIRECT_RECLAIM, "__GFP_DIRECT_RECLAIM"),
    (__GFP_KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"),
    (__GFP_ZEROTAGS, "__GFP_ZEROTAGS"),
)


def show_gfp_flags(gfp_mask: int) -> str:
    """Text of a mask as the tracepoints print it (``show_gfp_flags()``, mmflags.h).

    Examples
    --------
    >>> show_gfp_flags(0x192CC2)
    'GFP_HIGHUSER|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC'
    >>> show_gfp_flags(0)
    'none'
    """
    if gfp_mask == 0:
        return "none"
    left = gfp_mask
    parts: list[str] = []
    for bits, name in _GFP_NAMES:
        if left & bits == bits:
            parts.append(name)
            left &= ~bits
    if left:
        parts.append(f"{left:#x}")
    return "|".join(parts)


#: Masks and single bits by name, composite names included: what a scenario file may write.
_BY_NAME: Final[dict[str, int]] = {name: bits for bits, name in _GFP_NAMES}


def parse_gfp_flags(text: str) -> int:
    """Mask of a text such as ``GFP_HIGHUSER|__GFP_NORETRY`` or ``0x192cc2``.

    Raises
    ------
    ValueError
        A part is neither a flag's name nor a number; the message names the part.
    """
    mask = 0
    for part in text.split("|"):
        word = part.strip()
        if word == "none":
            continue
        if word in _BY_NAME:
            mask |= _BY_NAME[word]
            continue
        try:
            mask |= int(word, 0)
        except ValueError:
            raise ValueError(f"{word!r} is not a gfp flag") from None
    return mask


def gfp_migratetype(gfp_mask: int) -> int:
    """Migratetype a mask asks for: 0 Unmovable, 1 Movable, 2 Reclaimable (``gfp_migratetype()``, gfp.h)."""
    return (gfp_mask & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT


def gfp_zone(gfp_mask: int) -> int:
    """Highest zone index a 64-bit kernel may use for a mask (``gfp_zone()``, gfp.h): 0 DMA, 1 DMA32, 2 Normal, 3 Movable.

    Raises
    ------
    ValueError
        Two zone selectors at once, which ``GFP_ZONE_BAD`` forbids.
    """
    selector = gfp_mask & (__GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32)
    if selector not in (0, __GFP_DMA, __GFP_HIGHMEM, __GFP_DMA32):
        raise ValueError(f"gfp mask {gfp_mask:#x} has two zone selectors")
    if selector == __GFP_DMA:
        return 0
    if selector == __GFP_DMA32:
        return 1
    if selector == __GFP_HIGHMEM and gfp_mask & __GFP_MOVABLE:
        return 3
    return 2


def gfpflags_allow_blocking(gfp_mask: int) -> bool:
    """Whether the caller may sleep in reclaim (``__GFP_DIRECT_RECLAIM``)."""
    return bool(gfp_mask & __GFP_DIRECT_RECLAIM)


def gfp_compaction_allowed(gfp_mask: int) -> bool:
    """Whether compaction may run for a mask: it needs ``__GFP_IO`` (mm/compaction.c)."""
    return bool(gfp_mask & __GFP_IO)
