"""What a policy may withhold from reclaim."""

from __future__ import annotations

import pytest

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, attach, gfp
from mmfw_xe_shrinker import BoState

POLICY = """
from mmfw import hookimpl

@hookimpl(optionalhook=True)
def xe_can_backup(device, sc):
    # What a policy would attach; a class of this file's own would not be the tests'.
    return False if sc.attached is not None and len(sc.attached) else None
"""


class Withhold:
    """The field that the policy of these tests looks for."""


@pytest.fixture
def withheld(bench, tmp_path):
    """A machine on which nothing is backed up for an order above 0, and the shrinker as mm calls it."""
    policy = tmp_path / "hint.py"
    policy.write_text(POLICY)

    def build(*sizes: int):
        b = bench(files=(policy,))
        vm = b.vm("a", *sizes)
        b.idle()
        (shrinker,) = (each for each in b.mm.shrinkers if each.ops.name == "xe system shrinker")
        return b, vm, shrinker

    return build


def control(order: int, mask: int = gfp.GFP_KERNEL, nr_to_scan: int = 128) -> ShrinkControl:
    sc = ShrinkControl(gfp_mask=mask, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)
    if order:
        attach(sc, Withhold())
    return sc


def test_count_offers_purgeable_objects_only(withheld):
    b, vm, shrinker = withheld(512, 64)
    assert shrinker.ops.count_objects(control(0)) == 576
    assert shrinker.ops.count_objects(control(9)) == SHRINK_EMPTY
    b.device.set_purgeable(vm.bos[1], True)
    assert shrinker.ops.count_objects(control(9)) == 64


def test_nothing_is_put_off_while_nothing_is_offered(withheld):
    b, _, shrinker = withheld(16)
    b.mm.shrinkers.shrink_slab(gfp.GFP_KERNEL, 0, 2)  # delta 8, below the batch and the cache: put off
    put_off = dict(shrinker.nr_deferred)
    assert put_off == {0: 8}
    calls = shrinker.nr_calls
    sc = control(9)
    assert shrinker.ops.count_objects(sc) == SHRINK_EMPTY
    assert (shrinker.nr_deferred, shrinker.nr_calls) == (put_off, calls)


def test_scan_that_belongs_to_an_earlier_count_purges_only(withheld):
    b, vm, shrinker = withheld(512, 64)
    assert b.call(lambda: shrinker.ops.scan_objects(control(9)), kswapd=True) == SHRINK_STOP
    assert [bo.state for bo in vm.bos] == [BoState.RESIDENT] * 2
    b.device.set_purgeable(vm.bos[0], True)
    sc = control(9)
    assert b.call(lambda: shrinker.ops.scan_objects(sc), kswapd=True) == 512
    assert sc.nr_scanned == 512
    assert [bo.state for bo in vm.bos] == [BoState.PURGED, BoState.RESIDENT]


def test_nobody_lifts_the_ban_on_filesystems(withheld):
    _, _, shrinker = withheld(512)
    assert shrinker.ops.count_objects(control(0, gfp.GFP_NOFS)) == SHRINK_EMPTY
