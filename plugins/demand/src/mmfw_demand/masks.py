"""A gfp mask as a scenario writes it: names of flags joined by ``|``."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator

from mmfw import gfp
from mmfw.errors import did_you_mean


def _is_flag(name: str) -> bool:
    try:
        gfp.parse_gfp_flags(name)
    except ValueError:
        return False
    return True


def flag_names() -> tuple[str, ...]:
    """Names that `parse_mask` takes, sorted: the masks and bits of include/linux/gfp_types.h that core knows."""
    return tuple(n for n in sorted(vars(gfp)) if n.startswith(("GFP_", "__GFP_")) and _is_flag(n))


def parse_mask(text: object) -> int:
    """Mask of a text such as ``GFP_KERNEL|__GFP_NORETRY|__GFP_NOWARN``.

    Raises
    ------
    ValueError
        A part is not a flag's name (the message suggests the nearest), a bit does not exist, or two zones are asked for.

    Examples
    --------
    >>> hex(parse_mask("GFP_KERNEL|__GFP_NOWARN"))
    '0x2cc0'
    """
    if isinstance(text, int) and not isinstance(text, bool):
        mask = text
    elif isinstance(text, str):
        for part in text.split("|"):
            word = part.strip()
            if not _is_flag(word):
                raise ValueError(f"{word!r} is not a gfp flag; {did_you_mean(word, flag_names())}")
        mask = gfp.parse_gfp_flags(text)
    else:
        raise ValueError('a gfp mask is written as names, such as "GFP_KERNEL|__GFP_NORETRY"')
    if mask & ~gfp.GFP_BITS_MASK:
        raise ValueError(f"gfp mask {mask:#x} has bits that do not exist: {mask & ~gfp.GFP_BITS_MASK:#x}")
    gfp.gfp_zone(mask)
    return mask


#: A field of a workload's parameters that holds a mask.
GfpMask = Annotated[int, BeforeValidator(parse_mask)]

#: What a subsystem asks with that can do with less: TTM, page cache and slab above their smallest order.
OPPORTUNISTIC: Final = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN
