from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.sched import TaskState
from mmfw_page_cache_copy import Filesystem, fs_profile, stream_stats
from mmfw_page_cache_copy.copy import CopyParams


def test_a_small_copy_is_read_and_written_once(bench):
    b = bench(kernel="7.1")
    task = b.spawn("file-copy", size_gib=1 / 16, read_ahead_kib=4096)
    b.run_ms(2_000)
    assert task.state is TaskState.DEAD
    nr_pages = 64 * 256
    source, destination = stream_stats(b.mm).files
    stat = b.mm.vmstat.as_dict()
    assert stat["pgpgin"] == 4 * nr_pages
    assert (source.nrpages, destination.nrpages) == (nr_pages, nr_pages)
    assert b.metrics()["page_cache_copy_copied_pages"] == nr_pages
    # 1 MiB is written at a time: folios of order 8. Reading goes 2, 4, 6, 8, 9 as the window of 4 MiB allows.
    assert destination.folios == [0] * 8 + [64, 0]
    assert source.folios[2:8] == [128, 0, 64, 0, 16, 0]
    assert source.folios[9] > 15


@pytest.mark.parametrize(
    ("kernel", "filesystem", "large"),
    [
        ("6.1", "xfs", 0),
        ("6.1", "ext4", 0),
        ("6.1", "btrfs", 0),
        ("7.1", "xfs", 8),
        ("7.1", "ext4", 8),
        ("7.1", "btrfs", 6),
    ],
)
def test_who_writes_large_folios(bench, kernel, filesystem, large):
    b = bench(kernel=kernel)
    b.spawn("file-copy", size_gib=1 / 64, source="ext4", destination=filesystem)
    b.run_ms(1_000)
    _, destination = stream_stats(b.mm).files
    assert destination.nrpages == 16 * 256
    made = [order for order, n in enumerate(destination.folios) if n]
    assert made == ([large] if large else [])


@pytest.mark.parametrize(
    ("kernel", "filesystem", "largest"),
    [
        ("6.1", "xfs", 9),
        ("6.1", "ext4", 0),
        ("6.1", "btrfs", 0),
        ("7.1", "xfs", 9),
        ("7.1", "ext4", 9),
        ("7.1", "btrfs", 6),
    ],
)
def test_who_reads_large_folios(bench, kernel, filesystem, largest):
    b = bench(kernel=kernel)
    b.spawn("file-stream", size_gib=1 / 32, filesystem=filesystem, read_ahead_kib=4096)
    b.run_ms(1_000)
    (file,) = stream_stats(b.mm).files
    assert file.nrpages == 32 * 256
    assert max((order for order, n in enumerate(file.folios) if n), default=0) == largest


def test_the_default_window_is_too_small_for_the_largest_folios(bench):
    """128 KiB are order 5; a read of 1 MiB may widen it to what the device takes in one request, 256 pages."""
    b = bench(kernel="7.1")
    b.spawn("file-stream", size_gib=1 / 32, chunk_kib=64)
    b.spawn("file-stream", size_gib=1 / 32, chunk_kib=1024)
    b.run_ms(1_000)
    small, large = stream_stats(b.mm).files
    assert max(order for order, n in enumerate(small.folios) if n) == 5
    assert max(order for order, n in enumerate(large.folios) if n) == 8


@pytest.mark.parametrize("filesystem", list(Filesystem))
@pytest.mark.parametrize("kernel", ["6.1", "7.1", "7.2"])
def test_masks_of_the_filesystems(filesystem, kernel):
    profile = fs_profile(filesystem, kernel)
    assert profile.gfp_mask & ~gfp.FS == gfp.GFP_HIGHUSER_MOVABLE & ~gfp.FS
    assert bool(profile.gfp_mask & gfp.FS) == (filesystem is not Filesystem.XFS)
    assert profile.write_nofs == (filesystem is not Filesystem.EXT4)


@pytest.mark.slow
def test_a_copy_larger_than_memory_runs_at_the_slower_device(bench):
    b = bench("512M", kernel="7.1", nr_cpus=4)
    b.spawn("file-copy", size_gib=64, read_ahead_kib=4096)
    b.run_ms(4_000)
    # 1 GiB/s is the destination's; what is dirty at the end is at most a fifth of memory.
    assert b.metrics()["page_cache_copy_mib_per_second"] == pytest.approx(1024, rel=0.05)
    state = b.mm.vmstat.as_dict()
    assert state["pgsteal_kswapd"] > 1_000_000
    assert b.mm.lruvec.node_stat(pg.NS_FILE_DIRTY) < 512 * 256 // 5


def test_a_killed_copy_leaves_its_pages_to_the_cache(bench):
    b = bench(kernel="7.1")
    task = b.spawn("file-copy", size_gib=1)
    b.run_ms(50)
    b.mm.sched.send_sigkill(task)
    b.run_ms(50)
    assert task.state is TaskState.DEAD
    source, destination = stream_stats(b.mm).files
    assert destination.nrpages > 1000
    kept = b.mm.lruvec.nr_pages + b.mm.page_cache.nodes.nr_pages
    assert b.mm.nr_allocated_pages() == kept
    b.run_ms(1_000)
    assert source.truncate() + destination.truncate() > 2000


def test_a_stream_at_a_rate_and_again(bench):
    b = bench()
    task = b.spawn("file-stream", size_gib=1 / 64, mib_per_second=64, passes=2)
    b.run_ms(300)
    assert task.state is not TaskState.DEAD
    b.run_ms(300)
    assert task.state is TaskState.DEAD
    assert b.metrics()["page_cache_copy_streamed_pages"] == 2 * 16 * 256
    # The second time nothing is read from the device.
    assert b.mm.vmstat.as_dict()["pgpgin"] == 4 * 16 * 256


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"source": "zfs"}, "xfs"),
        ({"chunk_kib": 6}, "multiple of 4"),
        ({"size_gib": 0}, "greater than 0"),
    ],
)
def test_wrong_parameters_are_refused(params, says):
    with pytest.raises(ValidationError, match=says):
        CopyParams.model_validate(params)
