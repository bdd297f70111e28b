"""``trace_options`` of the traces written here, under ftrace's names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from mmfw.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How lines are printed.

    Attributes
    ----------
    irq_info : bool
        Whether the flags stand before the timestamp (``irq-info``, on by default as in the kernel). The kernel's
        trace-pagealloc-postprocess.pl reads lines without them only.
    """

    irq_info: bool = True


_NAMES: Final = tuple(each.name.replace("_", "-") for each in fields(TraceOptions))


def choose_options(text: str | None) -> TraceOptions:
    """Options of a list such as ``noirq-info``; ``no`` before a name turns it off, the last word on one counts.

    Parameters
    ----------
    text : str or None
        Comma-separated names. None for the kernel's defaults.

    Raises
    ------
    InputError
        A word names no option; the message suggests the nearest name.

    Examples
    --------
    >>> choose_options("noirq-info")
    TraceOptions(irq_info=False)
    """
    chosen: dict[str, bool] = {}
    for word in [] if text is None else [word.strip() for word in text.split(",")]:
        known = {name: (name, True) for name in _NAMES} | {f"no{name}": (name, False) for name in _NAMES}
        if word not in known:
            raise InputError(f"--trace-options {text!r}: no option {word!r}; {did_you_mean(word, known)}")
        name, on = known[word]
        chosen[name.replace("-", "_")] = on
    return TraceOptions(**chosen)
