"""The worker that vmpressure wakes, and what a guest's wake-ups cost."""

from pathlib import Path

import pytest

from mmfw import gfp
from mmfw.costs import NSEC_PER_SEC, profile
from mmfw.mm.core import Mm
from mmfw.mm.vmpressure import VMPRESSURE_WIN, VmPressure
from mmfw.sched import Scheduler
from mmfw.testing import make_mm
from mmfw.validate.experiment import CaptureSpec, build_mm

TCG = profile("tcg")


def guest(mem: str = "256M") -> Mm:
    return build_mm(
        CaptureSpec(
            path=Path("x"),
            kind="gpu",
            name="x",
            mem=mem,
            nr_cpus=1,
            variant="clean",
            seed=1,
            order=9,
            requests=0,
            data_mb=0,
        )
    )


def task(mm: Mm, comm: str):
    return next(task for task in mm.sched.tasks if task.comm.startswith(comm))


@pytest.mark.parametrize(
    ("scans", "gfp_mask", "nr_runs"),
    [
        ((VMPRESSURE_WIN - 1,), gfp.GFP_KERNEL, 0),
        ((VMPRESSURE_WIN - 1, 0, 1), gfp.GFP_KERNEL, 1),
        # One run empties the window, however much it holds.
        ((3 * VMPRESSURE_WIN, 1), gfp.GFP_KERNEL, 1),
        # Nobody but the kernel could use such pages.
        ((VMPRESSURE_WIN,), gfp.ATOMIC, 0),
    ],
)
def test_a_full_window_of_scanned_pages_is_one_run_of_the_worker(scans, gfp_mask, nr_runs):
    assert VMPRESSURE_WIN == 512
    sched = Scheduler(nr_cpus=1, costs=TCG)
    pressure = VmPressure(sched)
    pressure.start()

    def reclaim():
        sched.sleep(1)
        for nr_scanned in scans:
            pressure.vmpressure(gfp_mask, nr_scanned)
            sched.sleep(10 * TCG.vmpressure_work)

    with sched:
        sched.spawn(reclaim, name="kswapd0", daemon=False)
        sched.run()
        worker = next(task for task in sched.tasks if task.comm == "kworker/0:1")
        assert worker.accounts.get("vmpressure", 0) == nr_runs * TCG.vmpressure_work


def test_reclaim_in_a_guest_wakes_it_and_elsewhere_there_is_none():
    mm = guest()
    disk = mm.page_cache.open(300 * 256, name="vdb")
    mm.start_time()

    def read():
        mm.sched.sleep(1)
        for start in range(0, disk.nr_pages, 16):
            disk.read(start, 16)
            mm.sched.cond_resched()

    with mm.sched:
        mm.sched.spawn(read, name="hog", daemon=False)
        mm.sched.run()
        scanned = mm.vmstat.as_dict()["pgscan_kswapd"]
        runs, rest = divmod(task(mm, "kworker").accounts["vmpressure"], TCG.vmpressure_work)
    assert rest == 0
    assert 0 < runs <= scanned // VMPRESSURE_WIN

    plain = make_mm("256M", start=True)
    with plain.sched:
        assert not [task for task in plain.sched.tasks if task.comm.startswith("kworker")]


def test_only_the_request_that_wakes_kswapd_pays_for_it():
    mm = guest()
    mm.start_time()
    spent = []

    def fill():
        mm.sched.sleep(NSEC_PER_SEC)  # by then kswapd sleeps
        zone = max(mm.pgdat.node_zones, key=lambda zone: zone.managed_pages)
        accounts = mm.sched.current.accounts
        while len(spent) < 3:
            before = accounts.get("alloc_pages_slowpath", 0)
            assert mm.alloc_pages(gfp.NOWARN | gfp.MOVABLE | gfp.KSWAPD_RECLAIM, 0) >= 0
            if accounts.get("alloc_pages_slowpath", 0) > before:
                spent.append(accounts["alloc_pages_slowpath"] - before)
        assert zone.nr_free_pages < zone.managed_pages // 8

    with mm.sched:
        mm.sched.spawn(fill, name="fill", daemon=False)
        mm.sched.run()
    assert spent == [TCG.alloc_slowpath + TCG.wakeup_kswapd, TCG.alloc_slowpath, TCG.alloc_slowpath]


def test_a_request_that_fails_pays_for_giving_up():
    mm = guest()
    mm.start_time()
    spent = {}

    def ask():
        mm.sched.sleep(1)
        accounts = mm.sched.current.accounts
        while mm.alloc_pages(gfp.NOWARN, 10) >= 0:
            pass
        before = accounts["alloc_pages_slowpath"]
        assert mm.alloc_pages(gfp.NOWARN, 10) == -1
        spent["failed"] = accounts["alloc_pages_slowpath"] - before

    with mm.sched:
        mm.sched.spawn(ask, name="ask", daemon=False)
        mm.sched.run()
    assert spent["failed"] == TCG.alloc_slowpath + TCG.alloc_failed
