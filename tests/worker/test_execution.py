"""The thread pool by itself: order, taking back, pausing, places."""

import asyncio
import pickle
import sys
import threading

from treadle.messages.local import Execute, ExecutionFailed, ExecutionsSeceded, ExecutionUnready
from treadle.serialize.spec import dumps_call, dumps_function
from treadle.worker.calling import FunctionTable
from treadle.worker.data.store import Store
from treadle.worker.execution import ThreadPool, rejoin, secede

seen = []
GATE = threading.Event()
BOTH = threading.Barrier(2)


def note(x):
    seen.append(x)
    return x


def block(x):
    assert GATE.wait(30)
    return x


def out_and_in(x):
    secede()
    secede()
    rejoin()
    rejoin()
    return x


def meet(x):
    """Returns when two of them execute at the same time."""
    BOTH.wait(30)
    return x


FUNCTIONS = {1: note, 2: block, 3: out_and_in, 4: meet}


class Stage:
    def __init__(self, nthreads):
        self.outcomes = []
        self.changed = asyncio.Event()
        functions = FunctionTable()
        functions.learn(list(FUNCTIONS), [dumps_function(function) for function in FUNCTIONS.values()])
        self.pool = ThreadPool(nthreads, asyncio.get_running_loop(), self.hear, functions, Store({}), None)

    def hear(self, outcomes):
        self.outcomes += outcomes
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def done(self):
        return [outcome[0] for outcome in self.outcomes if type(outcome) is tuple]


def spec(id, function=1, priority=0, **options):
    return Execute(id, f"k{id}", 1, function, dumps_call((id,), {})[0], (0.0, 0.0, priority), **options)


def play(scene, nthreads=1):
    async def main():
        seen.clear()
        GATE.clear()
        stage = Stage(nthreads)
        try:
            await scene(stage)
        finally:
            GATE.set()
            assert await stage.pool.close(30)

    asyncio.run(main())


def test_the_most_urgent_goes_first_however_it_comes():
    async def scene(stage):
        stage.pool.pause()
        stage.pool.offer([spec(id, priority=id) for id in range(40, 60)])
        stage.pool.offer([spec(5, priority=5)])
        stage.pool.offer([spec(id, priority=id) for id in range(39, 9, -1)])
        stage.pool.offer([spec(id, priority=id) for id in range(60, 80)])
        assert stage.pool.queued == 71
        stage.pool.resume()
        await stage.until(lambda: len(stage.done()) == 71)
        assert seen == [5, *range(10, 80)]

    play(scene)


def test_long_queues_are_let_go_of_on_the_way():
    async def scene(stage):
        stage.pool.offer([spec(id, priority=id) for id in range(1, 5001)])
        await stage.until(lambda: len(stage.done()) == 5000)
        assert seen == list(range(1, 5001))

    play(scene)


def test_what_was_taken_back_does_not_run_unless_it_is_offered_again():
    async def scene(stage):
        stage.pool.pause()
        stage.pool.offer([spec(1), spec(2)])
        assert stage.pool.take_back(1) and stage.pool.take_back(2)
        assert not stage.pool.take_back(1)
        stage.pool.offer([spec(2)])
        stage.pool.offer([spec(3)])
        stage.pool.resume()
        await stage.until(lambda: len(stage.done()) == 2)
        assert sorted(seen) == [2, 3]

    play(scene)


def test_no_more_threads_than_asked_for():
    async def scene(stage):
        stage.pool.offer([spec(id, 2) for id in range(1, 6)])
        while len(stage.pool.running()) < 2:
            await asyncio.sleep(0)
        assert stage.pool.queued == 3
        GATE.set()
        await stage.until(lambda: len(stage.done()) == 5)

    play(scene, nthreads=2)


def test_seceding_twice_is_seceding_once_and_places_do_not_multiply():
    async def scene(stage):
        stage.pool.offer([spec(id, 3) for id in range(1, 21)])
        await stage.until(lambda: len(stage.done()) == 20)
        assert sum(type(outcome) is ExecutionsSeceded for outcome in stage.outcomes) == 20
        stage.pool.offer([spec(id, 2) for id in range(30, 33)])
        while len(stage.pool.running()) < 2:
            await asyncio.sleep(0)
        assert stage.pool.queued == 1

    play(scene, nthreads=2)


def test_a_value_that_went_before_the_start_is_no_failure_of_the_task():
    async def scene(stage):
        from dask._task_spec import Task, TaskRef

        from treadle.serialize.spec import dumps_node

        payload, _ = dumps_node(Task("t", note, TaskRef("gone")))
        stage.pool.offer([Execute(1, "t", 1, 0, payload, (0.0, 0.0, 0), ["gone"])])
        await stage.until(lambda: stage.outcomes)
        assert stage.outcomes == [ExecutionUnready(1)]

    play(scene)


def test_a_function_that_is_not_known_is_the_tasks_failure():
    async def scene(stage):
        stage.pool.offer([spec(1, 99)])
        await stage.until(lambda: stage.outcomes)
        assert isinstance(stage.outcomes[0], ExecutionFailed)

    play(scene)


def test_small_values_go_along_where_that_is_asked():
    async def scene(stage):
        stage.pool.offer([spec(1), spec(2, eager=True)])
        await stage.until(lambda: len(stage.done()) == 2)
        assert [pickle.loads(outcome[6]) if outcome[6] else None for outcome in sorted(stage.outcomes)] == [None, 2]

    play(scene)


def test_two_offers_in_quick_succession_run_in_two_threads():
    async def scene(stage):
        # There is one thread, and it waits.
        stage.pool.offer([spec(0)])
        await stage.until(lambda: stage.done() == [0])
        async with asyncio.timeout(30):
            while not stage.pool._idle:
                await asyncio.sleep(0)
        before = sys.getswitchinterval()
        sys.setswitchinterval(10)
        try:
            # The second comes before the thread has woken up for the first.
            stage.pool.offer([spec(1, 4)])
            stage.pool.offer([spec(2, 4)])
        finally:
            sys.setswitchinterval(before)
        await stage.until(lambda: len(stage.outcomes) == 3)
        assert sorted(stage.done()) == [0, 1, 2]

    play(scene, nthreads=2)
