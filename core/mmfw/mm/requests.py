"""How requests for pages fared, by order and by how much their callers insist. Nothing in the kernel stands for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mmfw import gfp
from mmfw.mm.vmscan import PAGE_ALLOC_COSTLY_ORDER


class RequestClass(Enum):
    """What a request says of itself by its order and mask."""

    C0 = "C0"  #: a single page
    CO = "CO"  #: opportunistic: ``__GFP_NORETRY`` or ``__GFP_RETRY_MAYFAIL``, and not ``__GFP_NOFAIL``
    CM = "CM"  #: must: any other that may reclaim
    CN = "CN"  #: neither flag, and may not reclaim directly


def request_class(order: int, gfp_mask: int) -> RequestClass:
    """Class of a request.

    Examples
    --------
    >>> request_class(9, gfp.GFP_KERNEL | gfp.NORETRY), request_class(9, gfp.GFP_KERNEL)
    (<RequestClass.CO: 'CO'>, <RequestClass.CM: 'CM'>)
    """
    if order == 0:
        return RequestClass.C0
    if gfp_mask & gfp.NOFAIL:
        return RequestClass.CM
    if gfp_mask & (gfp.NORETRY | gfp.RETRY_MAYFAIL):
        return RequestClass.CO
    return RequestClass.CM if gfp_mask & gfp.DIRECT_RECLAIM else RequestClass.CN


@dataclass(slots=True)
class _Account:
    nr: int = 0
    nr_failed: int = 0
    ns: Counter[int] = field(default_factory=Counter)
    failed_ns: Counter[int] = field(default_factory=Counter)  #: those of `ns` that got nothing


@dataclass(frozen=True, slots=True)
class RequestRow:
    """Requests of one order and class.

    Attributes
    ----------
    order : int
        Order.
    cls : RequestClass
        Class.
    nr, nr_failed : int
        Requests, and those that got nothing.
    p50_ns, p99_ns : int
        Virtual time from the call to its return, failed ones included.
    """

    order: int
    cls: RequestClass
    nr: int
    nr_failed: int
    p50_ns: int
    p99_ns: int


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """How long requests of one order and class took.

    Attributes
    ----------
    order : int
        Order.
    cls : RequestClass
        Class.
    bin_ns : tuple of int
        Lower bounds of the bins: 0, then powers of two up to the longest; virtual ns.
    nr, nr_failed : tuple of int
        Requests in each bin, and those of them that got nothing.
    """

    order: int
    cls: RequestClass
    bin_ns: tuple[int, ...]
    nr: tuple[int, ...]
    nr_failed: tuple[int, ...]


#: Orders whose requests are all seen; of single pages only those are that missed the free lists.
SEEN_FROM_ORDER: Final = 1


class RequestStats:
    """Counts requests as they return.

    Seen are all requests above order 0 but those of slab caches, whose allocation is compiled and falls back by itself;
    of single pages those that entered the slow path, for the others cannot fail or wait.

    Attributes
    ----------
    slowpath_ns : int
        Time that tasks spent in ``__alloc_pages_slowpath()``, all requests together; virtual ns.
    nr_high_order_pages : int
        Pages of successful requests of costly order.
    """

    def __init__(self) -> None:
        self._accounts: dict[tuple[int, RequestClass], _Account] = {}
        self._classes: dict[tuple[int, int], _Account] = {}
        self.slowpath_ns = 0
        self.nr_high_order_pages = 0

    def clear(self) -> None:
        """Forget what was noted: time begins now."""
        self._accounts.clear()
        self._classes.clear()
        self.slowpath_ns = self.nr_high_order_pages = 0

    def note(self, gfp_mask: int, order: int, nr: int, *, ok: bool, ns: int) -> None:
        """Note `nr` requests that took `ns` together and all did, or all did not, get their block."""
        account = self._classes.get((order, gfp_mask))
        if account is None:
            key = order, request_class(order, gfp_mask)
            account = self._classes[order, gfp_mask] = self._accounts.setdefault(key, _Account())
        account.nr += nr
        if not ok:
            account.nr_failed += nr
            account.failed_ns[ns // nr] += nr
        elif order > PAGE_ALLOC_COSTLY_ORDER:
            self.nr_high_order_pages += nr << order
        account.ns[ns // nr] += nr

    def rows(self) -> tuple[RequestRow, ...]:
        """The table, by order and class."""
        keys = sorted(self._accounts, key=lambda key: (key[0], key[1].value))
        return tuple(self._row(*key) for key in keys)

    def latencies(self) -> tuple[LatencyHistogram, ...]:
        """Histograms of the times from call to return, by order and class."""
        keys = sorted(self._accounts, key=lambda key: (key[0], key[1].value))
        return tuple(self._histogram(*key) for key in keys)

    def success_ratio(self, min_order: int, max_order: int) -> float | None:
        """Share of the requests of some orders that got a block; None if there were none."""
        chosen = [a for (order, _), a in self._accounts.items() if min_order <= order <= max_order]
        nr = sum(account.nr for account in chosen)
        return 1 - sum(account.nr_failed for account in chosen) / nr if nr else None

    def quantile_ns(self, order: int, percent: int) -> int:
        """Time within which so many percent of an order's requests returned; 0 if there were none."""
        together: Counter[int] = Counter()
        for (of, _), account in self._accounts.items():
            if of == order:
                together += account.ns
        return _quantile(together, percent)

    def _histogram(self, order: int, cls: RequestClass) -> LatencyHistogram:
        account = self._accounts[order, cls]
        nr_bins = max(account.ns).bit_length() + 1
        nr, nr_failed = [0] * nr_bins, [0] * nr_bins
        for times, bins in ((account.ns, nr), (account.failed_ns, nr_failed)):
            for ns, n in times.items():
                bins[ns.bit_length()] += n
        bounds = (0, *(1 << i for i in range(nr_bins - 1)))
        return LatencyHistogram(order, cls, bounds, tuple(nr), tuple(nr_failed))

    def _row(self, order: int, cls: RequestClass) -> RequestRow:
        account = self._accounts[order, cls]
        p50, p99 = (_quantile(account.ns, percent) for percent in (50, 99))
        return RequestRow(order, cls, account.nr, account.nr_failed, p50, p99)


def _quantile(times: Counter[int], percent: int) -> int:
    """Smallest time within which so many percent lie (nearest rank)."""
    rank = -(-sum(times.values()) * percent // 100)
    for ns, n in sorted(times.items()):
        rank -= n
        if rank <= 0:
            return ns
    return 0
