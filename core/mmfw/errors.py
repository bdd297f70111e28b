"""The errors a user can meet; each message says what is wrong, where, and what would be right.

The exit status that the command line gives to each class stands on the class, so that no other
place decides it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MmfwError(Exception):
    """Base of every error that mmfw raises on purpose; its text is one line for a user's eyes."""

    exit_status = 2


class InputError(MmfwError):
    """Something the user gave is wrong: an option, a scenario, a trace, a machine directory.

    Parameters
    ----------
    message : str
        What is wrong and what would be right.
    file : str, optional
        File the fault is in.
    line : int, optional
        Line of that file, counted from 1.
    """

    exit_status = 2

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        self.file = file
        self.line = line
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + message)


class CallerError(MmfwError):
    """Something was asked of mm that no caller may ask; whoever called is to blame, and the guard names it."""

    exit_status = 3


class PluginError(MmfwError):
    """A plugin misbehaved: it broke its contract, or raised where it may not.

    Parameters
    ----------
    message : str
        What happened and what would be right.
    plugin : str
        Short name of the plugin.
    hook : str, optional
        Hook or shrinker method it happened in.
    """

    exit_status = 3

    def __init__(self, message: str, *, plugin: str, hook: str | None = None) -> None:
        self.plugin = plugin
        self.hook = hook
        where = f"plugin {plugin}" if hook is None else f"plugin {plugin}, {hook}"
        super().__init__(f"{where}: {message}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Sentence that suggests the nearest known names, or lists them all if none is near.

    Examples
    --------
    >>> did_you_mean("xee", ["xe", "ttm"])
    "did you mean 'xe'?"
    >>> did_you_mean("zzz", ["xe", "ttm"])
    'known: ttm, xe'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
