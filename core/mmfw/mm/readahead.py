"""How much is read ahead of a sequential reader (mm/readahead.c of 6.1, ``ondemand_readahead()``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FileRaState:
    """``struct file_ra_state``; all in pages.

    Attributes
    ----------
    ra_pages : int
        Largest window, 32 (128 KiB) unless the device says otherwise.
    start, size, async_size : int
        The window read last, and how many of its last pages trigger the next one.
    prev_index : int
        Page read last, -1 for none.
    marker : int
        Index of the page that carries PG_readahead, -1 for none.
    io_pages : int
        Largest single request of the device, up to which one large read may widen its window.
    """

    ra_pages: int = 32
    start: int = 0
    size: int = 0
    async_size: int = 0
    prev_index: int = -1
    marker: int = -1
    io_pages: int = 320


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


def ondemand_readahead(ra: FileRaState, index: int, req_size: int, *, hit_marker: bool) -> tuple[int, int]:
    """Plan the next window (``ondemand_readahead()``).

    Context readahead, which infers a stream from cached pages before it, is left out: a reader that starts in the
    midst of a file has its first window sized by its request.

    Parameters
    ----------
    ra : FileRaState
        Updated.
    index, req_size : int
        Page that is needed, and pages the reader asked for from there on.
    hit_marker : bool
        Whether the page is there and carries the marker.

    Returns
    -------
    (int, int)
        First page and number of pages to read.
    """
    largest = ra.ra_pages
    if req_size > largest and ra.io_pages > largest:
        largest = min(req_size, ra.io_pages)
    sequential = ra.size > 0 and index in (ra.start + ra.size - ra.async_size, ra.start + ra.size)
    if index and sequential:
        ra.start += ra.size
        ra.size = get_next_ra_size(ra.size, largest)
        ra.async_size = ra.size
    elif index and hit_marker:
        ra.start = index + 1
        ra.size = get_next_ra_size(req_size, largest)
        ra.async_size = ra.size
    elif index == 0 or req_size > largest or 0 <= index - ra.prev_index <= 1:
        ra.start = index
        ra.size = get_init_ra_size(req_size, largest)
        ra.async_size = ra.size - req_size if ra.size > req_size else ra.size
    else:
        return index, min(req_size, largest)
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
