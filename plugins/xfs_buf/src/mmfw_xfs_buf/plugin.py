"""What mmfw loads: one mount's buffers, their shrinker and their size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mmfw import Metric, PluginInfo, hookimpl
from mmfw_xfs_buf.buf import XfsBuftarg
from mmfw_xfs_buf.shrinker import XfsBufShrinker

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.shrinker import Shrinker

MMFW_PLUGIN: Final = PluginInfo(name="xfs", hook_api=(1, 0), kind="shrinker")


class XfsParams(BaseModel):
    """The mount."""

    device: str = Field("sda1", description="device, as the shrinker's name shows it")


@dataclass(frozen=True, slots=True)
class _Registered:
    shrinker: Shrinker


@hookimpl
def mmfw_plugin_params() -> type[BaseModel]:
    """Parameters of the mount."""
    return XfsParams


@hookimpl
def mmfw_module_init(mm: Mm, params: XfsParams) -> None:
    """Set the buffer cache up (``xfs_alloc_buftarg()``); found as ``mm.attached.get(XfsBuftarg)``."""
    buftarg = XfsBuftarg(mm)
    shrinker = mm.register_shrinker(XfsBufShrinker(mm, buftarg), f"xfs-buf:{params.device}")
    mm.attached.put(buftarg)
    mm.attached.put(_Registered(shrinker))


@hookimpl
def mmfw_register_metrics() -> Iterable[Metric]:
    """Size of the cache."""
    yield Metric("xfs_buf_pages", "pages", "gauge", "neither", "Pages of cached buffers", read=_pages)


def _pages(mm: Mm) -> int:
    buftarg = mm.attached.get(XfsBuftarg)
    return 0 if buftarg is None else buftarg.nr_pages


@hookimpl
def mmfw_module_exit(mm: Mm) -> None:
    """Free every buffer and unregister the shrinker (``xfs_free_buftarg()``)."""
    buftarg, registered = mm.attached.get(XfsBuftarg), mm.attached.get(_Registered)
    if buftarg is not None and registered is not None:
        buftarg.drain()
        mm.unregister_shrinker(registered.shrinker)
