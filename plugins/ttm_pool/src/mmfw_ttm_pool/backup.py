"""Backup to shmem, purge, and restore of an object (drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

import errno

import numpy as np

from mmfw_ttm_pool.alloc import OperationCtx, climb_down
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import BlockRun, Pfns, TtmTt


def ttm_pool_backup(pool: TtmPool, tt: TtmTt, *, purge: bool) -> int:
    """Back up an object page by page, or drop its content (``ttm_pool_backup()``).

    Purged blocks go to the page allocator at their own order, past the pools. For a backup each block is
    split, and each page freed once it is copied.

    Returns
    -------
    int
        Pages backed up or freed; ``-EBUSY`` without swap space or if it is backed up already; ``-ENOMEM``
        if not one page could be copied. After part of it was backed up the object counts as backed up, and
        holds the rest.
    """
    mm = pool.mm
    if tt.is_backed_up:
        return -errno.EBUSY
    if purge:
        runs, tt.runs = tt.runs, []
        for run in runs:
            mm.free_pages_batch(run.pfns, run.order)
        return sum(run.nr_pages for run in runs)
    room = mm.swap.get_nr_swap_pages()
    if room <= 0:
        return -errno.EBUSY
    pages, whole = split_for_swap(pool, tt.runs, room)
    tt.runs = [BlockRun(0, pages), *whole]
    backup = mm.swap.backup(pages)
    left = pages[backup.nr_pages :]
    tt.runs = [BlockRun(0, left), *whole] if len(left) else whole
    if not backup.nr_pages:
        return -errno.ENOMEM
    tt.backups.append(backup)
    return backup.nr_pages


def split_for_swap(pool: TtmPool, runs: list[BlockRun], wanted: int) -> tuple[Pfns, list[BlockRun]]:
    """Split blocks until they hold `wanted` pages (``ttm_pool_split_for_swap()``).

    Returns
    -------
    (int64[n], list of BlockRun)
        Order-0 pages in page order, and the blocks left whole.
    """
    parts: list[Pfns] = []
    whole: list[BlockRun] = []
    for run in runs:
        nr_blocks = min(len(run.pfns), max(0, -(-wanted >> run.order)))
        heads = run.pfns[:nr_blocks]
        if nr_blocks < len(run.pfns):
            whole.append(BlockRun(run.order, run.pfns[nr_blocks:]))
        if run.order:
            for pfn in heads.tolist():
                pool.mm.split_page(pfn, run.order)
            heads = (heads[:, np.newaxis] + np.arange(1 << run.order, dtype=np.int64)).reshape(-1)
        parts.append(heads)
        wanted -= len(heads)
    return np.concatenate(parts), whole


def ttm_pool_restore_and_alloc(pool: TtmPool, tt: TtmTt, ctx: OperationCtx) -> bool:
    """Populate an object anew by the ladder and bring its content back (``ttm_pool_restore_and_alloc()``).

    The kernel copies each block in as soon as it has it and keeps what it got when the ladder fails; here
    the copies follow the whole ladder, and a failed one gives everything back.

    Returns
    -------
    bool
        False where the kernel returns -ENOMEM; the object is as before then.
    """
    if not tt.is_backed_up:
        raise ValueError("restoring an object that is not backed up")
    mm = pool.mm
    runs = climb_down(pool, tt, ctx)
    if runs is None:
        return False
    backups, retained = tt.backups, tt.runs
    tt.backups, tt.runs = [], runs
    for backup in backups:
        mm.swap.restore(backup)
    for run in retained:
        mm.charge(run.nr_pages * mm.sched.costs.copy_page, "restore copy")
        mm.free_pages_batch(run.pfns, run.order)
    return True


def ttm_pool_drop_backed_up(pool: TtmPool, tt: TtmTt) -> None:
    """Forget a backed-up object's content (``ttm_pool_drop_backed_up()``)."""
    backups, runs = tt.backups, tt.runs
    tt.backups, tt.runs = [], []
    for backup in backups:
        pool.mm.swap.drop(backup)
    for run in runs:
        pool.mm.free_pages_batch(run.pfns, run.order)
