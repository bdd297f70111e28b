"""Traced runs that several tests look at."""

from __future__ import annotations

import pytest

from mmfw.run import RunRequest, run
from traced import TracedRun, pressure_request, read_lines, toy_request


def _traced(request: RunRequest) -> TracedRun:
    assert request.trace is not None
    assert request.proc is not None
    result = run(request)
    return TracedRun(result, request.trace, request.proc, read_lines(request.trace))


@pytest.fixture(scope="session")
def pressure(tmp_path_factory: pytest.TempPathFactory) -> TracedRun:
    """`pressure_request` with every event."""
    folder = tmp_path_factory.mktemp("pressure")
    return _traced(pressure_request(trace=folder / "t", proc=folder / "p", events="*:*"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TracedRun:
    """`toy_request` without flags: the form that trace-pagealloc-postprocess.pl reads."""
    folder = tmp_path_factory.mktemp("toy")
    request = toy_request(
        trace=folder / "t", proc=folder / "p", events="vmscan,compaction,kmem", trace_options="noirq-info"
    )
    return _traced(request)
