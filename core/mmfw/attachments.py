"""Typed attachments: how a plugin adds a field to a struct it does not own.

A policy that needs one more field in ``struct shrink_control`` patches the struct in C. Here it defines a
class of its own and attaches an instance; the class is the key, so two policies never collide, a type
checker knows what comes back, and the struct stays what mainline has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Attachments:
    """Values attached to one struct, at most one of each class, in the order they were attached."""

    __slots__ = ("_by_class",)

    def __init__(self) -> None:
        self._by_class: dict[type, object] = {}

    def put(self, value: object) -> None:
        """Attach `value` under its own class, in place of an earlier value of that class.

        Raises
        ------
        TypeError
            `value` is of a builtin class, which two policies would share without knowing.
        """
        cls = type(value)
        if cls.__module__ == "builtins":
            raise TypeError(f"cannot attach a bare {cls.__name__}; attach an instance of a class of your own")
        self._by_class[cls] = value

    def get(self, cls: type[T]) -> T | None:
        """Value attached under exactly `cls`, or None; a subclass is another field."""
        value = self._by_class.get(cls)
        return value if isinstance(value, cls) else None

    def __iter__(self) -> Iterator[object]:
        return iter(self._by_class.values())

    def __len__(self) -> int:
        return len(self._by_class)


class Attachable(Protocol):
    """A struct with room for attachments; None until the first one, so that mainline pays nothing."""

    attached: Attachments | None


def attach(struct: Attachable, value: object) -> None:
    """Attach `value` to `struct` under the value's class.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from mmfw.types import ShrinkControl
    >>> @dataclass
    ... class Hint:
    ...     opportunistic_compaction: bool
    >>> sc = ShrinkControl(gfp_mask=0xCC0, nid=0)
    >>> attach(sc, Hint(True))
    >>> attachment(sc, Hint)
    Hint(opportunistic_compaction=True)
    """
    if struct.attached is None:
        struct.attached = Attachments()
    struct.attached.put(value)


def attachment(struct: Attachable, cls: type[T]) -> T | None:
    """Value of class `cls` attached to `struct`, or None if nobody attached one."""
    return None if struct.attached is None else struct.attached.get(cls)
