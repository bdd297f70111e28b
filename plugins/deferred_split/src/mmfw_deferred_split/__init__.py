"""Partly unmapped huge pages, and the shrinker that splits them (mm/huge_memory.c)."""

from mmfw_deferred_split.zeroes import ZeroFilled, zero_filled

__all__ = ["ZeroFilled", "zero_filled"]
