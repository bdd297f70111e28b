"""Wait queues, fences and locks."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw.costs import profile
from mmfw.sched import Fence, Mutex, RwSem, SchedError, Scheduler, WaitQueue

FREE_SWITCH = replace(profile("default"), context_switch=0)


@pytest.fixture
def sched():
    with Scheduler(costs=FREE_SWITCH) as scheduler:
        yield scheduler


@pytest.fixture
def log():
    return []


def test_timeouts_return_what_remains(sched, log):
    queue = WaitQueue(sched)

    def waiter():
        log.append(("woken", queue.wait_timeout(100), sched.now))
        log.append(("timed out", queue.wait_timeout(100), sched.now))
        log.append(("schedule_timeout", sched.schedule_timeout(50), sched.now))

    sched.spawn(waiter, name="waiter")
    sched.call_at(30, queue.wake_up)
    sched.run()
    assert log == [("woken", 70, 30), ("timed out", 0, 130), ("schedule_timeout", 0, 180)]
    assert not queue.waitqueue_active()


def test_wake_up_takes_all_shared_waiters_and_one_exclusive(sched, log):
    queue = WaitQueue(sched)

    def waiter(name, exclusive):
        queue.wait(exclusive=exclusive)
        log.append((sched.now, name))

    for name in ("X1", "s1", "X2", "s2"):
        sched.spawn(waiter, name, name[0] == "X", name=name)
    sched.call_at(10, queue.wake_up)
    sched.call_at(20, queue.wake_up_all)
    sched.run()
    assert log == [(10, "s1"), (10, "s2"), (10, "X1"), (20, "X2")]


def test_a_wakeup_between_prepare_to_wait_and_the_sleep_is_not_lost(sched, log):
    queue = WaitQueue(sched, "kswapd_wait")

    def kswapd():
        queue.prepare_to_wait()
        assert queue.waitqueue_active()
        sched.charge(10)
        log.append((sched.schedule_timeout(100), sched.now))
        queue.finish_wait()

    sched.spawn(kswapd, name="kswapd0")
    sched.call_at(5, queue.wake_up)
    sched.run()
    assert log == [(100, 10)]


def test_wait_event_asks_again_after_every_wakeup(sched, log):
    queue = WaitQueue(sched)
    for time in (10, 20, 30):
        sched.call_at(time, queue.wake_up)

    def waiter():
        log.append((queue.wait_event_timeout(lambda: sched.now >= 20, 100), sched.now))
        log.append((queue.wait_event_timeout(lambda: False, 25), sched.now))
        log.append((queue.wait_event_timeout(lambda: True, 0), sched.now))

    sched.spawn(waiter, name="waiter")
    sched.run()
    assert log == [(80, 20), (0, 45), (1, 45)]


def test_fence_signals_at_its_deadline_or_by_a_call_and_only_once(sched, log):
    late, early = Fence(sched, deadline=100), Fence(sched, deadline=100)
    assert late.add_callback(lambda: log.append(("callback", sched.now)))
    sched.call_at(40, lambda: log.append(("signal", early.signal(), early.signal())))

    def waiter():
        log.append((late.wait_timeout(10), late.is_signaled, sched.now))
        early.wait()
        log.append((early.wait_timeout(10), sched.now))
        late.wait()
        log.append((late.signaled_at, sched.now, late.add_callback(lambda: None)))

    sched.spawn(waiter, name="waiter")
    sched.run()
    assert log == [
        *((0, False, 10), ("signal", True, False), (10, 40)),
        *(("callback", 100), (100, 100, False)),
    ]


def test_kswapd_and_direct_reclaim_inside_one_shrinker(sched, log):
    """The second task enters while the first sleeps inside, finds the lock taken and goes on without it."""
    lock = Mutex(sched, "shrinker lock")

    def scan_objects():
        name = sched.current.comm
        if not lock.trylock():
            log.append((sched.now, name, "SHRINK_STOP"))
            return
        log.append((sched.now, name, "scans"))
        Fence(sched, deadline=sched.now + 50).wait()
        lock.unlock()
        log.append((sched.now, name, "done"))

    def reclaimer(start):
        sched.sleep(start)
        scan_objects()

    sched.spawn(reclaimer, 0, name="kswapd0")
    sched.spawn(reclaimer, 20, name="init")
    sched.spawn(reclaimer, 60, name="late")
    sched.run()
    assert log == [
        *((0, "kswapd0", "scans"), (20, "init", "SHRINK_STOP"), (50, "kswapd0", "done")),
        *((60, "late", "scans"), (110, "late", "done")),
    ]


def test_mutex_goes_round_in_the_order_of_asking(sched, log):
    mutex = Mutex(sched)

    def client(name, start):
        sched.sleep(start)
        with mutex:
            log.append((sched.now, name, str(mutex.owner)))
            sched.sleep(100)

    for start, name in enumerate(("c", "a", "b")):
        sched.spawn(client, name, start, name=name)
    sched.run()
    assert log == [(0, "c", "c-1"), (100, "a", "a-2"), (200, "b", "b-3")]
    assert not mutex.is_locked()


def test_unlock_by_another_names_both(sched):
    mutex = Mutex(sched, "bo->resv")

    def owner():
        mutex.lock()
        sched.sleep(10)

    def thief():
        sched.sleep(1)
        mutex.unlock()

    sched.spawn(owner, name="owner")
    sched.spawn(thief, name="thief")
    with pytest.raises(SchedError, match="bo->resv: unlocked by thief-2, but held by owner-1"):
        sched.run()


def test_rwsem_readers_share_and_a_waiting_writer_holds_back_later_readers(sched, log):
    sem = RwSem(sched, "shrinker_rwsem")

    def reader(name, start):
        sched.sleep(start)
        log.append((sched.now, name, "try", sem.down_read_trylock()))
        if log[-1][3]:
            sem.up_read()
        with sem.read():
            log.append((sched.now, name, "in"))
            sched.sleep(100)

    def writer(start):
        sched.sleep(start)
        sem.down_write()
        log.append((sched.now, "writer", "in"))
        sched.sleep(10)
        sem.downgrade_write()
        sched.sleep(5)
        sem.up_read()

    sched.spawn(reader, "r1", 0, name="r1")
    sched.spawn(reader, "r2", 10, name="r2")
    sched.spawn(writer, 20, name="writer")
    sched.spawn(reader, "r3", 30, name="r3")
    sched.run()
    assert log == [
        *((0, "r1", "try", True), (0, "r1", "in"), (10, "r2", "try", True), (10, "r2", "in")),
        *((30, "r3", "try", False), (110, "writer", "in"), (120, "r3", "in")),
    ]
    assert sem.holders() == ()


def test_rwsem_release_by_another_names_the_holders(sched):
    sem = RwSem(sched)
    assert sem.down_write_trylock()
    sched.spawn(sem.up_write, name="thief")
    with pytest.raises(SchedError, match=r"rwsem: up_write\(\) by thief-1, but held by swapper/0-0"):
        sched.run()


@given(
    nr_cpus=st.integers(1, 3),
    programs=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), max_size=5),
        min_size=2,
        max_size=5,
    ),
)
def test_a_mutex_never_has_two_owners(nr_cpus, programs):
    inside, held = [], []
    with Scheduler(nr_cpus, costs=FREE_SWITCH) as sched:
        mutex = Mutex(sched)

        def client(steps):
            for outside, ns, wait in steps:
                sched.charge(outside)
                if wait:
                    mutex.lock()
                elif not mutex.trylock():
                    continue
                inside.append(sched.current)
                assert inside == [mutex.owner]
                start = sched.now
                sched.charge(ns // 2)
                sched.sleep(ns - ns // 2)
                held.append((start, sched.now))
                inside.pop()
                mutex.unlock()

        for steps in programs:
            sched.spawn(client, steps, name="client")
        sched.run()
    assert not mutex.is_locked()
    assert all(end <= start for (_, end), (start, _) in pairwise(held))
