from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw import SHRINK_EMPTY, ShrinkControl, gfp
from mmfw.binding import bind_mm_ops, bind_shrinker, hook_caller
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm, MmHost
from mmfw.plugins import load
from mmfw.sched import Scheduler
from mmfw.system import plugin_params
from mmfw_xfs_buf import XfsBufShrinker, XfsBuftarg
from mmfw_xfs_buf import buf as masks

NO_BLOCKS = [12_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


class Bench:
    """A 256 MiB machine with one mount."""

    def __init__(self, kernel: str, dma32: list[int] | None) -> None:
        self.plugins = load(["xfs"])
        state = machine_from_ram("256M").node_state(0)
        if dma32 is not None:
            state = with_buddyinfo(state, {"DMA32": dma32, "DMA": [0] * 11}, 0.0, 1, "test")
        self.sched = Scheduler()
        host = MmHost(
            ops=bind_mm_ops(self.plugins),
            bind_shrinker=lambda shrinker, name: bind_shrinker(
                shrinker, name, self.plugins.owner_of(shrinker)
            ),
            hook=lambda name: hook_caller(self.plugins, name),
        )
        self.mm = Mm(state, self.sched, host, seed=1, kernel=kernel, nr_swap_pages=0)
        self.plugins.module_init(self.mm, plugin_params(self.plugins, {"xfs": {"device": "nvme0n1p2"}}))
        buftarg = self.mm.attached.get(XfsBuftarg)
        assert buftarg is not None
        self.buftarg = buftarg
        self.shrinker = XfsBufShrinker(self.mm, buftarg)

    def cache(self, nr_bytes: int, n: int = 1) -> None:
        for _ in range(n):
            buf = self.buftarg.get_buf(nr_bytes)
            assert buf is not None
            self.buftarg.rele(buf)

    def scan(self, n: int) -> tuple[int, int]:
        sc = ShrinkControl(gfp_mask=0, nid=0, nr_to_scan=n, nr_scanned=n)
        return self.shrinker.scan_objects(sc), sc.nr_scanned

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(kernel: str = "7.1", dma32: list[int] | None = None) -> Bench:
        made.append(Bench(kernel, dma32))
        return made[-1]

    yield build
    for each in made:
        each.sched.close()


def test_masks():
    assert masks.FOLIO_GFP == 0x528C0
    assert not masks.FOLIO_GFP & gfp.DIRECT_RECLAIM
    assert masks.VMALLOC_AFTER_FOLIO_GFP == 0x128C0
    assert masks.PAGES_GFP_6_1 == 0x2C40


@pytest.mark.parametrize(
    ("nr_bytes", "order", "pieces"),
    [(512, 0, 1), (4096, 0, 1), (8192, 1, 1), (65536, 4, 1), (12288, 0, 3), (40960, 0, 10)],
)
def test_backing_of_7_1(bench, nr_bytes, order, pieces):
    buf = bench().buftarg.get_buf(nr_bytes)
    assert (buf.order, len(buf.pfns)) == (order, pieces)


def test_6_1_never_asks_for_a_high_order(bench):
    buf = bench("6.1").buftarg.get_buf(65536)
    assert (buf.order, len(buf.pfns), buf.nr_pages) == (0, 16, 16)


def test_no_folio_means_single_pages(bench):
    buf = bench(dma32=NO_BLOCKS).buftarg.get_buf(65536)
    assert (buf.order, len(buf.pfns)) == (0, 16)


def test_readahead_gives_up_where_others_wait(bench):
    b = bench(dma32=[100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    before = b.free_pages()
    assert b.buftarg.get_buf(65536, read_ahead=True) is None
    assert b.free_pages() == before


@pytest.mark.parametrize("nr_bytes", [0, 511, 65537])
def test_no_such_size(bench, nr_bytes):
    with pytest.raises(ValueError, match="512 to 65536"):
        bench().buftarg.get_buf(nr_bytes)


def test_count_is_in_buffers_on_the_lru(bench):
    b = bench()
    sc = ShrinkControl(gfp_mask=0, nid=0)
    assert b.shrinker.count_objects(sc) == 0 != SHRINK_EMPTY
    b.cache(65536, 3)
    held = b.buftarg.get_buf(4096)
    assert b.shrinker.count_objects(sc) == 3
    b.buftarg.rele(held)
    assert b.shrinker.count_objects(sc) == 4


def test_scan_frees_the_oldest_whatever_their_size(bench):
    b = bench()
    b.cache(65536)
    b.cache(4096, 2)
    before = b.free_pages()
    assert b.scan(2) == (2, 2)
    assert b.free_pages() == before + 16 + 1
    assert b.scan(128) == (1, 128)
    assert b.scan(128) == (0, 128)


def test_a_buffer_in_use_is_off_the_lru_and_comes_back_young(bench):
    b = bench()
    first, second = b.buftarg.get_buf(4096), b.buftarg.get_buf(8192)
    b.buftarg.rele(first)
    b.buftarg.rele(second)
    b.buftarg.hold(first)
    assert b.buftarg.nr_lru == 1
    b.buftarg.rele(first)
    before = b.free_pages()
    assert b.scan(1) == (1, 1)
    assert b.free_pages() == before + 2
    with pytest.raises(ValueError, match="nobody holds"):
        b.buftarg.rele(first)


def test_registered_as_in_the_kernel(bench):
    (shrinker,) = bench().mm.shrinkers
    assert (shrinker.ops.name, shrinker.ops.seeks, shrinker.ops.batch) == ("xfs-buf:nvme0n1p2", 2, 0)


@pytest.mark.parametrize("kernel", ["6.1", "7.1"])
@given(sizes=st.lists(st.tuples(st.integers(512, 65536), st.booleans(), st.integers(0, 3)), max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_are_conserved(bench, kernel, sizes):
    b = bench(kernel)
    before = b.free_pages()
    for nr_bytes, release, nr_to_scan in sizes:
        buf = b.buftarg.get_buf(nr_bytes)
        if release:
            b.buftarg.rele(buf)
        b.scan(nr_to_scan)
        assert b.free_pages() == before - b.buftarg.nr_pages
    b.plugins.module_exit(b.mm)
    assert (b.free_pages(), len(b.mm.shrinkers)) == (before, 0)
    assert b.mm.nr_allocated_pages() == b.mm.initramfs_pages
