"""mmfw: a simulator of the Linux mm core. The names here are those that plugins are written against.

Importing this package imports nothing else; each name is looked up in its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw import gfp
    from mmfw.attachments import Attachments, attach, attachment
    from mmfw.errors import InputError, MmfwError, PluginError
    from mmfw.gfp import PAGE_ALLOC_COSTLY_ORDER
    from mmfw.hookspecs import HOOK_API, hookimpl, hookspec
    from mmfw.mm.core import Mm
    from mmfw.offers import Metric, PluginInfo, Workload
    from mmfw.types import (
        DEF_PRIORITY,
        DEFAULT_SEEKS,
        SHRINK_BATCH,
        SHRINK_EMPTY,
        SHRINK_STOP,
        SWAP_CLUSTER_MAX,
        CompactControl,
        CompactionScan,
        KcompactdRequest,
        KcompactdWork,
        KswapdRequest,
        KswapdWake,
        MigrateMode,
        PgdatView,
        ReclaimContext,
        Reclaimer,
        ScanControl,
        ScanPhase,
        ShrinkControl,
        ShrinkerOps,
        WakePlan,
        WakeReason,
        ZoneView,
    )

__all__ = [
    "DEFAULT_SEEKS",
    "DEF_PRIORITY",
    "HOOK_API",
    "PAGE_ALLOC_COSTLY_ORDER",
    "SHRINK_BATCH",
    "SHRINK_EMPTY",
    "SHRINK_STOP",
    "SWAP_CLUSTER_MAX",
    "Attachments",
    "CompactControl",
    "CompactionScan",
    "InputError",
    "KcompactdRequest",
    "KcompactdWork",
    "KswapdRequest",
    "KswapdWake",
    "Metric",
    "MigrateMode",
    "Mm",
    "MmfwError",
    "PgdatView",
    "PluginError",
    "PluginInfo",
    "ReclaimContext",
    "Reclaimer",
    "ScanControl",
    "ScanPhase",
    "ShrinkControl",
    "ShrinkerOps",
    "WakePlan",
    "WakeReason",
    "Workload",
    "ZoneView",
    "attach",
    "attachment",
    "gfp",
    "hookimpl",
    "hookspec",
]

_HOME = {
    "HOOK_API": "mmfw.hookspecs",
    "hookimpl": "mmfw.hookspecs",
    "hookspec": "mmfw.hookspecs",
    "InputError": "mmfw.errors",
    "MmfwError": "mmfw.errors",
    "PluginError": "mmfw.errors",
    "Attachments": "mmfw.attachments",
    "attach": "mmfw.attachments",
    "attachment": "mmfw.attachments",
    "PAGE_ALLOC_COSTLY_ORDER": "mmfw.gfp",
    "Mm": "mmfw.mm.core",
    "Metric": "mmfw.offers",
    "PluginInfo": "mmfw.offers",
    "Workload": "mmfw.offers",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mmfw' has no attribute {name!r}")
    if name == "gfp":
        return import_module("mmfw.gfp")
    value: object = getattr(import_module(_HOME.get(name, "mmfw.types")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
