"""Policy xe-fragmentation-heuristic: Xe's shrinker keeps its working set while memory looks fragmented, not full."""

from mmfw_policy_xe_fragmentation_heuristic.plugin import Params, WantedOrder, zone_maybe_fragmented

__all__ = ["Params", "WantedOrder", "zone_maybe_fragmented"]
