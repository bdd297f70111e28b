"""What later kernels do otherwise: each switch turns one rule, and 6.1 is what was validated."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from mm.workbench import events_of, fill, unboosted
from mmfw import InputError, gfp
from mmfw.kernels import KERNEL_6_1, KERNELS, kernel_profile
from mmfw.mm.trace import MmVmscanDirectReclaimBegin
from mmfw.scenario import Scenario

COSTLY = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'6\.6' is unknown; known: 6\.1, 7\.1, 7\.2"):
        kernel_profile("6.6")


def test_scenarios_may_name_the_same_profiles() -> None:
    assert get_args(Scenario.model_fields["kernel"].annotation) == tuple(KERNELS)


def test_later_profiles_differ_in_the_listed_switches_only() -> None:
    switches = [field.name for field in dataclasses.fields(KERNEL_6_1) if field.name != "name"]
    assert all(getattr(KERNEL_6_1, name) for name in switches)
    assert not any(getattr(KERNELS[name], switch) for name in ("7.1", "7.2") for switch in switches)


@pytest.mark.parametrize(
    ("kernel", "mask", "rounds"),
    [("6.1", COSTLY, 0), ("7.1", COSTLY, 1), ("7.2", COSTLY, 1), ("7.1", COSTLY | gfp.THISNODE, 0)],
)
def test_a_costly_noretry_request_whose_compaction_is_skipped(kernel: str, mask: int, rounds: int) -> None:
    """6.1 gives up at once; from 7.0 on there is one round of reclaim, but not for ``__GFP_THISNODE``."""
    mm = unboosted(kernel=kernel)
    fill(mm, leave=200)
    begun = events_of(mm, MmVmscanDirectReclaimBegin)
    assert mm.alloc_pages(mask, 9) == -1
    assert len(begun) == rounds


@pytest.mark.parametrize(("kernel", "failures"), [("6.1", 0), ("7.1", 16)])
def test_progress_on_a_node_that_stays_unbalanced(kernel: str, failures: int) -> None:
    """6.1 revives a hopeless kswapd as soon as a page is reclaimed; 7.x only once the node is balanced."""
    mm = unboosted(kernel=kernel)
    mm.page_cache.open(400).read(0, 400)
    fill(mm)
    mm.pgdat.kswapd_failures = 16
    begun = events_of(mm, MmVmscanDirectReclaimBegin)
    mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 2)
    assert len(begun) == 1
    assert mm.vmstat.as_dict()["pgsteal_direct"] > 0
    assert mm.pgdat.kswapd_failures == failures
