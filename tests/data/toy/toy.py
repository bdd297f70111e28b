"""A driver small enough to read at once: objects of 512 pages, whole ones out, back when touched."""

from mmfw import SHRINK_EMPTY, SHRINK_STOP, Metric, Workload, gfp, hookimpl

HIGH = gfp.GFP_HIGHUSER | gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN
LOW = gfp.GFP_HIGHUSER | gfp.NOWARN


class Objects:
    seeks = 2

    def __init__(self, mm):
        self.mm = mm
        self.blocks = {}
        self.evicted = 0

    @hookimpl
    def count_objects(self, sc):
        return 512 * len(self.blocks) or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc):
        freed = 0
        while freed < sc.nr_to_scan and self.blocks:
            freed += self.drop(next(iter(self.blocks)))
            self.evicted += 1
        sc.nr_scanned = max(freed, sc.nr_to_scan)
        return freed or SHRINK_STOP

    def drop(self, number):
        for pfn, order in self.blocks.pop(number):
            self.mm.free_pages(pfn, order)
        return 512

    def touch(self, number):
        if number in self.blocks:
            self.blocks[number] = self.blocks.pop(number)
            return
        blocks, left, orders = [], 512, [9, 4, 0]
        while left:
            order = orders[0]
            pfn = self.mm.alloc_pages(HIGH if order else LOW, order) if 1 << order <= left else -1
            if pfn >= 0:
                blocks.append((pfn, order))
                left -= 1 << order
            elif order == 0:
                raise MemoryError("no order-0 page")
            else:
                orders.pop(0)
        self.blocks[number] = blocks


@hookimpl
def mmfw_module_init(mm, params):
    objects = Objects(mm)
    mm.attached.put(objects)
    mm.register_shrinker(objects, "toy")


def loop(mm, params):
    step = 0
    while True:
        mm.attached.get(Objects).touch(step % 60)
        mm.sched.nanosleep(1_000_000)
        step += 1


@hookimpl
def mmfw_register_workloads():
    yield Workload("toy-loop", "Touch 60 objects in turn", run=loop)


@hookimpl
def mmfw_register_metrics():
    yield Metric(
        "toy_evictions",
        "1",
        "counter",
        "lower",
        "Objects evicted",
        read=lambda mm: mm.attached.get(Objects).evicted,
    )


@hookimpl
def mmfw_module_exit(mm):
    objects = mm.attached.get(Objects)
    for number in list(objects.blocks):
        objects.drop(number)
