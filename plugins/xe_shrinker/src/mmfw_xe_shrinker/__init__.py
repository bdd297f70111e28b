"""The Xe driver's buffer objects and the shrinker that backs them up."""

from mmfw_xe_shrinker.bo import BoState, MemType, XeBo, XeVm
from mmfw_xe_shrinker.compact import CompactionBody
from mmfw_xe_shrinker.defragment import defragment_bo, fragmented_bos
from mmfw_xe_shrinker.device import XeDevice
from mmfw_xe_shrinker.pm import XePm
from mmfw_xe_shrinker.shrinker import XeShrinker
from mmfw_xe_shrinker.stats import Evictor

__all__ = [
    "BoState",
    "CompactionBody",
    "Evictor",
    "MemType",
    "XeBo",
    "XeDevice",
    "XePm",
    "XeShrinker",
    "XeVm",
    "defragment_bo",
    "fragmented_bos",
]
