"""``compact_zone()`` asks shrinkers for memory through a third method: the proposal of the review of June 2026."""

from mmfw_policy_compaction_scan.plugin import Options

__all__ = ["Options"]
