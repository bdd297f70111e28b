"""Loads that stand for no particular program: they ask for memory in one way each."""

from mmfw_demand.loads import DemandLoads, demand_loads
from mmfw_demand.masks import GfpMask, parse_mask
from mmfw_demand.pace import Pace

__all__ = ["DemandLoads", "GfpMask", "Pace", "demand_loads", "parse_mask"]
