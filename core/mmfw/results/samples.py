"""``samples.parquet``: memory at fixed virtual times, a row each.

``time_ns``; ``nr_free_pages``; ``free_order_0`` to ``free_order_10`` (free blocks of the node);
``unusable_index_order_9`` (thousandths); ``kswapd_busy_ns``, ``kcompactd_busy_ns``, ``direct_stall_ns`` (since the
start); ``vmstat.NAME`` for counters that changed (since the start of the machine); ``metric.NAME`` for what plugins
measure. All int64 but ``metric.*``, which are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfw.figures import node_free_counts
from mmfw.mm.fragmentation import unusable_free_index
from mmfw.state import MAX_ORDER, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.mm.core import Mm
    from mmfw.offers import Metric


class SampleRecorder:
    """Notes a row whenever it is told to.

    Parameters
    ----------
    mm : Mm
        The machine.
    metrics : mapping of str to Metric
        What plugins measure.
    """

    def __init__(self, mm: Mm, metrics: Mapping[str, Metric]) -> None:
        self._mm = mm
        self._metrics = metrics
        self._node: list[list[int]] = []
        self._vmstat: list[dict[str, int]] = []
        self._read: list[list[float]] = []

    def sample(self) -> None:
        """Note memory as it is now."""
        mm = self._mm
        counts = node_free_counts(mm)
        self._node.append(
            [
                mm.sched.now,
                mm.global_free_pages(),
                *counts,
                unusable_free_index(counts, PAGEBLOCK_ORDER),
                mm.kswapd.busy_ns,
                mm.kcompactd.busy_ns,
                mm.requests.slowpath_ns,
            ]
        )
        self._vmstat.append(mm.vmstat.as_dict())
        self._read.append([float(metric.read(mm)) for metric in self._metrics.values()])

    def columns(self) -> dict[str, NDArray[Any]]:
        """The rows as columns, in the order of the module's text."""
        names = [
            "time_ns",
            "nr_free_pages",
            *(f"free_order_{order}" for order in range(MAX_ORDER)),
            "unusable_index_order_9",
            "kswapd_busy_ns",
            "kcompactd_busy_ns",
            "direct_stall_ns",
        ]
        node = np.array(self._node, dtype=np.int64).reshape(-1, len(names))
        columns: dict[str, NDArray[Any]] = {name: node[:, i] for i, name in enumerate(names)}
        for name in self._vmstat[0] if self._vmstat else ():
            values = np.array([row[name] for row in self._vmstat], dtype=np.int64)
            if (values != values[0]).any():
                columns[f"vmstat.{name}"] = values
        read = np.array(self._read, dtype=np.float64).reshape(len(self._read), len(self._metrics))
        for i, name in enumerate(self._metrics):
            columns[f"metric.{name}"] = read[:, i]
        return columns
