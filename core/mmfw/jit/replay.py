"""Runs the operations of a captured trace and stops at the first that answers differently."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit
from mmfw.jit.alloc import drain_pages, free_pages_core, get_page_from_freelist
from mmfw.jit.page import S_BOOST_WAKE, S_TRACE_BASE, S_TRACE_N, TR_SIZE

#: Operation kinds in a chunk's first column.
OP_ALLOC = 0
OP_FREE = 1
OP_DRAIN = 2

#: All operations of the chunk were done and matched.
CHUNK_DONE = 0
#: The fast path missed; the slow path must answer. Events so far are in the buffer.
CHUNK_SLOWPATH = 1
#: rmqueue() owes a wake-up; the page is in the answer, events so far are in the buffer.
CHUNK_BOOST_WAKE = 2
#: The page is another than the trace's.
CHUNK_PFN = 3
#: The page to free is not an allocated block of that order.
CHUNK_BAD_FREE = 4
#: The events are others than the trace's; they are in the buffer.
CHUNK_EVENTS = 5


@njit
def events_equal(S: Any, want: Any, lo: int, hi: int) -> bool:
    """Whether the buffer holds exactly rows ``want[lo:hi]`` (int64[n, TR_SIZE])."""
    if S[S_TRACE_N] != hi - lo:
        return False
    base = S[S_TRACE_BASE]
    for i in range(hi - lo):
        for k in range(TR_SIZE):
            if S[base + i * TR_SIZE + k] != want[lo + i, k]:
                return False
    return True


@njit
def replay_chunk(
    page: Any, pb: Any, S: Any, ops: Any, classes: Any, want: Any, offsets: Any, start: int
) -> tuple[int, int, int]:
    """Replay operations from ``start`` on.

    Parameters
    ----------
    page, pb, S
        The machine; CPU 0 and node 0 run the trace.
    ops : int64[n, 4]
        Kind, order, class (row of ``classes``), expected pfn.
    classes : int64[m, 4]
        gfp mask, migratetype, highest zone index, fast-path flags.
    want : int64[k, TR_SIZE]
        Expected events of all operations.
    offsets : int64[n + 1]
        Where each operation's events begin in ``want``.
    start : int
        First operation to run.

    Returns
    -------
    (int, int, int)
        A ``CHUNK_*`` code, the operation it is about, and the pfn that came.
    """
    cpu = node_row = i64(0)  # typed: a literal would compile the allocator a second time
    for i in range(start, ops.shape[0]):
        S[S_TRACE_N] = 0
        kind = ops[i, 0]
        order = ops[i, 1]
        pfn = i64(-1)
        if kind == OP_ALLOC:
            k = ops[i, 2]
            pfn = get_page_from_freelist(
                page, pb, S, cpu, node_row, classes[k, 0], order, classes[k, 1], classes[k, 2], classes[k, 3]
            )
            if pfn < 0:
                return CHUNK_SLOWPATH, i, pfn
            if S[S_BOOST_WAKE] != 0:
                return CHUNK_BOOST_WAKE, i, pfn
            if pfn != ops[i, 3]:
                return CHUNK_PFN, i, pfn
        elif kind == OP_FREE:
            if not free_pages_core(page, pb, S, cpu, ops[i, 3], order):
                return CHUNK_BAD_FREE, i, pfn
        else:
            drain_pages(page, pb, S, cpu)
        if not events_equal(S, want, offsets[i], offsets[i + 1]):
            return CHUNK_EVENTS, i, pfn
    return CHUNK_DONE, ops.shape[0], i64(-1)
