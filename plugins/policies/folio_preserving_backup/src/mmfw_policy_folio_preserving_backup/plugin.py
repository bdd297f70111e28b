"""The policy: a backup of TTM copies a block whole and frees it once, at its own order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import PluginInfo, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_ttm_pool import TtmPool

MMFW_PLUGIN: Final = PluginInfo(
    name="folio-preserving-backup", hook_api=(1, 0), kind="policy", acts_on=("ttm",)
)


@hookimpl
def mmfw_module_init(mm: Mm) -> None:
    """Patch TTM once every plugin is there, whatever the order of loading; without TTM there is nothing to patch.

    A timer set here fires before any load runs, as ``late_initcall()`` would; it costs no time.
    """
    mm.sched.call_at(mm.sched.now, lambda: preserve_folios(mm))


def preserve_folios(mm: Mm) -> None:
    """Have the pool keep blocks whole (``ttm_pool_backup()``, drivers/gpu/drm/ttm/ttm_pool.c)."""
    pool = _pool_of(mm)
    if pool is not None:
        pool.backup_native_order = True


def _pool_of(mm: Mm) -> TtmPool | None:
    try:
        from mmfw_ttm_pool import TtmPool
    except ImportError:
        return None
    return mm.attached.get(TtmPool)
