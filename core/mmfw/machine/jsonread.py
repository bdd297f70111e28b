"""Typed reading of decoded JSON, with errors that name file, line and the path of the key.

Long arrays of integers become numpy arrays after one check at C speed, not element by element.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError

_INT64_MAX = 2**63 - 1


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", int: "an integer"}
    return names.get(type(value), "null" if value is None else "a number with a fraction")


class Node:
    """One value of a decoded JSON document, and where it stands.

    Parameters
    ----------
    value : object
        The value.
    path : str
        Its key path, such as ``zones[1].free_area[3]``; empty for the document.
    file : str
        Name for error messages.
    line : int, optional
        Line of the document.
    """

    __slots__ = ("_file", "_line", "_path", "_value")

    def __init__(self, value: object, path: str, file: str, line: int | None = None) -> None:
        self._value = value
        self._path = path
        self._file = file
        self._line = line

    def error(self, message: str) -> InputError:
        """Error that names this value."""
        return InputError(f"{self._path or 'the record'}: {message}", file=self._file, line=self._line)

    def _wrong(self, wanted: str) -> InputError:
        return self.error(f"is {_kind(self._value)}; it should be {wanted}")

    def _child(self, value: object, step: str) -> Node:
        return Node(value, self._path + step if self._path else step.lstrip("."), self._file, self._line)

    def is_array(self) -> bool:
        """Whether the value is an array."""
        return isinstance(self._value, list)

    def has(self, name: str) -> bool:
        """Whether the value is an object with this key."""
        return isinstance(self._value, Mapping) and name in self._value

    def key(self, name: str) -> Node:
        """Value of a key.

        Raises
        ------
        InputError
            The value is no object, or lacks the key.
        """
        if not isinstance(self._value, Mapping):
            raise self._wrong("an object")
        if name not in self._value:
            raise self.error(f"has no key {name!r}")
        return self._child(self._value[name], f".{name}")

    def at(self, index: int) -> Node:
        """Element of an array, for an error message."""
        value = self._value[index] if isinstance(self._value, list) and index < len(self._value) else None
        return self._child(value, f"[{index}]")

    def items(self) -> list[Node]:
        """Elements of an array.

        Raises
        ------
        InputError
            The value is no array.
        """
        if not isinstance(self._value, list):
            raise self._wrong("an array")
        return [self._child(value, f"[{index}]") for index, value in enumerate(self._value)]

    def integer(self, low: int = 0, high: int = _INT64_MAX) -> int:
        """Integer within bounds, both included.

        Raises
        ------
        InputError
            The value is no integer, or out of bounds.
        """
        if type(self._value) is not int:
            raise self._wrong("an integer")
        if not low <= self._value <= high:
            shown = str(self._value) if abs(self._value) < 2**80 else "a huge number"
            raise self.error(f"is {shown}; it should be {low}..{high}")
        return self._value

    def optional_integer(self, name: str, default: int) -> int:
        """Integer under a key that may be missing."""
        return self.key(name).integer() if self.has(name) else default

    def integers(self) -> list[int]:
        """Short array of integers, none negative."""
        return [item.integer() for item in self.items()]

    def text(self) -> str:
        """Text.

        Raises
        ------
        InputError
            The value is no text.
        """
        if not isinstance(self._value, str):
            raise self._wrong("a text")
        return self._value

    def array(self) -> NDArray[np.int64]:
        """Array of integers.

        Raises
        ------
        InputError
            The value is no array, or an element no integer of 64 bits.
        """
        if not isinstance(self._value, list):
            raise self._wrong("an array")
        if set(map(type, self._value)) - {int}:
            index = next(i for i, value in enumerate(self._value) if type(value) is not int)
            raise self.at(index)._wrong("an integer")
        try:
            return np.array(self._value, dtype=np.int64)
        except OverflowError:
            raise self.error("holds an integer that does not fit 64 bits") from None

    def pairs(self) -> NDArray[np.int64]:
        """Array of pairs of integers, as an array of two columns.

        Raises
        ------
        InputError
            The value is no array of pairs of integers.
        """
        if not isinstance(self._value, list):
            raise self._wrong("an array")
        if set(map(type, self._value)) - {list} or set(map(len, self._value)) - {2}:
            bad = (i for i, v in enumerate(self._value) if not isinstance(v, list) or len(v) != 2)
            raise self.at(next(bad)).error("should be a pair of integers")
        flat = self._child(list(chain.from_iterable(self._value)), "[pairs]")
        return flat.array().reshape(-1, 2)
