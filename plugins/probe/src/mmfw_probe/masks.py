"""The masks of the capture module's requests."""

from __future__ import annotations

from typing import Final

from mmfw import gfp

MASKS: Final = {
    "KERNEL": gfp.GFP_KERNEL | gfp.NOWARN,
    "NORETRY": gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN,
    "RETRY_MAYFAIL": gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL | gfp.NOWARN,
    "THP_LIGHT": gfp.GFP_TRANSHUGE_LIGHT,
    "THP": gfp.GFP_TRANSHUGE,
    "TTM": gfp.GFP_HIGHUSER | gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN,
}
#: The order in which one boot runs them.
JOB_ORDER: Final = ("THP_LIGHT", "THP", "KERNEL", "NORETRY", "RETRY_MAYFAIL", "TTM")
