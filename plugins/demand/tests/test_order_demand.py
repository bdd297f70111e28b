from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from mmfw import gfp
from mmfw.cli import main
from mmfw.sched import TaskState
from mmfw_demand import demand_loads, parse_mask
from mmfw_demand.order_demand import OrderDemandParams


def test_rate_and_holding_time_decide_what_is_held(bench):
    b = bench()
    before = b.free_pages()
    task = b.spawn("order-demand", order=4, per_second=100, hold_ms=200)
    b.run_ms(1_005)
    # Turns at 0, 10, ... 1000 ms; those of the last 200 ms are held, the one that falls due at 1000 ms no more.
    assert demand_loads(b.mm).requests == 101
    assert before - b.free_pages() == 20 * 16
    b.kill(task)
    assert b.free_pages() == before


def test_a_count_ends_the_load_once_the_last_block_is_given_back(bench):
    b = bench()
    before = b.free_pages()
    task = b.spawn("order-demand", order=9, per_second=1000, hold_ms=50, count=7)
    b.run_ms(40)
    assert task.state is not TaskState.DEAD
    assert before - b.free_pages() == 7 * 512
    b.run_ms(30)
    assert (task.state, demand_loads(b.mm).requests, b.free_pages()) == (TaskState.DEAD, 7, before)


def test_blocks_held_for_ever_stay_after_the_last_request(bench):
    b = bench()
    before = b.free_pages()
    task = b.spawn("order-demand", order=0, per_second=0, hold_ms=-1, count=300)
    b.run_ms(2_500)
    assert task.state is not TaskState.DEAD
    assert before - b.free_pages() == 300
    b.kill(task)
    assert b.free_pages() == before


def test_what_does_not_fit_fails_and_is_not_asked_for_again(bench):
    b = bench()
    task = b.spawn(
        "order-demand", order=10, gfp_mask="GFP_TRANSHUGE_LIGHT", per_second=0, hold_ms=-1, count=100
    )
    b.run_ms(20)
    loads = demand_loads(b.mm)
    # 256 MiB hold at most 64 blocks of 4 MiB.
    assert loads.requests == 100
    assert 40 < loads.failures < 100
    assert b.mm.buddyinfo()["DMA32"][10] == 0
    b.kill(task)


def test_a_load_that_stalls_does_not_catch_up(bench):
    b = bench()
    b.spawn("order-demand", order=0, per_second=100)
    other = b.mm.sched.spawn(lambda: b.mm.charge(500_000_000, "hog"), name="hog")
    b.run_ms(1_000)
    assert other.state is TaskState.DEAD
    # The one CPU works in the kernel for half a second: those 50 beats are lost, and not made up for.
    assert 50 <= demand_loads(b.mm).requests <= 53


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("GFP_KERNEL", 0xCC0),
        ("GFP_KERNEL|__GFP_NORETRY|__GFP_NOWARN", 0x12CC0),
        (" GFP_TRANSHUGE ", gfp.GFP_TRANSHUGE),
        ("__GFP_KSWAPD_RECLAIM | __GFP_IO | __GFP_FS", 0x8C0),
        ("0x12cc0", 0x12CC0),
        (0x12CC0, 0x12CC0),
    ],
)
def test_masks_are_read_by_name(text, mask):
    assert parse_mask(text) == mask


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("GFP_KERNL", "did you mean 'GFP_KERNEL'"),
        ("GFP_KERNEL|__GFP_NORETYR", "did you mean '__GFP_NORETRY'"),
        ("", "'' is not a gfp flag"),
        ("0x1000000", "bits that do not exist: 0x1000000"),
        ("GFP_DMA|GFP_DMA32", "two zone"),
        (True, "written as names"),
        (1.5, "written as names"),
        (-1, "bits that do not exist"),
    ],
)
def test_wrong_masks_are_refused_with_what_is_near(text, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        OrderDemandParams.model_validate({"gfp_mask": text})


def test_a_scenario_with_a_wrong_mask_is_wrong_input(tmp_path, capsys):
    path = tmp_path / "t.toml"
    path.write_text(
        'name = "t"\ndescription = "t"\nplugins = ["demand"]\nmachine = "256M"\n'
        '[[workloads]]\nname = "order-demand"\n[workloads.params]\ngfp_mask = "GFP_NOFX"\n'
    )
    with pytest.raises(SystemExit) as done:
        main(["run", str(path)])
    assert done.value.code == 2
    assert "gfp_mask: 'GFP_NOFX' is not a gfp flag; did you mean 'GFP_NOFS'?" in capsys.readouterr().err
