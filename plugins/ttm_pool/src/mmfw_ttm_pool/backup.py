"""Backup to shmem, purge, and restore of an object (drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw_ttm_pool.alloc import OperationCtx, climb_down, free_run
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import BlockRun, Pfns, TtmTt, joined, nr_pages_of

if TYPE_CHECKING:
    from mmfw.mm.swap import Backup

#: Pages that a restore gets before it copies them in, in whole blocks. The kernel copies after each block; single blocks
#: below this size are taken together here, for a Python call for each page would be slow.
RESTORE_BATCH: Final = 64


def ttm_pool_backup(
    pool: TtmPool, tt: TtmTt, *, purge: bool, writeback: bool = False, native_order: bool | None = None
) -> int:
    """Back up an object, or drop its content (``ttm_pool_backup()``).

    Purged blocks go to the page allocator at their own order, past the pools. A backup splits each block and frees
    each page once it is copied; with `native_order` a block is freed whole once all of it is copied.

    Parameters
    ----------
    pool, tt
        The pool, and the object.
    purge : bool
        Drop the content.
    writeback : bool
        Have each copy written to the swap device at once.
    native_order : bool, optional
        In place of ``pool.backup_native_order``.

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
        return nr_pages_of(runs)
    room = mm.swap.get_nr_swap_pages()
    if room <= 0:
        return -errno.EBUSY
    whole = pool.backup_native_order if native_order is None else native_order
    before = tt.nr_held
    if whole:
        _back_up_whole_blocks(pool, tt, writeback)
    else:
        _back_up_pages(pool, tt, room, writeback)
    return before - tt.nr_held or -errno.ENOMEM


def _back_up_pages(pool: TtmPool, tt: TtmTt, room: int, writeback: bool) -> None:
    """Split the blocks that are needed, then copy and free page by page; what is left stays in ``tt.runs``."""
    pages, whole = split_for_swap(pool, tt.runs, room)
    tt.runs = [BlockRun(0, pages), *whole]
    backup = pool.mm.swap.backup(pages, writeback=writeback)
    left = pages[backup.nr_pages :]
    tt.runs = [BlockRun(0, left), *whole] if len(left) else whole
    _keep(tt, backup)


def _back_up_whole_blocks(pool: TtmPool, tt: TtmTt, writeback: bool) -> None:
    """Copy block by block and free each whole; where that fails midway, go on with single pages, as before the change.

    The pages copied so far are free by then, so that the others can follow them one by one. Blocks after such a
    one are tried whole again.
    """
    swap = pool.mm.swap
    while tt.runs:
        run, rest = tt.runs[0], tt.runs[1:]
        if run.order == 0:
            backup = swap.backup(run.pfns, writeback=writeback)
            left = run.pfns[backup.nr_pages :]
            tt.runs = [BlockRun(0, left), *rest] if len(left) else rest
            _keep(tt, backup)
            if len(left):
                return
            continue
        pfn = int(run.pfns[0])
        if len(run.pfns) > 1:
            rest = [BlockRun(run.order, run.pfns[1:]), *rest]
        backup = swap.backup_block(pfn, run.order, writeback=writeback)
        _keep(tt, backup)
        copied = backup.nr_pages
        if not copied:
            return
        if copied < 1 << run.order:
            rest = [BlockRun(0, np.arange(pfn + copied, pfn + (1 << run.order), dtype=np.int64)), *rest]
        tt.runs = rest


def _keep(tt: TtmTt, backup: Backup) -> None:
    if backup.nr_pages:
        tt.backups.append(backup)


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
        cut = BlockRun(run.order, run.pfns[:nr_blocks])
        if nr_blocks < len(run.pfns):
            whole.append(BlockRun(run.order, run.pfns[nr_blocks:]))
        if run.order:
            for pfn in cut.pfns.tolist():
                pool.mm.split_page(pfn, run.order)
        parts.append(cut.page_pfns())
        wanted -= cut.nr_pages
    return np.concatenate(parts), whole


def ttm_pool_restore_and_alloc(pool: TtmPool, tt: TtmTt, ctx: OperationCtx) -> bool:
    """Populate an object anew by the ladder and bring its content back (``ttm_pool_restore_and_alloc()``).

    Each block is filled as soon as it is there (blocks below `RESTORE_BATCH` pages, some at a time), which gives
    the memory of its copies back before the next one is asked for. What has come back stays when the ladder
    fails; the next call goes on behind it, from the top of the ladder.

    Returns
    -------
    bool
        False where the kernel returns -ENOMEM; the object is still backed up then.
    """
    if not tt.is_backed_up:
        raise ValueError("restoring an object that is not backed up")
    missing = tt.num_pages - nr_pages_of(tt.restored)
    if not climb_down(pool, tt, ctx, missing, lambda run, _: _fill(pool, tt, run), RESTORE_BATCH):
        return False
    assert not tt.backups
    assert not tt.runs
    tt.runs, tt.restored = joined(tt.restored), []
    assert tt.nr_held == tt.num_pages
    return True


def _fill(pool: TtmPool, tt: TtmTt, run: BlockRun) -> None:
    """Bring the next pages into new blocks (``ttm_pool_restore_commit()``): backed-up ones, then those kept."""
    mm = pool.mm
    tt.restored.append(run)
    wanted = run.nr_pages
    while wanted and tt.backups:
        part = min(wanted, tt.backups[0].nr_pages)
        mm.swap.restore(tt.backups[0], part)
        wanted -= part
        if not tt.backups[0].nr_pages:
            tt.backups.pop(0)
    if wanted:
        pages, whole = split_for_swap(pool, tt.runs, wanted)
        rest = pages[wanted:]
        tt.runs = [BlockRun(0, rest), *whole] if len(rest) else whole
        mm.charge(wanted * mm.sched.costs.copy_page, "restore copy")
        mm.free_pages_batch(pages[:wanted], 0)


def ttm_pool_drop_backed_up(pool: TtmPool, tt: TtmTt) -> None:
    """Forget a backed-up object's content (``ttm_pool_drop_backed_up()``): what had come back may go to the pools."""
    backups, runs, restored = tt.backups, tt.runs, tt.restored
    tt.backups, tt.runs, tt.restored = [], [], []
    for backup in backups:
        pool.mm.swap.drop(backup)
    for run in restored:
        free_run(pool, tt, run)
    for run in runs:
        pool.mm.free_pages_batch(run.pfns, run.order)
