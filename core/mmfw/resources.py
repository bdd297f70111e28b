"""Files that a package ships, found without importing it."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package_files(target: str, pattern: str) -> list[Path]:
    """Files in a package's own folder, by name; nothing of it is imported beyond what its outermost package does.

    Parameters
    ----------
    target : str
        Package as an entry point names it, ``pkg.sub`` or ``pkg.sub:``.
    pattern : str
        Glob for names, such as ``*.toml``.
    """
    top, _, rest = target.rstrip(":").partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None or not spec.submodule_search_locations:
        return []
    out: list[Path] = []
    for location in spec.submodule_search_locations:
        folder = Path(location, *rest.split(".")) if rest else Path(location)
        if folder.is_dir():
            out += sorted(folder.glob(pattern))
    return out
