from __future__ import annotations

from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest

from benchmarks.c_reference import NoCompiler, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CDLL]:
    directory: Path = tmp_path_factory.mktemp("reference")
    try:
        yield build(directory)
    except NoCompiler as missing:
        pytest.skip(str(missing))
