"""``current->capture_control``: who takes a block of the wanted order at the moment it is freed.

The compaction loop arms the capture around its own frees, in which nothing else runs. While a shrinker's
``compaction_scan`` runs in a compacting task, other tasks may run too, so each free asks whose it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext


class Capturer(Protocol):
    """A run of direct compaction."""

    def arm_capture(self, on: bool) -> None:
        """Begin or end a stretch in which whatever is freed may be captured."""
        ...


class TaskCapture:
    """The capture controls of tasks that are inside a ``compaction_scan``.

    Parameters
    ----------
    context : ExecContext
        The running task.
    """

    def __init__(self, context: ExecContext) -> None:
        self._context = context
        self._capturers: dict[object, Capturer] = {}

    def set_current(self, capturer: Capturer) -> None:
        """Give the running task a capture control."""
        self._capturers[self._context.current] = capturer

    def clear_current(self) -> None:
        """Take it away."""
        del self._capturers[self._context.current]

    def of_current(self) -> Capturer | None:
        """The running task's; None if it has none (``task_capc()``)."""
        return self._capturers.get(self._context.current) if self._capturers else None
