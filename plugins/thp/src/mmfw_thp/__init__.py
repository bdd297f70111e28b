"""Transparent huge pages: settings, khugepaged, the huge zero page, and loads that fault them in."""

from mmfw_thp.huge_zero_page import HugeZeroPage
from mmfw_thp.khugepaged import Khugepaged

__all__ = ["HugeZeroPage", "Khugepaged"]
