"""Which pages of mappings hold zeroes only. Nothing in the simulator knows content, so loads say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.memory import Vma


class ZeroFilled:
    """Pages that were never written, of the mappings whose loads said so.

    A load that marks pages keeps them unwritten: `Vma.touch` of one would be a write, which nothing here notices.
    """

    def __init__(self) -> None:
        self._by_vma: dict[Vma, NDArray[np.bool_]] = {}

    def mark(self, vma: Vma, indices: NDArray[np.int64]) -> None:
        """Say that pages of a mapping, by index, hold zeroes only."""
        zeroes = self._by_vma.setdefault(vma, np.zeros(vma.nr_pages, dtype=np.bool_))
        zeroes[indices] = True

    def forget(self, vma: Vma) -> None:
        """Drop what was said of a mapping; to be called as it goes."""
        self._by_vma.pop(vma, None)

    def pages(self, vma: Vma, first: int, nr_pages: int) -> NDArray[np.bool_]:
        """Which of consecutive pages hold zeroes only."""
        zeroes = self._by_vma.get(vma)
        if zeroes is None:
            return np.zeros(nr_pages, dtype=np.bool_)
        return zeroes[first : first + nr_pages]


def zero_filled(mm: Mm) -> ZeroFilled:
    """The machine's `ZeroFilled`, attached when first asked for."""
    found = mm.attached.get(ZeroFilled)
    if found is None:
        found = ZeroFilled()
        mm.attached.put(found)
    return found
