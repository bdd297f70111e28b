"""Blocks stay whole with the policy, and nothing else changes: tests T12 of the policies, and digests of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mmfw import gfp
from mmfw.mm.core import Mm
from mmfw.run import RunRequest, run
from mmfw.sched import Scheduler
from mmfw.testing import load_mm

ttm = pytest.importorskip("mmfw_ttm_pool", reason="needs mmfw-ttm-pool")

CTX = ttm.OperationCtx()
BACKUP_GFP = gfp.GFP_KERNEL | gfp.HIGH | gfp.NOWARN | gfp.RETRY_MAYFAIL
#: Small blocks, and one of 2 MiB, which an object of 512 pages gets.
ONE_LARGE = [2000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 1, 0]


@pytest.fixture
def machine() -> Iterator[Callable[..., Mm]]:
    """A machine with certain plugins, loaded in that order, at the moment at which time starts."""
    scheds: list[Scheduler] = []

    def build(*names: str) -> Mm:
        mm = load_mm(
            names,
            buddyinfo={"DMA32": ONE_LARGE, "DMA": [0] * 11},
            kernel="7.1",
            seed=1,
            nr_swap_pages=10_000,
        ).mm
        scheds.append(mm.sched)
        mm.sched.run(1)
        return mm

    yield build
    for sched in scheds:
        sched.close()


def large_object(mm: Mm) -> tuple[ttm.TtmPool, ttm.TtmTt]:
    pool = mm.attached.get(ttm.TtmPool)
    assert pool is not None
    tt = ttm.TtmTt(512)
    assert ttm.ttm_pool_alloc(pool, tt, CTX)
    assert [(each.order, len(each.pfns)) for each in tt.runs] == [(9, 1)]
    return pool, tt


@pytest.mark.parametrize(
    ("names", "whole_blocks"),
    [
        (("ttm",), 0),
        (("ttm", "folio-preserving-backup"), 1),
        (("folio-preserving-backup", "ttm"), 1),
    ],
)
def test_a_backed_up_block_comes_back_whole_whoever_is_loaded_first(machine, names, whole_blocks):
    mm = machine(*names)
    pool, tt = large_object(mm)
    assert ttm.ttm_pool_backup(pool, tt, purge=False) == 512
    mm.drain_all_pages()
    assert mm.buddyinfo()["DMA32"][9] == whole_blocks


def test_memory_that_ends_at_page_100_loses_nothing(machine):
    """T12: 100 pages are copied, the block is split, 412 follow singly; it can be restored and backed up again."""
    mm = machine("folio-preserving-backup", "ttm")
    pool, tt = large_object(mm)
    with mm.sched.memalloc_noreclaim():  # as a reclaimer, which may have the last page
        everything = mm.alloc_pages_batch(BACKUP_GFP, 0, 100_000)
        mm.free_pages_batch(everything[:100], 0)
        assert ttm.ttm_pool_backup(pool, tt, purge=False) == 512
    assert [backup.nr_pages for backup in tt.backups] == [100, 412]
    assert tt.nr_held == 0
    mm.free_pages_batch(everything[100:], 0)
    assert ttm.ttm_pool_restore_and_alloc(pool, tt, CTX)
    assert tt.nr_held == 512
    assert ttm.ttm_pool_backup(pool, tt, purge=False) == 512
    mm.check_memory()


def test_without_ttm_nothing_is_patched(machine):
    mm = machine("folio-preserving-backup")
    assert list(mm.attached) == []
    assert len(mm.shrinkers) == 0


WITHOUT_TTM = """
name = "no-ttm"
description = "anonymous memory beyond RAM"
plugins = ["demand"]
machine = "256M"
nr_swap_pages = 100000
duration = "1s"

[[workloads]]
name = "anon-pressure"
[workloads.params]
percent_of_ram = 110
pages_per_second = 100000
"""


def test_a_run_without_ttm_is_mainlines(tmp_path):
    pytest.importorskip("mmfw_demand", reason="needs mmfw-demand")
    scenario = tmp_path / "no-ttm.toml"
    scenario.write_text(WITHOUT_TTM)
    plain, policy = (
        run(RunRequest(scenario=str(scenario), plugins=names)) for names in ((), ("folio-preserving-backup",))
    )
    assert plain.vmstat["pswpout"] > 0
    assert policy.digest == plain.digest


@pytest.mark.slow
def test_in_the_loop_it_is_the_option_of_ttm_and_not_mainline():
    pytest.importorskip("mmfw_xe_shrinker", reason="needs mmfw-xe-shrinker")
    # In its first second the loop evicts buffers of single pages only, which both ways back up alike.
    plain, policy, option = (
        run(
            RunRequest(
                scenario="webgl-aquarium", short=True, duration="2s", plugins=names, overrides=overrides
            )
        )
        for names, overrides in (
            ((), {}),
            (("folio-preserving-backup",), {}),
            ((), {"ttm.backup_native_order": True}),
        )
    )
    assert plain.metrics["xe_bo_evictions"] > 0
    assert policy.digest == option.digest != plain.digest
