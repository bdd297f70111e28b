"""Who gets a CPU, and when: wakeup preemption, ticks, preemption models."""

from dataclasses import replace

import pytest

from mmfw.costs import profile
from mmfw.sched import PF_KSWAPD, PF_KTHREAD, PreemptModel, SchedError, SchedParams, Scheduler, WaitQueue

FREE_SWITCH = replace(profile("default"), context_switch=0)
MS = 1_000_000
US = 1_000


def reclaimer_and_kswapd(model, *, before, points):
    """A client that worked for `before` ns wakes kswapd, then compacts for 100 us and calls `points`."""
    log = []
    with Scheduler(costs=FREE_SWITCH, params=SchedParams(preempt=model)) as sched:
        kswapd_wait = WaitQueue(sched, "kswapd_wait")

        def kswapd():
            while True:
                kswapd_wait.wait()
                log.append((sched.now, "kswapd"))
                sched.charge(50 * US)
                log.append((sched.now, "kswapd done"))

        def client():
            sched.charge(before)
            kswapd_wait.wake_up()
            log.append((sched.now, "woken"))
            sched.charge(100 * US)
            log.append((sched.now, "compacted"))
            points(sched)
            log.append((sched.now, "goes on"))
            sched.sleep(1 * MS)

        sched.spawn(kswapd, name="kswapd0", flags=PF_KSWAPD | PF_KTHREAD)
        sched.spawn(client, name="client")
        sched.run()
    return log


def test_voluntary_waker_runs_on_to_the_next_resched_point_as_captured():
    log = reclaimer_and_kswapd(
        PreemptModel.VOLUNTARY, before=5 * MS, points=lambda sched: sched.cond_resched()
    )
    assert log == [
        *((5000 * US, "woken"), (5100 * US, "compacted"), (5100 * US, "kswapd")),
        *((5150 * US, "kswapd done"), (5150 * US, "goes on")),
    ]


def test_a_wakee_within_the_granularity_waits_until_the_waker_sleeps():
    log = reclaimer_and_kswapd(
        PreemptModel.VOLUNTARY, before=1 * MS, points=lambda sched: sched.cond_resched()
    )
    assert log == [
        *((1000 * US, "woken"), (1100 * US, "compacted"), (1100 * US, "goes on")),
        *((1100 * US, "kswapd"), (1150 * US, "kswapd done")),
    ]


@pytest.mark.parametrize(("model", "switched"), [(PreemptModel.VOLUNTARY, True), (PreemptModel.NONE, False)])
def test_might_sleep_is_a_point_in_the_voluntary_model_only(model, switched):
    log = reclaimer_and_kswapd(model, before=5 * MS, points=lambda sched: sched.might_sleep())
    assert (
        log.index((5100 * US, "kswapd")) < log.index(((5150 if switched else 5100) * US, "goes on"))
    ) is switched


def test_full_preemption_takes_the_waker_at_its_next_charge_and_gives_back_the_rest():
    log = reclaimer_and_kswapd(PreemptModel.FULL, before=5 * MS, points=lambda sched: None)
    assert log == [
        *((5000 * US, "woken"), (5000 * US, "kswapd"), (5050 * US, "kswapd done")),
        *((5150 * US, "compacted"), (5150 * US, "goes on")),
    ]


def interrupted(charge, model=PreemptModel.VOLUNTARY):
    """A timer wakes kswapd 6 ms into 10 ms of work of a client; when does each go on?"""
    log = []
    with Scheduler(costs=FREE_SWITCH, params=SchedParams(preempt=model)) as sched:
        queue = WaitQueue(sched)

        def kswapd():
            queue.wait()
            sched.charge(1 * MS)
            log.append(("kswapd", sched.now))

        def client():
            charge(sched)
            log.append(("client", sched.now))

        sched.spawn(kswapd, name="kswapd0", flags=PF_KTHREAD)
        sched.spawn(client, name="client")
        sched.call_at(6 * MS, queue.wake_up)
        sched.run(20 * MS)
    return log


def test_kernel_mode_is_not_interrupted_in_the_voluntary_model():
    assert interrupted(lambda sched: sched.charge(10 * MS)) == [("client", 10 * MS), ("kswapd", 11 * MS)]


def test_user_mode_and_full_preemption_are_interrupted_at_once():
    taken = [("kswapd", 7 * MS), ("client", 11 * MS)]
    assert interrupted(lambda sched: sched.charge_user(10 * MS)) == taken
    assert interrupted(lambda sched: sched.charge(10 * MS), PreemptModel.FULL) == taken


def test_preempt_disabled_holds_the_cpu_and_gives_way_at_its_end():
    def work(sched):
        with sched.preempt_disabled():
            sched.charge(9 * MS)
            assert not sched.cond_resched()
        assert sched.now == 10 * MS
        sched.charge(1 * MS)

    assert interrupted(work, PreemptModel.FULL) == [("kswapd", 10 * MS), ("client", 11 * MS)]


def test_sleeping_with_preemption_disabled_is_an_error():
    with Scheduler(costs=FREE_SWITCH) as sched:

        def client():
            with sched.preempt_disabled():
                sched.sleep(1)

        sched.spawn(client, name="client")
        with pytest.raises(SchedError, match="scheduling while atomic: task client-1") as caught:
            sched.run()
    assert caught.value.__notes__ == ["in task client-1 on cpu 0 at 0 ns"]


def shares(nr_cpus, until, *nices):
    switches = []
    with Scheduler(nr_cpus, costs=FREE_SWITCH) as sched:
        sched.add_sched_switch_listener(
            lambda now, cpu, _, after: switches.append((now // MS, cpu, str(after)))
        )
        tasks = [sched.spawn(sched.charge_user, 1000 * MS, name=f"n{nice}", nice=nice) for nice in nices]
        sched.run(until)
        return switches, [task.sum_exec_runtime for task in tasks]


def test_peers_change_at_the_tick_after_their_slice_is_over():
    switches, _ = shares(1, 30 * MS, 0, 0)
    # A slice is 3 ms of the 6 ms period; the tick that sees it exceeded comes every 4 ms.
    assert switches == [(t, 0, "n0-1" if t % 8 == 0 else "n0-2") for t in range(0, 30, 4)]


def test_nice_weighs_the_shares():
    _, (nice0, nice5) = shares(1, 4000 * MS, 0, 5)
    # Both end; while both run, CPU time goes 1024 : 335.
    _, (first, second) = shares(1, 1000 * MS, 0, 5)
    assert first / second == pytest.approx(1024 / 335, rel=0.02)
    assert (nice0, nice5) == (1000 * MS, 1000 * MS)


def test_a_woken_kthread_runs_beside_the_waker_on_another_cpu():
    log = []
    with Scheduler(2, costs=FREE_SWITCH) as sched:
        queue = WaitQueue(sched)

        def kswapd():
            queue.wait()
            log.append((sched.now, sched.current_cpu, "kswapd"))

        def client():
            sched.charge(10)
            queue.wake_up()
            sched.charge(10)
            log.append((sched.now, sched.current_cpu, "client"))

        sched.spawn(client, name="client", cpu=0)
        sched.spawn(kswapd, name="kswapd0", flags=PF_KTHREAD)
        sched.run()
    assert log == [(10, 1, "kswapd"), (20, 0, "client")]


def test_granularities_grow_with_the_cpus_as_in_the_kernel():
    assert [SchedParams().scaled(n).latency // MS for n in (1, 2, 4, 8, 64)] == [6, 12, 18, 24, 24]
