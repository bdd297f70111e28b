"""The Xe driver's buffer objects and the shrinker that backs them up."""

from mmfw_xe_shrinker.bo import BoState, MemType, XeBo, XeVm
from mmfw_xe_shrinker.device import XeDevice
from mmfw_xe_shrinker.shrinker import XeShrinker

__all__ = ["BoState", "MemType", "XeBo", "XeDevice", "XeShrinker", "XeVm"]
