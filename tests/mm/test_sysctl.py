"""``vm.*``: from a scenario to the rule that reads it."""

from __future__ import annotations

import pytest

from mm.workbench import fragment, scan_control
from mmfw import gfp
from mmfw.errors import InputError
from mmfw.mm.fragmentation import fragmentation_score_wmark
from mmfw.mm.sysctl import SysctlVm
from mmfw.scenario import load_scenario
from mmfw.testing import make_mm


def test_a_scenario_sets_them_by_their_names():
    scenario = load_scenario("webgl-aquarium", {"vm.swappiness": 10, "vm.watermark_boost_factor": 0})
    assert scenario.vm.sysctls() == SysctlVm(swappiness=10, watermark_boost_factor=0)
    assert load_scenario("webgl-aquarium", {}).vm.sysctls() == SysctlVm()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("vm.swapiness", 1, "swappiness"), ("vm.swappiness", 201, "200"), ("vm.page_cluster", -1, "0")],
)
def test_what_the_kernel_would_refuse_is_refused(key, value, says):
    with pytest.raises(InputError, match=says):
        load_scenario("webgl-aquarium", {key: value})


def counts(swappiness: int) -> list[int]:
    mm = make_mm("128M", nr_swap_pages=10_000)
    mm.pgdat.memory.set_sysctls(SysctlVm(swappiness=swappiness))
    mm.mmap_anonymous(4096).touch(0, 4096)
    mm.page_cache.open(4096).read(0, 4096)
    return mm._vmscan.lru_scan.get_scan_count(scan_control(priority=2))


def test_swappiness_shares_the_scan():
    scans = [counts(swappiness) for swappiness in (0, 60, 100, 200)]
    anon, file = [scan[0] for scan in scans], [scan[2] for scan in scans]
    assert anon[0] == file[3] == 0
    assert anon == sorted(set(anon))
    assert file == sorted(set(file), reverse=True)


def test_without_boosts_a_fallback_raises_no_watermark():
    def boost(factor: int | None) -> int:
        mm = make_mm("128M")
        mm.pgdat.memory.set_sysctls(SysctlVm(watermark_boost_factor=factor))
        fragment(mm, 16, mask=gfp.GFP_HIGHUSER_MOVABLE & ~gfp.DIRECT_RECLAIM | gfp.NOWARN)
        mm.alloc_pages_batch(gfp.GFP_KERNEL & ~gfp.DIRECT_RECLAIM | gfp.NOWARN, 0, 3000)
        return sum(zone.watermark_boost for zone in mm.pgdat.node_zones)

    assert boost(None) > 0
    assert boost(0) == 0


def test_without_proactiveness_a_fragmented_node_is_left_alone():
    mm = make_mm("128M")
    fragment(mm, 2)
    assert mm.compaction.should_proactive_compact_node()
    mm.pgdat.memory.set_sysctls(SysctlVm(compaction_proactiveness=0))
    assert not mm.compaction.should_proactive_compact_node()
    assert fragmentation_score_wmark(False, 0) == 100
