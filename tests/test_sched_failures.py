"""What a run reports when tasks fail, block each other, or never let time pass; and what closing does."""

import gc
import weakref
from dataclasses import replace

import pytest

from mmfw.costs import profile
from mmfw.errors import InputError
from mmfw.sched import (
    PF_KTHREAD,
    DeadlockError,
    Fence,
    LivelockError,
    Mutex,
    RwSem,
    SchedError,
    SchedParams,
    Scheduler,
    WaitQueue,
)

FREE_SWITCH = replace(profile("default"), context_switch=0)


@pytest.fixture
def sched():
    with Scheduler(costs=FREE_SWITCH, params=SchedParams(livelock_calls=1000)) as scheduler:
        yield scheduler


def test_an_exception_keeps_its_type_and_names_its_task(sched):
    def client():
        sched.sleep(1000)
        raise InputError("bad phase", file="a.toml", line=3)

    sched.spawn(client, name="client")
    sched.spawn(sched.sleep, 10**9, name="other")
    with pytest.raises(InputError, match=r"a\.toml:3: bad phase") as caught:
        sched.run()
    assert caught.value.__notes__ == ["in task client-1 on cpu 0 at 1000 ns"]
    assert sched.tasks == ()


def test_an_exception_of_a_timer_is_not_blamed_on_the_task_it_interrupts(sched):
    survived = []

    def client():
        try:
            sched.sleep(1000)
        except ZeroDivisionError:
            survived.append("caught")

    sched.spawn(client, name="client")
    sched.call_at(10, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        sched.run()
    assert survived == []


def test_a_circle_of_locks_is_reported_at_once(sched):
    a, b = Mutex(sched, "lock a"), Mutex(sched, "lock b")

    def client(first, second):
        first.lock()
        sched.sleep(10_000)
        second.lock()

    def heartbeat():
        while True:
            sched.sleep(500)

    sched.spawn(heartbeat, name="kcompactd0", flags=PF_KTHREAD)
    sched.spawn(client, a, b, name="ab")
    sched.spawn(client, b, a, name="ba")
    with pytest.raises(DeadlockError) as caught:
        sched.run(10**9)
    assert str(caught.value) == (
        "deadlock, a circle of locks: ba-3 waits for lock a, held by ab-2;"
        " ab-2 waits for lock b, held by ba-3"
    )
    assert sched.now < 20_000


def test_locking_twice_is_a_circle_of_one(sched):
    mutex = Mutex(sched, "m")

    def client():
        with mutex, mutex:
            pass

    sched.spawn(client, name="client")
    with pytest.raises(DeadlockError, match=r"circle of locks: client-1 waits for m, held by client-1$"):
        sched.run()


def test_a_lock_that_nobody_will_release_is_a_deadlock_even_for_a_kthread(sched):
    sem = RwSem(sched, "rwsem")

    def forgetful():
        sem.down_read()

    def kswapd():
        sched.sleep(10_000)
        sem.down_write()

    sched.spawn(forgetful, name="forgetful")
    sched.spawn(kswapd, name="kswapd0", flags=PF_KTHREAD)
    with pytest.raises(DeadlockError, match="kswapd0-2 waits for rwsem, held by forgetful-1"):
        sched.run(10**6)


def test_waiting_for_what_cannot_come_is_a_deadlock_unless_daemon(sched):
    sched.spawn(WaitQueue(sched, "kswapd_wait").wait, name="kswapd0", flags=PF_KTHREAD)
    sched.run(1000)
    assert sched.now == 1000
    sched.spawn(Fence(sched, name="job 7").wait, name="client")
    with pytest.raises(DeadlockError, match=r"nothing can run any more: client-2 waits for job 7$"):
        sched.run(2000)


def spin_on_trylock(sched):
    taken = Mutex(sched)
    taken.lock()
    while not taken.trylock():
        sched.cond_resched()


def spin_on_charge(sched):
    while True:
        sched.charge(0)


def spin_on_sleep(sched):
    while True:
        try:
            sched.sleep(0)
        except Exception:
            continue


@pytest.mark.parametrize("spin", [spin_on_trylock, spin_on_charge, spin_on_sleep])
def test_a_loop_without_time_is_a_livelock_and_cannot_be_caught(sched, spin):
    sched.spawn(spin, sched, name="xe_shrinker")
    with pytest.raises(LivelockError, match="task xe_shrinker-1 made 1001 scheduler calls at"):
        sched.run()


def test_a_timer_that_sets_itself_again_at_once_is_a_livelock(sched):
    def again():
        sched.call_at(sched.now, again)

    sched.call_at(5, again)
    with pytest.raises(LivelockError, match="events at 5 ns without time passing"):
        sched.run(10)


def test_time_passing_between_calls_is_no_livelock(sched):
    def client():
        for _ in range(5000):
            sched.charge(0)
            sched.charge(1)

    sched.spawn(client, name="client")
    sched.run()
    assert sched.now == 5000


def test_close_runs_finally_parts_and_forgets_the_tasks():
    log = []

    class Payload:
        pass

    def client(sched, mutex, refs):
        payload = Payload()
        refs.append(weakref.ref(payload))
        try:
            with mutex:
                sched.sleep(10**9)
        finally:
            sched.charge(50)
            log.append(sched.current.comm)

    sched = Scheduler()
    mutex, refs = Mutex(sched), []
    tasks = [sched.spawn(client, sched, mutex, refs, name=name) for name in ("a", "b")]
    sched.spawn(client, sched, mutex, refs, name="not started")
    sched.run(3000)
    sched.close()
    sched.close()
    assert log == ["a", "b"]
    assert sched.tasks == ()
    assert not mutex.is_locked()
    del tasks
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)
    with pytest.raises(SchedError, match="closed"):
        sched.run(4000)
    with pytest.raises(SchedError, match="closed"):
        sched.spawn(print, name="late")


def test_run_and_close_from_within_a_task_are_refused(sched):
    refused = []

    def client():
        for call in (sched.run, sched.close):
            with pytest.raises(SchedError):
                call()
            refused.append(call.__name__)

    sched.spawn(client, name="client")
    sched.run()
    assert refused == ["run", "close"]


def test_two_schedulers_do_not_share_anything():
    log = []
    with Scheduler() as outer, Scheduler() as inner:

        def simulate():
            outer.sleep(100)
            inner.spawn(inner.sleep, 7, name="in")
            inner.run()
            log.append((outer.now, outer.current.comm, inner.now, inner.current.comm))

        outer.spawn(simulate, name="out")
        outer.run()
    assert log == [(3100, "out", 3007, "swapper/0")]
