"""What ``/sys/kernel/mm/transparent_hugepage`` may be told, as parameters of the plugin."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, Field

from mmfw.mm.huge_memory import ThpDefrag


class ThpEnabled(Enum):
    """``transparent_hugepage/enabled``."""

    ALWAYS = "always"
    MADVISE = "madvise"
    NEVER = "never"


class ThpParams(BaseModel):
    """Settings, by the names of sysfs; the defaults are 6.1's, ``enabled`` Debian's."""

    enabled: ThpEnabled = Field(
        ThpEnabled.ALWAYS, description="whose huge pages: always, madvise (only madvised mappings) or never"
    )
    defrag: ThpDefrag = Field(
        ThpDefrag.MADVISE,
        description="how hard a fault tries: always, defer, defer+madvise, madvise or never",
    )
    khugepaged: bool = Field(True, description="whether the thread runs")
    khugepaged_defrag: bool = Field(True, description="whether its requests may reclaim and compact")
    pages_to_scan: int = Field(4096, ge=1, description="pages it passes in one go")
    scan_sleep_millisecs: int = Field(10_000, ge=0, description="ms between two goes")
    alloc_sleep_millisecs: int = Field(60_000, ge=0, description="ms it waits after a failed allocation")
    max_ptes_none: int = Field(511, ge=0, le=511, description="absent pages of 512 that it fills in at most")
    max_ptes_swap: int = Field(64, ge=0, le=511, description="swapped pages of 512 that it reads in at most")

    def allows(self, *, madvised: bool) -> bool:
        """Whether a mapping may have huge pages."""
        return self.enabled is ThpEnabled.ALWAYS or (madvised and self.enabled is ThpEnabled.MADVISE)
