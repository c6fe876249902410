"""Cut connections between real parties: sessions go on, the same futures resolve, and nothing runs twice that still runs."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from types import SimpleNamespace

import dask
import pytest

from treadle.client.client import Client
from treadle.client.waiting import fire_and_forget
from treadle.comm.security import Security
from treadle.exceptions import CommClosedError, FutureCancelledError
from treadle.scheduler.server import Scheduler
from treadle.testing.proxy import Proxy
from treadle.utils.status import Status
from treadle.worker.server import Worker

LIMIT_S = 60
SECURITY = Security(secret="s" * 32)

#: How often what was called; events that tasks wait for. Workers are in this process.
CALLS = Counter()
GATES = {}


def step(x, wait_s=0.0):
    CALLS[x] += 1
    time.sleep(wait_s)
    return x + 1


def gated(name):
    CALLS[name] += 1
    assert GATES[name].wait(LIMIT_S)
    return name.upper()


async def lingering(name):
    CALLS[name] += 1
    await until(GATES[name].is_set)
    return name.upper()


def add(*parts):
    return sum(parts)


async def until(condition):
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


class Scene:
    """A scheduler, workers that reach it through one proxy, and a client that does through another."""

    def __init__(self, stack):
        self.stack = stack

    async def start(self, workers=2, **options):
        enter = self.stack.enter_async_context
        self.scheduler = await Scheduler(security=SECURITY, port=0, validate=True, **options)
        self.stack.push_async_callback(self.end)
        self.worker_side = await enter(Proxy(self.scheduler.address))
        self.client_side = await enter(Proxy(self.scheduler.address))
        self.workers = [await enter(self.worker(name)) for name in "abcd"[:workers]]
        self.client = await enter(Client(self.client_side.address, security=SECURITY, asynchronous=True, set_as_default=False))
        return self

    def worker(self, name):
        return Worker(self.worker_side.address, name=name, nthreads=1, security=SECURITY, memory_limit=0, validate=True)

    async def end(self):
        await self.scheduler.close()

    async def replace_scheduler(self, **options):
        """It dies without a word; another one takes its place, at its address."""
        port = int(self.scheduler.address.rpartition(":")[2])
        for listener in self.scheduler.listeners:
            await listener.stop()
        dead = self.scheduler
        dead.status = Status.closed
        dead._background.cancel()
        dead._house.cancel()
        for session in list(dead._sessions.by_number.values()):
            session.comm.abort()
        self.scheduler = Scheduler(security=SECURITY, host="127.0.0.1", port=port, validate=True, **options)
        async with asyncio.timeout(LIMIT_S):
            await self.scheduler


def play(test, workers=2, config=None, **options):
    async def body():
        CALLS.clear()
        GATES.clear()
        async with asyncio.timeout(2 * LIMIT_S), contextlib.AsyncExitStack() as stack:
            await test(await Scene(stack).start(workers, **options))

    settings = {"treadle.scheduler.worker-grace": "30s", "treadle.scheduler.recovery-grace": "2s", **(config or {})}
    with dask.config.set(settings):
        asyncio.run(body())


@pytest.mark.parametrize("side", ["worker_side", "client_side", "both"])
def test_cut_in_the_middle_of_a_graph(side):
    async def test(scene):
        first = scene.client.map(step, range(0, 6000, 100), wait_s=0.01, pure=False)
        second = [scene.client.submit(step, future) for future in first]
        total = scene.client.submit(add, *second)
        for _ in range(3):
            before = len(CALLS)
            await until(lambda before=before: len(CALLS) >= min(before + 15, 100))
            for name in ("worker_side", "client_side"):
                if side in (name, "both"):
                    getattr(scene, name).cut()
        assert await total == sum(range(0, 6000, 100)) + 2 * 60
        assert [await future for future in first] == [x + 1 for x in range(0, 6000, 100)]
        assert max(CALLS.values()) == 1 and len(CALLS) == 120

    play(test)


def test_tasks_run_on_while_their_worker_is_away():
    async def test(scene):
        GATES["slow"] = threading.Event()
        future = scene.client.submit(gated, "slow")
        await until(lambda: CALLS["slow"])
        scene.worker_side.refusing = True
        scene.worker_side.cut()
        (worker,) = scene.workers
        await until(lambda: not scene.scheduler.running)
        assert list(scene.scheduler.workers) == [worker.address]
        GATES["slow"].set()
        await until(lambda: worker.data)
        scene.worker_side.heal()
        assert await future == "SLOW"
        assert CALLS["slow"] == 1

    play(test, workers=1)


def test_a_worker_that_stays_away_is_given_up():
    async def test(scene):
        future = scene.client.submit(step, 1)
        assert await future == 2
        scene.worker_side.refusing = True
        scene.worker_side.cut()
        await until(lambda: not scene.scheduler.workers)
        scene.worker_side.heal()
        await until(lambda: len(scene.scheduler.workers) == 1)
        # Its value came back with it.
        assert await future == 2
        assert CALLS[1] == 1

    play(test, workers=1, config={"treadle.scheduler.worker-grace": "100ms"}, delete_interval="50ms")


def test_a_client_submits_while_it_is_away():
    async def test(scene):
        known = scene.client.submit(step, 10)
        assert await known == 11
        scene.client_side.refusing = True
        scene.client_side.cut()
        await until(lambda: scene.client.status == "connecting")
        more = scene.client.submit(step, known)
        many = scene.client.map(step, range(100, 120))
        assert known.status == "finished" and more.status == "pending"
        scene.client_side.heal()
        assert await more == 12
        assert await scene.client.gather(many) == list(range(101, 121))
        assert scene.client.status == "running"
        assert len(scene.scheduler.clients) == 1

    play(test)


def test_a_client_that_stays_away_has_no_futures():
    async def test(scene):
        GATES["never"] = threading.Event()
        future = scene.client.submit(gated, "never")
        await until(lambda: CALLS["never"])
        scene.client_side.refusing = True
        scene.client_side.cut()
        with pytest.raises(FutureCancelledError, match="scheduler-connection-lost"):
            await future
        assert scene.client.status == "closed"
        await until(lambda: not scene.scheduler.clients and not scene.scheduler.tasks)
        GATES["never"].set()

    play(
        test,
        config={"treadle.client.reconnect-grace": "200ms", "treadle.scheduler.client-grace": "400ms"},
        delete_interval="50ms",
    )


def test_fire_and_forget_outlives_its_client():
    async def test(scene):
        GATES["late"] = threading.Event()
        future = scene.client.submit(gated, "late")
        fire_and_forget(future)
        await until(lambda: CALLS["late"])
        await until(lambda: scene.scheduler.transitions.state.fire_and_forget.wants_what)
        await scene.client.close()
        await until(lambda: not scene.scheduler.clients)
        assert [task.state for task in scene.scheduler.tasks.values()]
        GATES["late"].set()
        await until(lambda: not scene.scheduler.tasks)
        assert CALLS["late"] == 1

    play(test)


def test_nothing_passes_for_a_while():
    async def test(scene):
        scene.worker_side.hold()
        scene.client_side.hold()
        futures = scene.client.map(step, range(50))
        await until(lambda: scene.client.session.unsent_bytes)
        scene.client_side.heal()
        await until(lambda: len(scene.scheduler.tasks) == 50)
        assert not CALLS
        scene.worker_side.heal()
        assert await scene.client.gather(futures) == list(range(1, 51))
        assert max(CALLS.values()) == 1

    play(test)


def test_frames_that_were_on_their_way_arrive_once():
    async def test(scene):
        futures = []
        for round in range(20):
            futures += [scene.client.submit(step, 100 * round + i) for i in range(20)]
            await asyncio.sleep(0)
            if round % 4 == 1:
                scene.client_side.hold()
            if round % 4 == 3:
                scene.client_side.cut()
                scene.client_side.heal()
        results = await scene.client.gather(futures)
        assert results == [100 * round + i + 1 for round in range(20) for i in range(20)]
        assert max(CALLS.values()) == 1

    play(test)


def test_questions_are_asked_again_and_orders_are_not():
    async def test(scene):
        GATES["order"] = threading.Event()
        order = asyncio.ensure_future(scene.client.run(lingering, "order", workers=[scene.workers[0].address]))
        await until(lambda: CALLS["order"])
        scene.client_side.hold()
        question = asyncio.ensure_future(scene.client.ncores())
        await asyncio.sleep(0.01)
        scene.client_side.cut()
        scene.client_side.heal()
        assert await question == {worker.address: 1 for worker in scene.workers}
        with pytest.raises(CommClosedError, match="may or may not"):
            await order
        GATES["order"].set()

    play(test)


def test_a_cut_order_to_a_worker_fails():
    async def test(scene):
        GATES["order"] = threading.Event()
        order = asyncio.ensure_future(scene.client.run(lingering, "order", workers=[scene.workers[0].address]))
        await until(lambda: CALLS["order"])
        scene.worker_side.cut()
        with pytest.raises(Exception, match="went away"):
            await order
        GATES["order"].set()

    play(test)


# ------------------------------------------------------------------------------------------ another scheduler


def test_held_results_survive_their_scheduler():
    async def test(scene):
        futures = scene.client.map(step, range(40))
        assert await scene.client.gather(futures) == list(range(1, 41))
        data = await scene.client.scatter({"treasure": 7})
        await scene.replace_scheduler()
        assert await scene.client.gather(futures) == list(range(1, 41))
        assert await data["treasure"] == 7
        assert max(CALLS.values()) == 1
        more = scene.client.map(step, futures)
        assert await scene.client.gather(more) == list(range(2, 42))
        assert {worker.name for worker in scene.scheduler.workers.values()} == {"a", "b"}
        del futures, more, data
        await until(lambda: not scene.scheduler.tasks and not any(worker.data for worker in scene.workers))

    play(test)


@pytest.mark.parametrize("ranges", [(9, 5), (5, 9)], ids=["below", "above"])
def test_clients_keep_their_futures_wherever_the_next_scheduler_counts_from(monkeypatch, ranges):
    drawn = iter(ranges)
    monkeypatch.setattr("treadle.scheduler.sessions.secrets", SimpleNamespace(randbelow=lambda most: next(drawn)))

    async def test(scene):
        async with Proxy(scene.scheduler.address) as second_side:
            first = scene.client
            async with Client(second_side.address, security=SECURITY, asynchronous=True, set_as_default=False) as second:
                held = [client.map(step, range(at, at + 10)) for at, client in ((0, first), (10, second))]
                assert await first.gather(held[0]) + await second.gather(held[1]) == list(range(1, 21))
                numbers = {client.id: client.number for client in scene.scheduler.clients.values()}
                second_side.refusing = True
                await scene.replace_scheduler()
                await until(lambda: scene.scheduler.clients and len(scene.scheduler.workers) == 2)
                # Who comes between the two must not be given the number of the second.
                async with Client(scene.scheduler.address, security=SECURITY, asynchronous=True, set_as_default=False) as between:
                    assert await between.submit(step, 100) == 101
                    second_side.heal()
                    await until(lambda: len(scene.scheduler.clients) == 3)
                    assert {id: scene.scheduler.clients[id].number for id in numbers} == numbers
                    assert await first.gather(first.map(step, held[0])) == list(range(2, 12))
                    assert await second.gather(second.map(step, held[1])) == list(range(12, 22))

    play(test)


def test_running_tasks_survive_their_scheduler():
    async def test(scene):
        GATES["one"] = threading.Event()
        GATES["two"] = threading.Event()
        one, two = scene.client.submit(gated, "one"), scene.client.submit(gated, "two")
        await until(lambda: CALLS["one"] and CALLS["two"])
        await until(lambda: not scene.client.session.sent)
        await scene.replace_scheduler()
        await until(lambda: len(scene.scheduler.workers) == 2 and scene.scheduler.clients)
        GATES["one"].set()
        assert await one == "ONE"
        GATES["two"].set()
        assert await two == "TWO"
        assert CALLS["one"] == CALLS["two"] == 1

    play(test)


def test_what_nobody_knows_any_more_is_cancelled():
    async def test(scene):
        GATES["first"] = threading.Event()
        first = scene.client.submit(gated, "first", workers=["a"])
        # Queued behind it, on the scheduler or in the worker, and its recipe is with the dead scheduler only.
        second = scene.client.submit(gated, "second", workers=["a"])
        await until(lambda: CALLS["first"] and not scene.client.session.sent)
        await scene.replace_scheduler()
        with pytest.raises(FutureCancelledError, match="started anew"):
            await second
        GATES["first"].set()
        assert await first == "FIRST"

    play(test, delete_interval="50ms")


def test_what_was_not_acknowledged_is_submitted_again():
    async def test(scene):
        known = scene.client.map(step, range(5))
        assert await scene.client.gather(known) == list(range(1, 6))
        scene.client_side.hold()
        more = scene.client.map(step, known)
        await asyncio.sleep(0)
        await scene.replace_scheduler()
        scene.client_side.heal()
        assert await scene.client.gather(more) == list(range(2, 7))
        assert await scene.client.gather(known) == list(range(1, 6))

    play(test)
