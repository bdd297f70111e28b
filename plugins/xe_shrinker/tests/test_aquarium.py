from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw.mm.core import Mm
from mmfw.scenario import load_scenario
from mmfw.sched import TaskState
from mmfw_xe_shrinker import XeDevice
from mmfw_xe_shrinker.clients import AquariumParams, Client, Clients, draw_sizes

#: 37,000 free pages on a machine of 512 MiB, none above order 6.
FRAGMENTED = [3000, 3000, 2000, 1000, 500, 60, 100, 0, 0, 0, 0]


def play(bench, seed: int = 1, milliseconds: int = 300, *, starts_backed_up: bool = False):
    """Three small tabs for a while, then to their end; the bench and what its metrics read at the end."""
    b = bench(started=False, dma32=FRAGMENTED, resident_pages=600, seed=seed, nr_cpus=2)
    load = b.plugins.workloads()["webgl-aquarium-client"]
    params = AquariumParams(
        working_set_pages=4000,
        resident_pages=200,
        bo_max_order=9,
        file_pages=512,
        starts_backed_up=starts_backed_up,
    )
    b.mm.start_time()
    tasks = [b.mm.sched.spawn(load.run, b.mm, params, name=f"tab-{i}", daemon=True) for i in range(3)]
    b.mm.sched.run(milliseconds * 1_000_000)
    figures = {name: metric.read(b.mm) for name, metric in b.plugins.metrics().items()}
    for task in tasks:
        b.mm.sched.send_sigkill(task)
    b.mm.sched.run(b.mm.sched.now + 2_000_000_000)
    assert [task.state for task in tasks] == [TaskState.DEAD] * 3
    return b, figures


def test_tabs_lose_objects_to_kswapd_and_bring_them_back(bench):
    b, figures = play(bench)
    assert figures["xe_bo_evictions"] > 0
    assert 0 < figures["xe_bo_restores"] <= figures["xe_bo_evictions"]
    assert 0 < figures["xe_bo_restored_pages"] <= figures["xe_bo_evicted_pages"]
    assert figures["xe_exec_failures"] == 0
    assert 0 < figures["xe_fps_min"] <= figures["xe_fps_median"] <= 60.1
    frames = b.mm.attached.get(Clients).frames()
    assert list(frames) == ["webgl-aquarium-0", "webgl-aquarium-1", "webgl-aquarium-2"]
    assert sum(frames.values()) >= figures["xe_frames"] > 0


def test_tabs_that_start_on_swap_read_everything_in(bench):
    b, figures = play(bench, milliseconds=1_000, starts_backed_up=True)
    assert figures["xe_bo_restored_pages"] >= 3 * 4000
    assert b.mm.vmstat.as_dict()["pswpin"] >= 3 * 4000


@pytest.mark.parametrize("starts_backed_up", [False, True])
def test_accounting_holds_at_the_end_and_no_page_is_lost(bench, starts_backed_up):
    b, _ = play(bench, starts_backed_up=starts_backed_up)
    device = b.mm.attached.get(XeDevice)
    assert device.shrinkable_pages + device.purgeable_pages == device.resident_pages
    b.module_exit()
    kept = b.mm.page_cache.nr_file_pages + b.mm.page_cache.nodes.nr_pages
    assert kept > 0
    assert b.mm.nr_allocated_pages() == kept + b.mm.initramfs_pages + b.mm.swap.nr_shmem
    assert b.mm.swap.get_nr_swap_pages() == 100_000


def test_same_seed_same_run(bench):
    first, again, other = (play(bench, seed, 100) for seed in (1, 1, 2))
    assert first[1] == again[1]
    assert first[0].mm.vmstat.as_dict() == again[0].mm.vmstat.as_dict()
    assert first[0].mm.buddyinfo() == again[0].mm.buddyinfo()
    assert first[1] != other[1]


@pytest.mark.parametrize("total", [1, 15, 16, 59479])
def test_sizes_add_up(bench, total):
    mm: Mm = bench().mm
    sizes = draw_sizes(mm, "x", total, 4, 11)
    assert sum(sizes) == total
    assert {size.bit_count() for size in sizes[:-1]} <= {1}
    assert all(16 <= size <= 2048 for size in sizes[:-1])
    assert sizes == draw_sizes(mm, "x", total, 4, 11)


def test_scenario_says_what_was_published():
    scenario = load_scenario("webgl-aquarium")
    normal = scenario.state.buddyinfo["Normal"]
    assert normal == [4063, 4595, 3455, 3400, 3139, 2762, 2293, 1655, 643, 0, 0]
    assert sum(n << order for order, n in enumerate(normal)) == 716_081
    (tabs,) = scenario.workloads
    params = AquariumParams.model_validate(tabs.params)
    assert tabs.count * params.working_set_pages == pytest.approx(716_081 - 121_292, abs=10)
    assert tabs.count == params.tabs == 10
    assert params.resident_pages == scenario.params["xe"]["resident_pages"]
    assert params.resident_pages * tabs.count == pytest.approx(tabs.count * params.working_set_pages, abs=20)
    assert (scenario.kernel, scenario.machine, scenario.default_for) == ("7.1", "8G", ["xe", "ttm"])
    assert set(params.model_dump()) == set(tabs.params)  # every parameter is stated in the file


def test_scenario_dma32_cannot_balance_a_request_for_normal():
    from mmfw.machine import load_machine

    scenario = load_scenario("webgl-aquarium")
    state = load_machine(scenario.machine, scenario.nr_cpus).node_state(0)
    dma32 = state.zones[1]
    free = sum(n << order for order, n in enumerate(scenario.state.buddyinfo["DMA32"]))
    assert (free, dma32.watermark[2], dma32.lowmem_reserve[2]) == (9240, 9414, 4976)
    assert free < dma32.watermark[2] + dma32.lowmem_reserve[2]
    dma = state.zones[0]
    assert (dma.vm_free, dma.lowmem_reserve[2]) == (3584, 7926)  # as the captured machine of 8G


def test_smallest_object_above_the_largest_is_refused():
    with pytest.raises(ValidationError, match="bo_min_order 12 is above bo_max_order 11"):
        AquariumParams(bo_min_order=12)


def test_the_second_half_leaves_the_first_frames_out():
    client = Client(
        "tab", started=1_000_000_000, drawn=[2_000_000_000, 4_000_000_000, 4_500_000_000, 5_000_000_000]
    )
    now = 5_000_000_000
    assert client.fps(now) == 1.0
    assert client.fps_second_half(now) == 1.5
    assert client.fps_second_half(1_000_000_000) == 0.0
