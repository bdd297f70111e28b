"""Shrinkers by parameters, and a DRM driver that purges."""

from mmfw_generic_slab.cache import ShrinkableCache
from mmfw_generic_slab.spec import CacheSpec, linux_shrinkers
from mmfw_generic_slab.users import GenericCaches

__all__ = ["CacheSpec", "GenericCaches", "ShrinkableCache", "linux_shrinkers"]
