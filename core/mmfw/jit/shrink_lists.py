"""The rounds over the LRU lists (``shrink_lruvec()``, mm/vmscan.c of 6.1), for as long as nobody else does anything.

A round takes up to 32 pages from each list that has some left to scan. The caller is told when time must pass, when a
device must write, and when a round is over after which somebody else should have the CPU; it calls again to go on.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, njit
from mmfw.jit.page import LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, LRU_UNEVICTABLE
from mmfw.jit.reclaim import shrink_active_list, shrink_inactive_list
from mmfw.jit.shrink_folio import (
    R_NR_WRITTEN,
    R_RECLAIMED,
    R_SCANNED,
    R_SIZE,
    R_SKIPPED,
    R_TAKEN,
    R_UNQUEUED_DIRTY,
)

# State of one ``shrink_lruvec()``: indices of ``state`` (int64).
W_NR: Final = 0  #: pages left to scan, by list
W_TARGET: Final = 4  #: pages to scan at the beginning, by list
W_LRU: Final = 8  #: the list that is next in this round
W_CLUSTER: Final = 9  #: pages of a batch
W_RECLAIMED: Final = 10  #: pages, from all batches
W_SKIPPED_DEACTIVATE: Final = 11  #: whether an active list was left alone
W_OVER: Final = 12  #: whether the last round is done
W_NR_TO_RECLAIM: Final = 13  #: pages after which the counts are adjusted; `NO_GOAL` if they are not
# What came of one call.
W_NS: Final = 14  #: time that its batches take, virtual ns
W_LAST_LRU: Final = 15  #: list of its last batch; `NO_LRU` if it did none
W_LAST_NR: Final = 16  #: what that batch was to scan, pages
W_ALL_DIRTY: Final = 17  #: whether that batch took nothing but dirty pages of which no device knows
W_SUM: Final = 18  #: ``R_*`` of its inactive batches, added up
W_SUM_FILE: Final = W_SUM + R_SIZE  #: pages taken from the file list
W_SIZE: Final = W_SUM_FILE + 1

NO_LRU: Final = -1
NO_GOAL: Final = -1

# What a call returns.
LISTS_DONE: Final = 0  #: the last round is over
LISTS_ROUND: Final = 1  #: a round is over
LISTS_BATCH: Final = 2  #: amid a round


@njit
def adjust_targets(state: Any) -> None:
    """Once enough is reclaimed: stop the kind of which less is left, bring the other to the same share of its target.

    So the next round, which finds one kind at 0, is the last.
    """
    file = state[W_NR + LRU_INACTIVE_FILE] + state[W_NR + LRU_ACTIVE_FILE]
    anon = state[W_NR + LRU_INACTIVE_ANON] + state[W_NR + LRU_INACTIVE_ANON + 1]
    if file == 0 or anon == 0:
        state[W_OVER] = 1
        return
    small = LRU_INACTIVE_ANON
    large = LRU_INACTIVE_FILE
    if file <= anon:
        small = LRU_INACTIVE_FILE
        large = LRU_INACTIVE_ANON
    target = state[W_TARGET + small] + state[W_TARGET + small + 1] + 1
    percentage = min(file, anon) * 100 // target
    state[W_NR + small] = 0
    state[W_NR + small + 1] = 0
    for lru in range(large, large + 2):
        done = state[W_TARGET + lru] - state[W_NR + lru]
        nr = state[W_TARGET + lru] * (100 - percentage) // 100
        state[W_NR + lru] = nr - min(nr, done)


@njit
def shrink_lists(
    page: Any,
    pb: Any,
    S: Any,
    slots: Any,
    cpu: int,
    state: Any,
    reclaim_idx: int,
    bits: int,
    may_deactivate: int,
    isolate_ns: int,
    skip_ns: int,
    shrink_ns: int,
    quiet_ns: int,
    stop_at_round: bool,
    batch: Any,
    out: Any,
    written: Any,
) -> int:
    """Batches up to one after which something must be done outside.

    That is one whose pages a device must write, which met nothing but dirty pages, or with which `quiet_ns` are over.

    Parameters
    ----------
    state : int64[W_SIZE]
        The ``W_*`` fields; what came of the call is in those from `W_NS` on.
    may_deactivate : int
        Bits of the active lists that may be shrunk.
    isolate_ns, skip_ns, shrink_ns : int
        What an isolated, a passed-over and a judged page take, virtual ns.
    quiet_ns : int
        Time for which nobody else does anything; 0 for one batch a call.
    stop_at_round : bool
        Whether to return after a round.
    batch, out, written
        As in ``shrink_inactive_list()``; `out` is the last batch's.

    Returns
    -------
    int
        A ``LISTS_*`` code.
    """
    for i in range(W_NS, W_SIZE):
        state[i] = 0
    state[W_LAST_LRU] = NO_LRU
    out[R_NR_WRITTEN] = 0
    while True:
        if state[W_LRU] == 0 and (
            state[W_OVER] != 0
            or state[W_NR + LRU_INACTIVE_ANON]
            + state[W_NR + LRU_ACTIVE_FILE]
            + state[W_NR + LRU_INACTIVE_FILE]
            == 0
        ):
            return LISTS_DONE
        while state[W_LRU] < LRU_UNEVICTABLE:
            lru = state[W_LRU]
            state[W_LRU] += 1
            nr = min(state[W_NR + lru], state[W_CLUSTER])
            if nr == 0:
                continue
            state[W_NR + lru] -= nr
            stop = False
            if lru in (LRU_INACTIVE_ANON, LRU_INACTIVE_FILE):
                shrink_inactive_list(page, pb, S, slots, cpu, lru, nr, reclaim_idx, bits, batch, out, written)
                passes = 1
                state[W_NS] += out[R_TAKEN] * shrink_ns
                state[W_RECLAIMED] += out[R_RECLAIMED]
                for i in range(R_SIZE):
                    state[W_SUM + i] += out[i]
                state[W_SUM_FILE] += out[R_TAKEN] if lru == LRU_INACTIVE_FILE else 0
                if out[R_TAKEN] != 0 and out[R_UNQUEUED_DIRTY] == out[R_TAKEN]:
                    state[W_ALL_DIRTY] = 1
                stop = out[R_NR_WRITTEN] != 0 or state[W_ALL_DIRTY] != 0
            elif may_deactivate & (1 << lru):
                shrink_active_list(page, pb, S, lru, nr, reclaim_idx, i64(0), batch, out)
                passes = 2
            else:
                state[W_SKIPPED_DEACTIVATE] = 1
                continue
            state[W_LAST_LRU] = lru
            state[W_LAST_NR] = nr
            # Pages put aside for their zone are looked at and moved, no more.
            state[W_NS] += passes * (
                out[R_SKIPPED] * skip_ns + (out[R_SCANNED] - out[R_SKIPPED]) * isolate_ns
            )
            if stop or state[W_NS] >= quiet_ns:
                return LISTS_BATCH
        state[W_LRU] = 0
        if NO_GOAL != state[W_NR_TO_RECLAIM] <= state[W_RECLAIMED]:
            adjust_targets(state)
        if stop_at_round:
            return LISTS_ROUND
