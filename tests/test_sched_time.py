"""Order of effects in virtual time: charges, timers, CPUs, accounts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw.costs import profile
from mmfw.errors import InputError
from mmfw.sched import (
    PF_KTHREAD,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    PreemptModel,
    SchedError,
    SchedParams,
    Scheduler,
    Task,
)

FREE_SWITCH = replace(profile("default"), context_switch=0)
MS = 1_000_000


def scheduler(nr_cpus=1, context_switch=0, model=PreemptModel.VOLUNTARY):
    costs = replace(FREE_SWITCH, context_switch=context_switch)
    return Scheduler(nr_cpus, costs=costs, params=SchedParams(preempt=model))


def test_sleepers_wake_in_order_of_time_then_of_call():
    log = []
    with scheduler() as sched:

        def client(name, ns):
            sched.sleep(ns)
            log.append((sched.now, name))

        for name, ns in (("a", 30), ("b", 10), ("c", 30), ("d", 20)):
            sched.spawn(client, name, ns, name=name)
        sched.run()
    assert log == [(10, "b"), (20, "d"), (30, "a"), (30, "c")]


def test_any_plain_function_may_sleep_anywhere():
    with scheduler() as sched:

        def scan_objects(depth):
            if depth:
                return 1 + scan_objects(depth - 1)
            sched.sleep(5)
            return sched.now

        task = sched.spawn(scan_objects, 3, name="deep")
        sched.run()
    assert task.result == 8


def test_a_charge_lets_earlier_events_happen_first():
    log = []
    with scheduler() as sched:

        def client():
            sched.charge(100)
            log.append((sched.now, "client"))

        sched.spawn(client, name="client")
        for time in (40, 100, 101):
            sched.call_at(time, lambda time=time: log.append((sched.now, time)))
        sched.run(200)
    assert log == [(40, 40), (100, 100), (100, "client"), (101, 101)]


def test_cpus_take_turns_by_local_time():
    log = []
    with scheduler(nr_cpus=2) as sched:

        def client(name, ns, times):
            for _ in range(times):
                log.append((sched.now, sched.current_cpu, name))
                sched.charge(ns)

        sched.spawn(client, "fast", 10, 4, name="fast")
        sched.spawn(client, "slow", 25, 2, name="slow")
        sched.run()
        assert sched.now == 50
    assert log == [
        *((0, 0, "fast"), (0, 1, "slow"), (10, 0, "fast"), (20, 0, "fast")),
        *((25, 1, "slow"), (30, 0, "fast")),
    ]


def test_a_cpu_that_goes_idle_pulls_a_waiting_task_unless_it_is_pinned():
    log = []
    with scheduler(nr_cpus=2) as sched:

        def client(name, ns):
            sched.charge(ns)
            log.append((sched.now, sched.current_cpu, name))

        sched.spawn(client, "long", 100, name="long", cpu=0)
        sched.spawn(client, "short", 30, name="short", cpu=1)
        sched.spawn(client, "pinned", 10, name="pinned", cpu=0)
        sched.spawn(client, "free", 10, name="free")
        sched.run()
    assert log == [(30, 1, "short"), (40, 1, "free"), (100, 0, "long"), (110, 0, "pinned")]


def test_switches_cost_time_and_are_reported():
    switches = []
    with scheduler(context_switch=7) as sched:
        sched.add_sched_switch_listener(
            lambda now, cpu, before, after: switches.append((now, cpu, str(before), str(after)))
        )

        def client():
            sched.charge(10)
            sched.sleep(20)
            sched.charge(10, "gpu")

        task = sched.spawn(client, name="client")
        sched.run()
        assert sched.now == 7 + 10 + 20 + 7 + 10
    assert task.accounts == {"context_switch": 14, "cpu": 10, "gpu": 10}
    assert (task.charged_ns, task.sum_exec_runtime) == (34, 34)
    assert switches == [
        *((0, 0, "None", "client-1"), (17, 0, "client-1", "None")),
        *((37, 0, "None", "client-1"), (54, 0, "client-1", "None")),
    ]


def test_run_stops_in_the_midst_of_a_charge_and_goes_on():
    log = []
    with scheduler() as sched:

        def client():
            sched.charge(100)
            log.append(sched.now)

        sched.spawn(client, name="client")
        sched.run(60)
        assert (sched.now, log) == (60, [])
        sched.run(100)
        assert log == [100]


def test_run_without_a_limit_ends_with_the_last_task_that_is_no_daemon():
    with scheduler() as sched:

        def kthread():
            while True:
                sched.sleep(10)

        sched.spawn(kthread, name="kswapd0", flags=PF_KTHREAD)
        sched.spawn(sched.sleep, 35, name="client")
        sched.run()
        assert sched.now == 35
        assert [task.comm for task in sched.tasks] == ["kswapd0"]
        sched.run()
        assert sched.now == 35


def test_boot_code_may_charge_and_tasks_run_meanwhile():
    log = []
    with scheduler() as sched:

        def client():
            while True:
                sched.sleep(10)
                log.append(sched.now)

        sched.charge(5)
        assert sched.current.pid == 0
        sched.spawn(client, name="client", daemon=True)
        sched.charge(20)
        sched.sleep(10)
        assert (sched.now, log) == (35, [15, 25, 35])
        with pytest.raises(SchedError, match="outside every task may not sleep"):
            sched.schedule_timeout(1)


def test_a_timer_may_neither_charge_nor_sleep_but_may_be_cancelled():
    with scheduler() as sched:
        late = sched.call_at(5, lambda: sched.charge(1))
        assert late.cancel()
        assert not late.cancel()
        sched.run(10)
        sched.call_at(20, lambda: sched.charge(1))
        with pytest.raises(SchedError, match="timer's call may not charge"):
            sched.run(30)


def test_flag_scopes_nest_and_restore_what_was_there():
    seen = []
    with scheduler() as sched:

        def client():
            with sched.memalloc_nofs():
                with sched.memalloc_noreclaim(), sched.memalloc_nofs(), sched.memalloc_noio():
                    sched.sleep(1)
                    seen.append(sched.current.flags)
                seen.append(sched.current.flags)
            seen.append(sched.current.flags)

        sched.spawn(client, name="client", flags=PF_MEMALLOC, daemon=False)
        sched.run()
    assert seen == [0x800 | 0x40000 | 0x80000, PF_MEMALLOC | PF_MEMALLOC_NOFS, PF_MEMALLOC]
    assert PF_MEMALLOC_NOIO == 0x80000


def test_kthread_stop_wakes_it_and_waits_for_its_end():
    log = []
    with scheduler() as sched:

        def kthread():
            while not sched.kthread_should_stop():
                sched.schedule_timeout(1000)
            sched.charge(5)
            log.append((sched.now, "stopped"))

        def client(kthread_task):
            sched.sleep(100)
            sched.kthread_stop(kthread_task)
            log.append((sched.now, "returned"))

        sched.spawn(client, sched.spawn(kthread, name="kthread", flags=PF_KTHREAD), name="client")
        sched.run()
    assert log == [(105, "stopped"), (105, "returned")]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Scheduler(0), "nr_cpus=0 must be at least 1"),
        (lambda: Scheduler().spawn(print, name="x", cpu=1), "cpu=1 of task 'x' must be from 0 to 0"),
        (lambda: Scheduler().spawn(print, name="x", nice=20), "nice=20 of task 'x' must be from -20 to 19"),
        (lambda: Scheduler().charge(-1), "time does not go backwards"),
        (lambda: Task("x", 1, nice=-21), "nice=-21"),
    ],
)
def test_bad_arguments_are_named(call, match):
    with pytest.raises((InputError, SchedError), match=match):
        call()


STEPS = st.lists(
    st.tuples(st.sampled_from(["charge", "user", "sleep", "resched", "wake"]), st.integers(0, 5 * MS)),
    max_size=12,
)


def record(nr_cpus, model, programs):
    """Run one task for each program; the log has every step and every switch."""
    log = []
    with scheduler(nr_cpus, 1500, model) as sched:
        tasks = []

        def client(me, steps):
            for what, ns in steps:
                if what == "charge":
                    sched.charge(ns)
                elif what == "user":
                    sched.charge_user(ns)
                elif what == "sleep":
                    sched.sleep(ns)
                elif what == "wake":
                    sched.wake_up_process(tasks[ns % len(tasks)])
                else:
                    sched.cond_resched()
                log.append((sched.now, sched.current_cpu, me, what))

        sched.add_sched_switch_listener(
            lambda now, cpu, _, after: log.append((now, cpu, str(after), "switch"))
        )
        for me, steps in enumerate(programs):
            tasks.append(sched.spawn(client, me, steps, name=f"t{me}", nice=me * 3 - 3))
        sched.run()
        charged = [sum(ns for what, ns in steps if what in ("charge", "user")) for steps in programs]
        assert [t.charged_ns - t.accounts.get("context_switch", 0) for t in tasks] == charged
        # What tasks were charged is what they occupied their CPUs for.
        assert [task.sum_exec_runtime for task in tasks] == [task.charged_ns for task in tasks]
    return log


@given(
    nr_cpus=st.integers(1, 3),
    model=st.sampled_from(PreemptModel),
    programs=st.lists(STEPS, min_size=1, max_size=4),
)
def test_time_never_goes_back_and_runs_repeat_exactly(nr_cpus, model, programs):
    log = record(nr_cpus, model, programs)
    times = [entry[0] for entry in log]
    assert times == sorted(times)
    assert record(nr_cpus, model, programs) == log


def test_a_thousand_tasks_may_begin_inside_one_another() -> None:
    """A greenlet inherits the depth of the stack that first switches to it, and Python allows a thousand."""
    sched = Scheduler()
    ended = []

    def begin(number: int) -> None:
        if number:
            sched.spawn(begin, number - 1, name=f"task-{number}")
            sched.sleep(1_000)
        ended.append(number)

    sched.spawn(begin, 1000, name="first")
    sched.run()
    assert len(ended) == 1001
    sched.close()
