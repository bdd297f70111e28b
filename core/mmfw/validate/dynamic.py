"""Every capture to its comparison, several at once if asked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from mmfw.validate.common import Comparison
from mmfw.validate.compact import validate_compact
from mmfw.validate.experiment import find_rebuild, read_spec
from mmfw.validate.gpu import validate_gpu
from mmfw.validate.lru import validate_lru
from mmfw.validate.recognise import Capture
from mmfw.validate.shrink import validate_shrink
from mmfw.validate.static import validate_static

_REBUILT = {"compact": validate_compact, "gpu": validate_gpu, "lru": validate_lru}


def compare(capture: Capture) -> list[Comparison]:
    """All figures of one capture.

    Raises
    ------
    InputError
        It is damaged, or no plugin rebuilds its kind.
    """
    if capture.kind == "shrink":
        return list(validate_shrink(capture.path, capture.name))
    if capture.kind == "static":
        return validate_static(capture.path)
    file = str(capture.path / "capture.json")
    spec = read_spec(capture.path, capture.kind, capture.name, capture.document, file)
    return list(_REBUILT[capture.kind](spec))


def compare_all(captures: Iterable[Capture], jobs: int = 1) -> list[Comparison]:
    """Figures of captures, in their order; ``jobs`` of them are rebuilt at once."""
    known = list(captures)
    for kind in sorted({capture.kind for capture in known if capture.kind in _REBUILT}):
        find_rebuild(kind)
    if jobs == 1 or len(known) < 2:
        return [one for capture in known for one in compare(capture)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return [one for part in pool.map(compare, known) for one in part]
