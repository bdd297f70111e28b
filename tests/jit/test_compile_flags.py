"""How the loops are compiled: the flags their speed rests on, where the code is kept, and what they are without numba."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import mmfw.jit
from mmfw import gfp
from mmfw.jit import alloc, replay
from mmfw.jit import page as pg
from mmfw.machine import machine_from_ram
from mmfw.mm.pages import Memory

JIT = Path(mmfw.jit.__file__).parent
FAST = pg.ALLOC_WMARK_LOW | pg.ALLOC_KSWAPD
needs_numba = pytest.mark.skipif(mmfw.jit.i64 is int, reason="NUMBA_DISABLE_JIT is set")


def kernels() -> dict[str, Any]:
    found = {}
    for info in pkgutil.iter_modules(mmfw.jit.__path__, "mmfw.jit."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, Dispatcher) and value.__module__ == info.name:
                found[f"{info.name}.{name}"] = value
    return found


def churn() -> str:
    """Digest of what a few thousand requests of all kinds are answered, frees and a drain between them."""
    memory = Memory(machine_from_ram("128M").node_state())
    page, pb, S = memory.page, memory.pb, memory.S
    digest, held = hashlib.sha256(), []
    for step in range(60):
        order, mt = (0, 3, 1, 9, 5, 0, 2, 10, 4)[step % 9], step % 3
        out = np.empty(96 >> order or 1, dtype=np.int64)
        request = gfp.GFP_KERNEL, order, mt, 2, FAST
        _, got = alloc.alloc_batch(page, pb, S, 0, 0, *request, out, 0)
        S[pg.S_BOOST_WAKE] = 0
        digest.update(out[:got].tobytes())
        held.append((out[:got], order))
        if step % 4 == 3:
            pfns, order = held.pop(step % len(held))
            assert alloc.free_batch(page, pb, S, 0, pfns, order, 0) == (alloc.BATCH_DONE, len(pfns))
        if step == 40:
            alloc.drain_pages(page, pb, S, 0)
    for pfns, order in held:
        assert alloc.free_batch(page, pb, S, 0, pfns, order, 0) == (alloc.BATCH_DONE, len(pfns))
    digest.update(S[: pg.S_HEADER + memory.nr_rows * (pg.Z_SIZE + pg.C_SIZE)].tobytes())
    digest.update(page.tobytes() + pb.tobytes())
    return digest.hexdigest()


def load_copy(directory: Path) -> Any:
    """The package's own __init__.py, read from a copy: what it computes depends on its neighbours' sources."""
    spec = importlib.util.spec_from_file_location("copy_of_jit", directory / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(code: str, **env: str) -> str:
    path = os.pathsep.join([str(JIT.parents[1]), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@needs_numba
def test_every_kernel_has_the_flags_its_speed_rests_on() -> None:
    options = {name: kernel.targetoptions for name, kernel in kernels().items()}
    assert {"mmfw.jit.alloc.alloc_batch", "mmfw.jit.buddy.free_one_page"} <= options.keys()
    expected = {"_nrt": False, "boundscheck": False, "error_model": "numpy", "nogil": True, "nopython": True}
    for name, given in options.items():
        assert {key: given.get(key) for key in expected} == expected, name


@needs_numba
def test_no_kernel_is_compiled_for_a_literal() -> None:
    churn()
    memory = Memory(machine_from_ram("128M").node_state())
    rows, one = np.empty((0, pg.TR_SIZE), dtype=np.int64), np.zeros(1, dtype=np.int64)
    ops = np.empty((0, 4), dtype=np.int64)
    assert (
        replay.replay_chunk(memory.page, memory.pb, memory.S, ops, ops, rows, one, 0)[0] == replay.CHUNK_DONE
    )
    cache = mmfw.jit.cache_dir()
    if cache is None:
        pytest.skip("no cache to look into")
    # Symbols of the machine code spell out the types of each variant; those of callees are in it as well.
    codes = {path.name: path.read_bytes() for path in cache.rglob("*.nbc")}
    assert any(b"get_page_from_freelist" in code for code in codes.values())
    assert [name for name, code in codes.items() if b"Literal_5b" in code] == []


@needs_numba
def test_plain_python_gives_the_answers_of_compiled_code() -> None:
    code = "import test_compile_flags as t; print(t.churn())"
    assert run(code, NUMBA_DISABLE_JIT="1") == churn()


def test_cache_moves_with_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFW_CACHE_DIR", str(tmp_path / "cache"))
    copy = shutil.copytree(JIT, tmp_path / "jit", ignore=shutil.ignore_patterns("__pycache__"))
    module = load_copy(copy)
    before = module.cache_dir()
    assert before.parent == tmp_path / "cache"
    source = copy / "page.py"
    text = source.read_text()
    source.write_text(text + "# another word\n")
    assert module.cache_dir() != before
    source.write_text(text)
    assert module.cache_dir() == before


def test_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMFW_CACHE_DIR", str(tmp_path / "file" / "below"))
    module = load_copy(JIT)
    assert module.cache_dir() is None
    doubled = module.njit(lambda x: 2 * x)
    assert doubled(21) == 42


@needs_numba
@pytest.mark.slow
def test_processes_share_the_cache(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom mmfw.jit import lists\n"
        "length = lists.walk_list(np.zeros(4, dtype=np.uint32), 0, np.empty(1, dtype=np.int64))\n"
        "print(length, sum(lists.walk_list.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(JIT.parents[1]), "MMFW_CACHE_DIR": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(process.communicate()[0][:2], process.returncode) for process in both] == [("0 ", 0)] * 2
    assert run(code, MMFW_CACHE_DIR=str(tmp_path)) == "0 1"
