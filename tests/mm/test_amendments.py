"""Hooks that note and attach: who woke kswapd, what a pass tells the shrinkers, and what counts as a failure."""

from __future__ import annotations

import textwrap

import pytest

from mmfw.run import RunRequest, run

SCENARIO = """
name = "hinted"
description = "order-9 requests, then single pages"
plugins = []
machine = "256M"
duration = "2s"

[state]
unmovable_block_fraction = 1.0

[state.buddyinfo]
DMA32 = [2000, 2000, 2000, 2000, 0, 0, 0, 0, 0, 0, 0]
DMA = [100, 100, 100, 0, 0, 0, 0, 0, 0, 0, 0]

[[workloads]]
name = "requests"
"""

#: The hint of the series, v6: set only if every waker of a run was a failable request above order 0.
POLICY = """
from dataclasses import dataclass, field
from mmfw import Workload, attach, attachment, gfp, hookimpl
from mmfw import SHRINK_STOP

ELIDED_IS_FAILURE = {elided_is_failure}
SEEN = []


@dataclass(frozen=True)
class Folded:
    opportunistic: bool


@dataclass(frozen=True)
class ThisRun:
    opportunistic: bool


@dataclass(frozen=True)
class Hint:
    opportunistic_compaction: bool


@hookimpl
def mmfw_fold_kswapd_waker(pgdat, wake):
    failable = wake.order > 0 and bool(wake.gfp_mask & (gfp.NORETRY | gfp.RETRY_MAYFAIL))
    before = attachment(pgdat, Folded)
    attach(pgdat, Folded(failable and (before is None or before.opportunistic)))


@hookimpl
def mmfw_kswapd_begin(pgdat, request):
    folded = attachment(pgdat, Folded)
    attach(pgdat, ThisRun(folded is not None and folded.opportunistic))
    attach(pgdat, Folded(True))
    SEEN.append(("begin", request.order))


@hookimpl
def mmfw_kswapd_requeue(pgdat, request):
    SEEN.append(("requeue", request.order))


@hookimpl
def mmfw_init_shrink_control(shrinkctl, reclaim_context):
    this_run = attachment(reclaim_context.pgdat, ThisRun)
    hint = this_run is not None and this_run.opportunistic and reclaim_context.order > 0
    attach(shrinkctl, Hint(hint))


@hookimpl
def mmfw_should_count_kswapd_failure(sc):
    return None if ELIDED_IS_FAILURE else False


class Witness:
    seeks = 2

    @hookimpl
    def count_objects(self, sc):
        SEEN.append(("hint", attachment(sc, Hint).opportunistic_compaction))
        return 0

    @hookimpl
    def scan_objects(self, sc):
        return SHRINK_STOP


@hookimpl
def mmfw_module_init(mm):
    mm.register_shrinker(Witness(), "witness")


def requests(mm, params):
    for _ in range(20):
        assert mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 9) < 0
        mm.sched.nanosleep(20_000_000)
    SEEN.append(("failures", mm.pgdat.kswapd_failures))


@hookimpl
def mmfw_register_workloads():
    yield Workload("requests", "asks", run=requests)


@hookimpl
def mmfw_module_exit(mm):
    print("SEEN", sorted(set(SEEN)))
"""


@pytest.fixture
def seen(tmp_path, capsys):
    def run_it(*, elided_is_failure: bool = True) -> list[tuple[str, object]]:
        policy = tmp_path / "hint.py"
        policy.write_text(POLICY.replace("{elided_is_failure}", str(elided_is_failure)))
        scenario = tmp_path / "hinted.toml"
        scenario.write_text(textwrap.dedent(SCENARIO))
        run(RunRequest(scenario=str(scenario), plugin_files=(policy,)))
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SEEN")]
        return eval(line.removeprefix("SEEN "), {})  # written by this test

    return run_it


def test_a_run_for_failable_high_orders_alone_has_the_hint(seen):
    told = seen()
    assert ("begin", 9) in told
    assert ("hint", True) in told


def test_the_failures_of_a_node_are_what_a_policy_counts(seen):
    counted = dict(each for each in seen() if each[0] == "failures")
    spared = dict(each for each in seen(elided_is_failure=False) if each[0] == "failures")
    assert counted["failures"] == 16
    assert spared["failures"] == 0


def test_whoever_only_notes_changes_no_digest(tmp_path):
    quiet = tmp_path / "quiet.py"
    quiet.write_text(
        textwrap.dedent("""
        from mmfw import Workload, gfp, hookimpl

        def requests(mm, params):
            for _ in range(5):
                mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 9)
                mm.sched.nanosleep(20_000_000)

        @hookimpl
        def mmfw_register_workloads():
            yield Workload("requests", "asks", run=requests)
        """)
    )
    noting = tmp_path / "noting.py"
    noting.write_text(
        textwrap.dedent("""
        from mmfw import hookimpl

        @hookimpl
        def mmfw_fold_kswapd_waker(wake): pass

        @hookimpl
        def mmfw_kswapd_begin(request): pass

        @hookimpl
        def mmfw_init_shrink_control(shrinkctl): pass

        @hookimpl
        def mmfw_should_count_kswapd_failure(): return None
        """)
    )
    scenario = tmp_path / "hinted.toml"
    scenario.write_text(textwrap.dedent(SCENARIO))
    digests = {
        run(RunRequest(scenario=str(scenario), plugin_files=files)).digest
        for files in ((quiet,), (quiet, noting))
    }
    assert len(digests) == 1
