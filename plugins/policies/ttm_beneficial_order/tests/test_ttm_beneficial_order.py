"""Masks by mode and order, and what is refused."""

from __future__ import annotations

import pytest

from mmfw import InputError, gfp
from mmfw.run import RunRequest, run
from mmfw_policy_ttm_beneficial_order import Mode, Params, beneficial_gfp_mask

#: What TTM asks with above order 0 in 7.x.
TTM = gfp.GFP_HIGHUSER | gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN | gfp.THISNODE
NAME = "ttm-beneficial-order"


@pytest.mark.parametrize(
    ("mode", "order", "cleared"),
    [
        (Mode.NORETRY, 10, gfp.DIRECT_RECLAIM),
        (Mode.NORETRY, 9, 0),
        (Mode.NORETRY, 8, gfp.DIRECT_RECLAIM),
        (Mode.NORETRY, 1, gfp.DIRECT_RECLAIM),
        (Mode.NO_DIRECT, 10, gfp.DIRECT_RECLAIM),
        (Mode.NO_DIRECT, 9, 0),
        (Mode.NO_DIRECT, 8, 0),
        (Mode.NO_KSWAPD, 10, gfp.RECLAIM),
        (Mode.NO_KSWAPD, 9, 0),
        (Mode.NO_KSWAPD, 8, 0),
    ],
)
def test_what_a_mask_loses(mode, order, cleared):
    assert beneficial_gfp_mask(TTM, order, Params(mode=mode)) == TTM & ~cleared


@pytest.mark.parametrize("mode", Mode)
def test_order_0_is_asked_for_as_ever(mode):
    assert beneficial_gfp_mask(gfp.GFP_HIGHUSER, 0, Params(mode=mode)) == gfp.GFP_HIGHUSER


def test_the_beneficial_order_never_retries():
    mask = beneficial_gfp_mask(gfp.GFP_HIGHUSER, 9, Params())
    assert mask == gfp.GFP_HIGHUSER | gfp.NORETRY


def aquarium(policies=(NAME,), *, kernel=None, duration="300ms", **options):
    pytest.importorskip("mmfw_xe_shrinker")
    return run(
        RunRequest(
            scenario="webgl-aquarium",
            plugins=policies,
            kernel=kernel,
            duration=duration,
            overrides={f"{NAME}.{key}": value for key, value in options.items()},
        )
    )


def test_no_direct_is_refused_where_the_kernel_does_it_itself():
    with pytest.raises(InputError, match=r"kernel 7\.2 has mode=no-direct itself") as refused:
        aquarium(kernel="7.2", mode="no-direct")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_no_direct_on_7_1_is_what_7_2_does_by_itself():
    assert aquarium(mode="no-direct").digest != aquarium(()).digest
    stated = run(
        RunRequest(scenario="webgl-aquarium", duration="300ms", overrides={"ttm.beneficial_order": 9})
    )
    assert aquarium(mode="no-direct").digest == stated.digest


@pytest.mark.slow
def test_without_an_order_above_the_beneficial_one_the_run_is_mainlines():
    assert aquarium(mode="no-kswapd", beneficial_order=10).digest == aquarium(()).digest


@pytest.mark.slow
def test_no_kswapd_ends_the_wake_ups_above_the_beneficial_order_only():
    mainline, quiet = aquarium((), duration="1s"), aquarium(mode="no-kswapd", duration="1s")
    assert mainline.kswapd_wakes_by_order.get("10", 0) > 0
    assert quiet.kswapd_wakes_by_order.get("10", 0) == 0
    assert quiet.kswapd_wakes_by_order.get("9", 0) > 0
