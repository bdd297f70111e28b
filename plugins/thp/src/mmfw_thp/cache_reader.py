"""Workload ``thp-cache-reader``: a program whose file is in the page cache and is read round and round.

It stands for what else a machine does: it misses what a storm pushed out, and so takes the memory that a storm gave
back, page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_SEC: Final = 1_000_000_000
#: Turns a second; each reads that part of a second's pages.
TURNS_PER_SECOND: Final = 250


class CacheReaderParams(BaseModel):
    """The file, and how fast it is read."""

    file_pages: int = Field(
        262_144, ge=1, description="pages of the file; all are in the page cache at first"
    )
    pages_per_second: int = Field(50_000, ge=250, description="pages read a second, in ascending order")


def thp_cache_reader(mm: Mm, params: CacheReaderParams) -> None:
    """Read a file round and round until killed; what reading made late is not caught up with."""
    sched = mm.sched
    file = mm.page_cache.open(params.file_pages)
    mm.page_cache.adopt(file, mm.claim_resident(params.file_pages, movable=True, what="file_pages"))
    pages = np.arange(min(params.pages_per_second // TURNS_PER_SECOND, params.file_pages), dtype=np.int64)
    position, due = 0, sched.now
    try:
        while True:
            file.read_pages((position + pages) % params.file_pages)
            position = (position + len(pages)) % params.file_pages
            due = max(due + NSEC_PER_SEC // TURNS_PER_SECOND, sched.now + 1)
            sched.nanosleep(due - sched.now)
    finally:
        file.close()
