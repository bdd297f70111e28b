"""Every way for reclaim and compaction to start: a file read through, anonymous memory beyond RAM, high orders."""

from mmfw import Workload, gfp, hookimpl

BLOCK = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN
FEW = gfp.GFP_KERNEL | gfp.NOWARN


def stream(mm, params):
    """Read a file larger than memory."""
    file = mm.page_cache.open(20_000)
    while True:
        for start in range(0, 20_000, 32):
            file.read(start, 32)
            mm.sched.nanosleep(50_000)


def hog(mm, params):
    """Grow until the OOM killer comes."""
    vma = mm.mmap_anonymous(40_000)
    for start in range(0, 40_000, 64):
        vma.touch(start, 64)
        mm.sched.nanosleep(10_000)


def blocks(mm, params):
    """Take blocks of orders 9 and 3 and give them back."""
    held = []
    try:
        while True:
            for mask, order in ((BLOCK, 9), (FEW, 3)):
                pfn = mm.alloc_pages(mask, order)
                if pfn >= 0:
                    held.append((pfn, order))
            if len(held) > 6:
                give_back(mm, held)
            mm.sched.nanosleep(200_000)
    finally:
        give_back(mm, held)


def give_back(mm, held):
    while held:
        mm.free_pages(*held.pop())


@hookimpl
def mmfw_register_workloads():
    yield Workload("stream", "Read a file larger than memory", run=stream)
    yield Workload("hog", "Touch more memory than there is", run=hog)
    yield Workload("blocks", "Ask for blocks of orders 9 and 3", run=blocks)
