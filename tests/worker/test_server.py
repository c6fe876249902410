"""A worker with a scheduler that does what it is told: its life, and the life of tasks on it."""

import asyncio
import os
import pickle
import socket
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import dask
import pytest

from treadle.exceptions import Reschedule
from treadle.messages.worker_scheduler import (
    CloseWorker,
    DropKeys,
    LeaveGracefully,
    LeaveWorker,
    TakeBack,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerRan,
    WorkerRun,
)
from treadle.serialize.errors import load_error
from treadle.utils.status import Status
from treadle.worker.execution import get_worker, rejoin, secede
from treadle.worker.server import Worker

# Tasks run in this process, so that they and the tests can meet here.
GATES = {}


def inc(x):
    return x + 1


def fail():
    raise ValueError("oh no")


def wait_for(name):
    assert GATES[name].wait(30)
    return name


def gate(name):
    GATES[name] = threading.Event()
    return GATES[name]


async def double_later(x):
    await asyncio.sleep(0)
    return 2 * x


def who():
    worker = get_worker()
    return worker.name, worker.get_current_task()


# ------------------------------------------------------------------------------------------------ tasks


def test_a_task_runs_and_its_value_is_kept_until_it_is_dropped(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker(name="alice")
        stream.submit(5, inc, 1, key=("x", 0))
        await stream.until_finished(5)
        assert dict(worker.data) == {("x", 0): 2}
        assert worker.statistics().core.states == {"memory": 1}
        stream.send(DropKeys([5]))
        stream.submit(6, inc, 2)
        await stream.until_finished(6)
        assert dict(worker.data) == {"k6": 3}
        await worker.close()
        assert worker.status is Status.closed

    scene(play)


def test_keyword_arguments_and_large_arguments(scene):
    from treadle.messages.worker_scheduler import ComputeTasks
    from treadle.serialize.spec import dumps_call

    def total(data, *, start):
        return start + len(data)

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.define(1, total)
        payload, buffers = dumps_call((bytearray(200_000),), {"start": 7})
        message = ComputeTasks([2], ["a"], [1], [1], [payload], [(0.0, 0.0, 0)])
        message.buffers = [(0, len(buffers))] if buffers else None
        stream.send(message, buffers=buffers)
        await stream.until_finished(2)
        assert worker.data["a"] == 200_007
        await worker.close()

    scene(play)


def test_a_failure_travels_with_its_type_and_text(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, fail)
        await stream.until(stream.erred)
        error = load_error(stream.erred()[1])
        assert isinstance(error, ValueError) and str(error) == "oh no"
        assert not worker.data
        await worker.close()

    scene(play)


def test_a_function_that_cannot_be_unpickled_is_the_tasks_error(scene):
    from treadle.messages.worker_scheduler import LearnFunctions

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.send(LearnFunctions([1], [b"not a pickle"]))
        stream.call(3, 1)
        stream.call(4, 99)
        await stream.until(lambda: len(stream.erred()) == 2)
        await worker.close()

    scene(play)


def test_a_coroutine_function_runs_on_the_loop_and_nodes_may_hold_one(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, double_later, 21)
        await stream.until_finished(1)
        stream.node(2, double_later, "k1")
        await stream.until_finished(2)
        assert worker.data["k1"] == 42 and worker.data["k2"] == 84
        await worker.close()

    scene(play)


def test_reschedule(scene):
    def elsewhere():
        raise Reschedule

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, elsewhere)
        message = await stream.hear(TasksRescheduled, 1)
        assert message.attempts == [1]
        await worker.close()

    scene(play)


def test_values_go_from_worker_to_worker(scene):
    async def play(scheduler):
        alice, from_alice = await scheduler.worker(name="alice")
        bob, from_bob = await scheduler.worker(name="bob")
        from_alice.submit(1, inc, 1)
        from_alice.submit(2, bytes, 3_000_000)
        await from_alice.until_finished(1, 2)
        from_bob.meet(from_alice)
        from_bob.node(3, lambda number, data: number + len(data), "k1", "k2", at=[from_alice])
        await from_bob.until_finished(3)
        assert bob.data["k3"] == 3_000_002
        assert set(bob.data) == {"k1", "k2", "k3"}
        await alice.close()
        await bob.close()

    scene(play)


def test_a_value_that_cannot_be_sent_is_the_error_of_who_needs_it(scene):
    async def play(scheduler):
        alice, from_alice = await scheduler.worker(name="alice")
        bob, from_bob = await scheduler.worker(name="bob")
        from_alice.submit(1, threading.Lock)
        await from_alice.until_finished(1)
        from_bob.meet(from_alice)
        from_bob.node(2, repr, "k1", at=[from_alice])
        if alice.address.startswith("inproc"):
            # It need not be pickled there.
            await from_bob.until_finished(2)
        else:
            await from_bob.until(from_bob.erred)
            assert isinstance(load_error(from_bob.erred()[2]), TypeError)
        await alice.close()
        await bob.close()

    scene(play)


class Bomb:
    """Can be pickled, cannot be unpickled."""

    def __reduce__(self):
        return fail, ()


def test_a_value_that_cannot_be_unpickled_harms_only_those_who_need_it(scene):
    async def play(scheduler):
        alice, from_alice = await scheduler.worker(name="alice")
        bob, from_bob = await scheduler.worker(name="bob")
        from_alice.submit(1, Bomb)
        from_alice.submit(2, inc, 1)
        await from_alice.until_finished(1, 2)
        from_bob.meet(from_alice)
        from_bob.node(3, lambda a, b: 0, "k1", "k2", at=[from_alice])
        from_bob.node(4, inc, "k2", at=[from_alice])
        await from_bob.until(lambda: from_bob.erred() and from_bob.finished())
        assert list(from_bob.erred()) == [3] and from_bob.finished() == [4]
        assert str(load_error(from_bob.erred()[3])) == "oh no"
        await alice.close()
        await bob.close()

    scene(play)


def test_an_unreachable_holder_is_reported(scene):
    from treadle.messages.worker_scheduler import ReplicasMissing

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        other, from_other = await scheduler.worker(name="other")
        stream.meet(from_other)
        stream.node(2, inc, "k1", at=[from_other])
        message = await stream.hear(ReplicasMissing, 1)
        assert message.holders == [from_other.number]
        await other.close()
        await worker.close()

    scene(play)


def test_what_executes_for_a_moment_is_reported_and_what_has_not_started_is_given_back(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        opened = gate("a")
        stream.submit(1, wait_for, "a")
        stream.submit(2, inc, 1, priority=1)
        message = await stream.hear(TasksStarted, 1)
        assert message.ids == [1]
        stream.send(TakeBack([1, 2], [1, 2]))
        answers = lambda: [message for message in stream.heard if isinstance(message, TasksTakenBack)]  # noqa: E731
        await stream.until(lambda: sum(len(message.ids) + len(message.kept) for message in answers()) == 2)
        assert [(message.ids, message.attempts) for message in answers() if message.ids] == [([2], [2])]
        assert [message.kept for message in answers() if message.kept] == [[1]]
        opened.set()
        await stream.until_finished(1)
        assert "k2" not in worker.data
        await worker.close()

    scene(play)


def test_a_task_that_secedes_lets_another_run_and_comes_back(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker(nthreads=1)
        opened, done = gate("inside"), gate("after")

        def leave():
            secede()
            wait_for("inside")
            rejoin()
            wait_for("after")
            return threading.current_thread().name

        def unlock():
            opened.set()

        GATES["leave"], GATES["unlock"] = leave, unlock
        stream.submit(1, run_gate, "leave")
        await stream.hear(TasksSeceded, 1)
        stream.submit(2, run_gate, "unlock")
        await stream.until_finished(2)
        # Whoever comes back goes before what is queued.
        stream.submit(3, inc, 1)
        done.set()
        await stream.until_finished(1, 3)
        await worker.close()

    scene(play)


def run_gate(name):
    return GATES[name]()


def test_outside_of_tasks_there_is_no_worker():
    for function in (get_worker, secede, rejoin):
        with pytest.raises(ValueError, match="inside of tasks"):
            function()


def test_a_task_knows_its_worker_and_itself(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker(name=7)
        stream.submit(1, who, key=("who", 1))
        await stream.until_finished(1)
        assert worker.data["who", 1] == (7, ("who", 1))
        await worker.close()

    scene(play)


def test_named_executors(scene):
    def name_of_thread():
        return threading.current_thread().name

    async def play(scheduler):
        with ThreadPoolExecutor(1, thread_name_prefix="mine") as threads:
            worker, stream = await scheduler.worker(executor={"mine": threads})
            stream.submit(1, name_of_thread, executor="mine")
            stream.submit(2, fail, executor="mine")
            stream.submit(3, inc, 1, executor="nobody's")
            await stream.until(lambda: stream.finished() == [1] and len(stream.erred()) == 2)
            assert worker.data["k1"].startswith("mine")
            assert isinstance(load_error(stream.erred()[2]), ValueError)
            assert "nobody's" in str(load_error(stream.erred()[3]))
            assert set(worker.executors) == {"default", "mine", "offload"}
            await worker.close()

    scene(play)


def test_a_pool_of_processes_as_the_default(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker(executor=ProcessPoolExecutor(1))
        stream.submit(1, os.getpid)
        await stream.until_finished(1)
        assert worker.data["k1"] != os.getpid()
        stream.node(2, str, "k1")
        await stream.until_finished(2)
        assert worker.data["k2"] == str(worker.data["k1"])
        await worker.close()

    scene(play)


# ------------------------------------------------------------------------------------------------- data


class Picky(dict):
    def __setitem__(self, key, value):
        if value == "bad":
            raise OSError("disk full")
        super().__setitem__(key, value)


def test_the_users_mapping_is_used_and_its_refusal_is_the_tasks_error(scene):
    async def play(scheduler):
        data = Picky()
        worker, stream = await scheduler.worker(data=data)
        assert worker.data is data
        stream.submit(1, str, "bad")
        stream.submit(2, str, "good")
        await stream.until(lambda: stream.erred() and stream.finished())
        assert stream.finished() == [2]
        assert "disk full" in stream.erred()[1].exception_text
        assert data == {"k2": "good"}
        await worker.close()

    scene(play)


def test_a_mapping_that_is_not_empty_is_refused(scene):
    async def play(scheduler):
        with pytest.raises(ValueError, match="must be empty"):
            await scheduler.worker(data={"x": 1})
        with pytest.raises(TypeError, match="mapping"):
            await scheduler.worker(data=5)

    scene(play)


# -------------------------------------------------------------------------------------------------- life


def test_close_says_goodbye_and_leaves_nothing(scene, tmp_path):
    async def play(scheduler):
        worker, stream = await scheduler.worker(local_directory=tmp_path)
        assert os.path.dirname(worker.local_directory) == str(tmp_path)
        assert worker in Worker._instances
        waiting = asyncio.ensure_future(worker.finished())
        await asyncio.gather(worker.close(reason="enough"), worker.close())
        await waiting
        assert (await stream.hear(LeaveWorker)).reason == "enough"
        await stream.until(lambda: stream.closed)
        assert not list(tmp_path.iterdir())
        assert not worker.restart_requested

    scene(play)


def test_close_does_not_wait_for_a_task_that_does_not_end(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        opened = gate("never")
        stream.submit(1, wait_for, "never")
        await stream.hear(TasksStarted, 1)
        await worker.close(executor_wait=False)
        assert worker.status is Status.closed
        opened.set()

    scene(play)


def test_close_gracefully_stays_until_the_scheduler_lets_it_go(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        opened = gate("slow")
        stream.submit(1, wait_for, "slow")
        stream.submit(2, inc, 1, priority=1)
        await stream.hear(TasksStarted, 1)
        closing = asyncio.ensure_future(worker.close_gracefully(restart=True))
        assert (await stream.hear(LeaveGracefully)).restart
        assert worker.status is Status.closing_gracefully
        opened.set()
        await stream.until_finished(1, 2)
        assert not closing.done()
        stream.send(CloseWorker("retired", restart=True))
        await closing
        assert worker.status is Status.closed
        assert worker.restart_requested

    scene(play)


def test_the_scheduler_closes_it(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.send(CloseWorker("go", restart=True))
        await worker.finished()
        assert worker.restart_requested

    scene(play)


def test_without_its_scheduler_it_closes(scene):
    async def play(scheduler):
        with dask.config.set({"treadle.worker.reconnect-grace": 0}):
            worker, stream = await scheduler.worker()
        stream.comm.abort()
        await worker.finished()
        assert not os.path.exists(worker.local_directory)

    scene(play)


def test_a_broken_protocol_closes_it(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.comm.send(b"\xff\xff")
        await worker.finished()

    scene(play)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_that_exits_ends_the_worker_as_if_it_had_died(scene, error):
    def leave():
        raise error

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, leave)
        await worker.finished()
        await stream.until(lambda: stream.closed)
        assert [type(message) for message in stream.heard[1:]] == [TasksStarted]
        assert worker.restart_requested

    scene(play)


def test_a_refused_worker_says_why(scene, tmp_path):
    async def play(scheduler):
        scheduler.refusal = "the name 'alice' is in use"
        with pytest.raises(ValueError, match="the name 'alice' is in use"):
            await scheduler.worker(name="alice", local_directory=tmp_path)
        assert not list(tmp_path.iterdir())

    scene(play)


def test_no_scheduler_there(security):
    async def main():
        with socket.socket() as blocked:
            blocked.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{blocked.getsockname()[1]}"
            with pytest.raises(TimeoutError, match="could not be reached"):
                await Worker(address, security=security, death_timeout="200ms")

    asyncio.run(main())


def test_a_range_of_ports(scene):
    async def play(scheduler):
        if scheduler.scheme != "tcp":
            return
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=str(port)):
                await scheduler.worker(port=port)
            worker, _ = await scheduler.worker(port=range(port, min(port + 20, 65536)))
            assert worker.address != f"tcp://127.0.0.1:{port}"
            await worker.close()

    scene(play)


def test_a_scheduler_file(scene, tmp_path):
    from treadle.utils.scheduler_file import SchedulerFile, write_scheduler_file

    async def play(scheduler):
        path = tmp_path / "scheduler.json"
        write_scheduler_file(path, SchedulerFile(scheduler.address, "s", "s" * 32))
        async with Worker(scheduler_file=path, nthreads=1) as worker:
            assert worker.scheduler_address == scheduler.address

    scene(play)


# --------------------------------------------------------------------------------------------------- run


def name_of(dask_worker):
    return dask_worker.name


async def later_name_of(dask_worker, suffix=""):
    await asyncio.sleep(0)
    return dask_worker.name + suffix


def leave_run():
    raise SystemExit


def test_run_a_function_beside_the_schedule(scene):
    async def play(scheduler):
        worker, stream = await scheduler.worker(name="alice")

        def ask(request, function, *args, **kwargs):
            stream.send(WorkerRun(request, pickle.dumps((function, args, kwargs))))

        ask(1, len, "abc")
        ask(2, name_of)
        ask(3, later_name_of, suffix="!")
        ask(4, fail)
        ask(5, leave_run)
        answers = lambda: {message.request: message for message in stream.heard if isinstance(message, WorkerRan)}  # noqa: E731
        await stream.until(lambda: len(answers()) == 5)
        assert [pickle.loads(answers()[request].payload) for request in (1, 2, 3)] == [3, "alice", "alice!"]
        assert isinstance(load_error(answers()[4].error), ValueError)
        assert answers()[5].error is not None
        assert worker.status is Status.running
        await worker.close()

    scene(play)


def test_a_worker_that_fails_within_closes_instead_of_standing_still(scene, caplog):
    async def play(scheduler):
        worker, stream = await scheduler.worker(name="alice")

        def broken(specs):
            raise TypeError("a bug of ours")

        worker._pool.offer = broken
        stream.submit(1, inc, 1)
        await worker.finished()
        assert worker.status is Status.closed

    scene(play)
    assert "worker alice failed within and closes" in caplog.text
