"""What copies and streams counted, and the files they left cached; attached to the `Mm`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.filemap import AddressSpace


@dataclass(slots=True)
class StreamStats:
    """State of all loads of this plugin.

    Attributes
    ----------
    copied_pages, streamed_pages : int
        Pages that ``file-copy`` has written, and that ``file-stream`` has read.
    files : list of AddressSpace
        Their files. A file whose reader has ended stays in the page cache until reclaim takes its pages.
    """

    copied_pages: int = 0
    streamed_pages: int = 0
    files: list[AddressSpace] = field(default_factory=list)

    def folios(self, order: int) -> int:
        """Folios made of an order above 0, for reading and writing."""
        return sum(file.folios[order] for file in self.files)

    def fallbacks(self, order: int) -> int:
        """Requests for a folio of an order above 0 that failed, so that smaller ones took its place."""
        return sum(file.folio_failures[order] for file in self.files)


def stream_stats(mm: Mm) -> StreamStats:
    """The machine's `StreamStats`, attached when first asked for."""
    stats = mm.attached.get(StreamStats)
    if stats is None:
        stats = StreamStats()
        mm.attached.put(stats)
    return stats
