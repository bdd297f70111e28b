"""A high-order failure wakes kcompactd, not kswapd: the proposal of the review of June 2026."""

from mmfw_policy_no_kswapd_kick.plugin import Options

__all__ = ["Options"]
