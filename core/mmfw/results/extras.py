"""Libraries of the extra ``study``, imported where they are used; a missing one is one line with the remedy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmfw.errors import InputError


def study_module(name: str, what: str) -> Any:
    """Import a library of the extra.

    Parameters
    ----------
    name : str
        Module, such as ``pyarrow.parquet``.
    what : str
        What needs it, as the user knows it: ``--out``.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as fault:
        library = name.partition(".")[0]
        raise InputError(f"{what} needs {library} ({fault}): pip install mmfw[study]") from None
