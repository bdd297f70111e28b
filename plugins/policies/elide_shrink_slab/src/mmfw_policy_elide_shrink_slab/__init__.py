"""Reclaim that a high-order failure drives calls no shrinker: the proposal of the review of June 2026."""

from mmfw_policy_elide_shrink_slab.plugin import Options

__all__ = ["Options"]
