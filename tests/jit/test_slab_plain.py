"""The slab loops without numba give the answers of compiled code."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmfw.jit
from mmfw.gfp import GFP_KERNEL
from mmfw.testing import make_mm


def churn() -> str:
    """Digest of a few thousand objects coming and going, and of what is left of the arrays."""
    mm = make_mm("128M", nr_cpus=2)
    caches = [mm.slab.kmem_cache_create(f"cache-{size}", size) for size in (64, 1176, 5000)]
    held = [np.empty(0, dtype=np.int64) for _ in caches]
    digest = hashlib.sha256()
    for step in range(30):
        cache, at = caches[step % 3], step % 3
        got = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 40 + 9 * step)
        digest.update(got.tobytes())
        objects = mm.rng(f"step {step}").shuffled(np.concatenate([held[at], got]))
        nr = len(objects) * (step % 5) // 4
        cache.kmem_cache_free_bulk(objects[:nr])
        held[at] = objects[nr:]
        if step % 11 == 10:
            cache.kmem_cache_shrink()
    held[0] = np.concatenate([held[0], caches[0].adopt(mm.alloc_pages_batch(GFP_KERNEL, 0, 5))])
    mm.slab.validate()
    for cache in caches:
        digest.update(cache.store.C.tobytes() + cache.store.slabs.tobytes() + cache.store.chain.tobytes())
    digest.update(mm.pgdat.memory.page.tobytes())
    return digest.hexdigest()


@pytest.mark.skipif(mmfw.jit.i64 is int, reason="NUMBA_DISABLE_JIT is set")
def test_plain_python_gives_the_answers_of_compiled_code() -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(Path(mmfw.jit.__file__).parents[2]), str(here)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import test_slab_plain as t; print(t.churn())"],
        env={**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == churn()
