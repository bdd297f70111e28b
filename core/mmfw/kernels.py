"""Kernel profiles: what later kernels' mm core does otherwise, as named switches.

The core is 6.1's. A later profile flips switches, one for each rule that is known to have changed; what is not listed
here behaves as in 6.1, and nothing but 6.1 has been held against a real kernel. What drivers do otherwise is theirs:
a plugin looks up its own switches by `KernelProfile.name`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """Rules of one kernel.

    Attributes
    ----------
    name : str
        Such as ``7.1``.
    skipped_compaction_ends_noretry : bool
        A costly ``__GFP_NORETRY`` request whose first compaction was skipped or deferred fails at once
        (``__alloc_pages_slowpath()`` up to 6.19). Since 7.0 it goes on to one round of reclaim, unless it is
        ``__GFP_THISNODE``.
    progress_revives_kswapd : bool
        Any page reclaimed clears ``kswapd_failures`` (``shrink_node()``). In 7.x it is cleared only if the node is
        balanced for what is being reclaimed (``kswapd_try_clear_hopeless()``); from which release is not known.
    fast_find_sets_skip : bool
        The block that ``fast_find_migrateblock()`` chooses is marked to be skipped, and is skipped. Since 6.5 it is not
        marked, and a block of which something is isolated is marked whichever page that is; in 6.1 only if it is the
        block's first. (One without the other makes compaction scan the same
        blocks over and over, for which the first was reverted for a time.)
    failed_migration_skips_chunk : bool
        Where a page did not move, asynchronous direct compaction leaves out the rest of its order-aligned chunk. Since
        6.3 any mode but full synchronous scans the pageblock to its end first (``finish_pageblock``), and the fast
        search gives way to that.
    """

    name: str
    skipped_compaction_ends_noretry: bool
    progress_revives_kswapd: bool
    fast_find_sets_skip: bool
    failed_migration_skips_chunk: bool


KERNEL_6_1: Final = KernelProfile(
    "6.1",
    skipped_compaction_ends_noretry=True,
    progress_revives_kswapd=True,
    fast_find_sets_skip=True,
    failed_migration_skips_chunk=True,
)
_LATER: Final = tuple(
    KernelProfile(
        name,
        skipped_compaction_ends_noretry=False,
        progress_revives_kswapd=False,
        fast_find_sets_skip=False,
        failed_migration_skips_chunk=False,
    )
    for name in ("7.1", "7.2")
)
#: All profiles, oldest first.
KERNELS: Final = {profile.name: profile for profile in (KERNEL_6_1, *_LATER)}


def kernel_profile(name: str) -> KernelProfile:
    """Profile of this name.

    Raises
    ------
    InputError
        There is none.
    """
    if name not in KERNELS:
        raise InputError(f"kernel profile {name!r} is unknown; known: {', '.join(KERNELS)}")
    return KERNELS[name]
