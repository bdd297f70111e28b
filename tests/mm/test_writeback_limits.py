"""The swap device's queue, and pages in flight as a run ends."""

from __future__ import annotations

import numpy as np

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.page_io import SWAP_NR_REQUESTS
from mmfw.testing import make_mm


def test_a_task_sleeps_while_the_swap_devices_queue_is_full():
    mm = make_mm("256M", nr_swap_pages=40_000, start=True)
    in_flight: list[int] = []

    def writer() -> None:
        for _ in range(SWAP_NR_REQUESTS + 3):
            mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 32), writeback=True)
            in_flight.append(mm.lruvec.node_stat(pg.NS_WRITEBACK))

    task = mm.sched.spawn(writer, name="writer")
    mm.sched.run()
    assert task.state.name == "DEAD"
    assert max(in_flight) <= SWAP_NR_REQUESTS * 32
    # Without a limit all of it would be in flight at the end, for the device is slower than a copy.
    assert np.diff(in_flight)[: SWAP_NR_REQUESTS - 2].min() >= 0
    assert in_flight[-1] < (SWAP_NR_REQUESTS + 3) * 32
