"""Policy opportunistic-compaction: kswapd tells shrinkers that all its wakers could do without."""

from mmfw_policy_opportunistic_compaction.plugin import (
    NodeHint,
    OpportunisticCompaction,
    Params,
    WakerClass,
    waker_class,
)

__all__ = ["NodeHint", "OpportunisticCompaction", "Params", "WakerClass", "waker_class"]
