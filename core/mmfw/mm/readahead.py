"""How much is read ahead of a sequential reader (mm/readahead.c of 6.1, ``ondemand_readahead()``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class FileRaState:
    """``struct file_ra_state``; all in pages.

    Attributes
    ----------
    ra_pages : int
        Largest window, 32 (128 KiB) unless the device says otherwise; 0 for none.
    start, size, async_size : int
        The window read last, and how many of its last pages trigger the next one.
    prev_pos : int
        Page behind the one that was read last, -1 for none. The kernel keeps the byte, which is that page's first if
        whole pages are read.
    marker : int
        Index of the page of the window planned last that is to carry PG_readahead, -1 for none.
    mmap_miss : int
        Faults that found their page absent, less those that found it.
    io_pages : int
        Largest single request of the device, up to which one large read may widen its window.
    """

    ra_pages: int = 32
    start: int = 0
    size: int = 0
    async_size: int = 0
    prev_pos: int = -1
    marker: int = -1
    mmap_miss: int = 0
    io_pages: int = 320


class CachedPages(Protocol):
    """A file's cached pages, as the planner asks for them."""

    def next_miss(self, index: int, max_scan: int) -> int:
        """First absent page from an index on; ``index + max_scan`` if so many are present."""
        ...

    def history(self, index: int, max_scan: int) -> int:
        """Pages present one behind the other before an index, at most so many."""
        ...


class NothingCached:
    """A file without a cached page."""

    def next_miss(self, index: int, max_scan: int) -> int:
        """The page itself."""
        del max_scan
        return index

    def history(self, index: int, max_scan: int) -> int:
        """None."""
        del index, max_scan
        return 0


def get_init_ra_size(size: int, largest: int) -> int:
    """First window of a reader that asks for ``size`` pages (``get_init_ra_size()``).

    Examples
    --------
    >>> get_init_ra_size(16, 32), get_init_ra_size(1, 32), get_init_ra_size(4, 32)
    (32, 4, 8)
    """
    rounded = 1 << (size - 1).bit_length() if size > 1 else 1
    if rounded <= largest // 32:
        return rounded * 4
    if rounded <= largest // 4:
        return rounded * 2
    return largest


def get_next_ra_size(size: int, largest: int) -> int:
    """The window after one of ``size`` pages (``get_next_ra_size()``)."""
    if size < largest // 16:
        return 4 * size
    return 2 * size if size <= largest // 2 else largest


def _try_context_readahead(
    ra: FileRaState, index: int, req_size: int, largest: int, mapping: CachedPages
) -> bool:
    """Plan by the pages that a stream left behind (``try_context_readahead()``)."""
    size = mapping.history(index, largest)
    if size <= req_size:
        return False
    if size >= index:
        size *= 2  # a stream from the start of the file
    ra.start = index
    ra.size = min(size + req_size, largest)
    ra.async_size = 1
    return True


def ondemand_readahead(
    ra: FileRaState,
    index: int,
    req_size: int,
    *,
    hit_marker: bool,
    order: int = 0,
    mapping: CachedPages | None = None,
) -> tuple[int, int]:
    """Plan the next window (``ondemand_readahead()``).

    Parameters
    ----------
    ra : FileRaState
        Updated.
    index, req_size : int
        Page that is needed, and pages the reader asked for from there on.
    hit_marker : bool
        Whether the page is there and carries the marker.
    order : int
        Order of the folio that carries it.
    mapping : CachedPages, optional
        What is cached; without it nothing is.

    Returns
    -------
    (int, int)
        First page and number of pages to read; 0 for none.
    """
    mapping = mapping or NothingCached()
    largest = ra.ra_pages
    if req_size > largest and ra.io_pages > largest:
        largest = min(req_size, ra.io_pages)
    expected = (ra.start + ra.size - ra.async_size) >> order << order
    if index and index in (expected, ra.start + ra.size):
        ra.start += ra.size
        ra.size = max(ra.size, get_next_ra_size(ra.size, largest))
        ra.async_size = ra.size
    elif index and hit_marker:
        # A marker of another window: what is cached behind it is taken for that window's rest.
        start = mapping.next_miss(index + 1, largest)
        if start - index > largest:
            return index, 0
        ra.start = start
        ra.size = get_next_ra_size(start - index + req_size, largest)
        ra.async_size = ra.size
    elif index == 0 or req_size > largest or (ra.prev_pos >= 0 and 0 <= index - ra.prev_pos <= 1):
        ra.start = index
        ra.size = get_init_ra_size(req_size, largest)
        ra.async_size = ra.size - req_size if ra.size > req_size else ra.size
    elif not _try_context_readahead(ra, index, req_size, largest, mapping):
        ra.marker = -1
        return index, req_size
    if index == ra.start and ra.size == ra.async_size:
        more = get_next_ra_size(ra.size, largest)
        if ra.size + more <= largest:
            ra.async_size = more
            ra.size += more
        else:
            ra.size = largest
            ra.async_size = largest >> 1
    ra.marker = ra.start + ra.size - ra.async_size
    return ra.start, ra.size
