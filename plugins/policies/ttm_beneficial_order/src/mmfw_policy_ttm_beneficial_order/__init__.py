"""Policy ttm-beneficial-order: TTM reclaims only for the order that the device gains from."""

from mmfw_policy_ttm_beneficial_order.plugin import Mode, Params, beneficial_gfp_mask

__all__ = ["Mode", "Params", "beneficial_gfp_mask"]
