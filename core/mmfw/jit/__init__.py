"""Compiled loops over arrays and integers: the only code that touches a page at a time.

Every function here is compiled through this module, which holds the flags in one place:

* ``_nrt=False`` switches numba's reference counting off. The kernels allocate nothing and return
  integers, so nothing needs counting; with it on, each inner call pays for increments and
  decrements of every array it was handed.
* Small list operations are merged into their callers before type inference (`inline_njit`), large
  functions on the hot path after it, by LLVM (`merge_njit`): merged early, numba copies and infers them
  again for every caller, and first use takes a third longer.
* ``error_model="numpy"`` drops the zero-division checks, ``boundscheck=False`` the index checks,
  ``no_cfunc_wrapper`` an entry point that nobody calls.

Time as a multiple of the C reference's (4 GiB; ``python -m benchmarks``, whose workloads these are):

=============================  ====  =====  ======  =====  =========
flags                          fill  churn  bursts  mixed  near-full
=============================  ====  =====  ======  =====  =========
as they are                     1.3    1.3     1.3    1.3        1.4
reference counting on           7.7    2.6     3.9    3.2        2.8
nothing merged                  3.0    1.8     2.7    2.3        2.2
both                            8.8    3.1     4.2    3.9        3.8
=============================  ====  =====  ======  =====  =========

The on-disk cache does not notice a change in *another* module's merged function, so the cache
directory is stamped with a digest of all sources of this package. Where it cannot be written, functions
are compiled anew in each process, and nothing fails.

No function here knows an object, time, a policy or an exception: faults come back as negative
status codes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core import config

numba_config: Any = config  # its settings come from the environment, unknown to type stubs
_numba_njit: Any = numba.njit  # the stubs know no _nrt

P = ParamSpec("P")
R = TypeVar("R")

#: An integer as the loops compute with it, whatever array it came from. A literal passed from one compiled
#: function to another goes through it too: numba compiles a variant of the callee for each literal.
i64: Callable[[Any], int] = int if numba_config.DISABLE_JIT else cast("Callable[[Any], int]", np.int64)


def _cache_home() -> Path | None:
    override = os.environ.get("MMFW_CACHE_DIR")
    if override:
        return Path(override)
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg:
        return Path(xdg) / "mmfw"
    try:
        return Path.home() / ".cache" / "mmfw"
    except RuntimeError:  # a user without a home
        return None


def cache_dir() -> Path | None:
    """Directory of the compiled code of exactly these sources, or None where none can be written.

    It lies under ``$MMFW_CACHE_DIR``, else ``$XDG_CACHE_HOME/mmfw``, else ``~/.cache/mmfw``.
    """
    digest = hashlib.sha256()
    digest.update(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    home = _cache_home()
    if home is None:
        return None
    path = home / f"jit-{digest.hexdigest()[:16]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK) else None


_CACHE = cache_dir()


def _compile(function: Callable[P, R], **flags: Any) -> Callable[P, R]:
    # numba picks the cache's place when the decorator runs; the setting is global to the process,
    # so it is put back for the sake of other users of numba.
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = "" if _CACHE is None else str(_CACHE)
    try:
        compiled = _numba_njit(
            function,
            cache=_CACHE is not None,
            boundscheck=False,
            error_model="numpy",
            nogil=True,
            _nrt=False,
            no_cfunc_wrapper=True,
            **flags,
        )
    finally:
        numba_config.CACHE_DIR = before
    return cast(Callable[P, R], compiled)


def njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that is called: from Python, or by compiled code off the hot path."""
    return _compile(function)


def inline_njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small inner function that is merged into each caller before type inference."""
    return _compile(function, inline="always")


def merge_njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a large inner function once; LLVM merges it into each caller."""
    return _compile(function, forceinline=True)
