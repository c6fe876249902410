"""The scheduler's core fails on something: all go on with a fresh one, and whoever sent that hears the story."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from treadle import Client, LocalCluster
from treadle.comm.security import Security
from treadle.exceptions import CoreFailedError
from treadle.messages.client_scheduler import RetryKeys, SubmitTasks
from treadle.messages.scheduler_local import Tick
from treadle.scheduler import server
from treadle.scheduler.server import Scheduler
from treadle.scheduler.transitions.machine import Transitions
from treadle.utils.status import Status
from treadle.worker.server import Worker

LIMIT_S = 60


class Fragile:
    """A core that fails on some events: ``poison`` says which. ``late``: not on the event, but on what follows from all of the turn."""

    def __init__(self, core: Transitions, poison: Callable[[Any], bool], late: bool = False) -> None:
        self._core = core
        self._poison = poison
        self._late = late
        self.at = -1
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, events: list[Any], now: float) -> Any:
        for at, event in enumerate(events):
            if self._poison(event.message):
                self.failures += 1
                self._core.handle(events if self._late else events[:at], now)
                self.at = -1 if self._late else at
                raise KeyError("the heap is broken")
        return self._core.handle(events, now)


def names_poison(message: Any) -> bool:
    return isinstance(message, SubmitTasks) and "poison" in message.keys


@asynccontextmanager
async def cluster(
    monkeypatch: pytest.MonkeyPatch, poison: Callable[[Any], bool], *, late: bool = False, journal: Path | None = None
) -> AsyncIterator[tuple[Scheduler, Client]]:
    monkeypatch.setattr(server, "Transitions", lambda *arguments: Fragile(Transitions(*arguments), poison, late))
    security = Security.temporary()
    async with Scheduler(security=security, journal=journal, delete_interval="50ms") as scheduler:
        async with Worker(scheduler.address, nthreads=2, security=security), Worker(scheduler.address, nthreads=2, security=security):
            async with Client(scheduler.address, asynchronous=True, security=security) as client:
                yield scheduler, client


def wait_for(path: Path) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def add_one(number: int) -> int:
    return number + 1


@pytest.mark.parametrize("late", [False, True], ids=["on the event", "after the events"])
@pytest.mark.parametrize("with_journal", [False, True], ids=["no journal", "journal"])
def test_what_it_fails_on_is_set_aside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_journal: bool, late: bool) -> None:
    journal = tmp_path / "journal" if with_journal else None

    async def run() -> None:
        async with cluster(monkeypatch, names_poison, late=late, journal=journal) as (scheduler, client):
            before = client.map(add_one, range(20))
            assert await client.gather(before) == list(range(1, 21))
            gate = tmp_path / "gate"
            running = client.submit(wait_for, gate, key="running", pure=False)
            while "running" not in scheduler.tasks or not any(worker.executing for worker in scheduler.workers.values()):
                await asyncio.sleep(0.01)
            others = client.map(add_one, range(100, 110), batch_size=2)
            poison = client.submit(add_one, 1, key="poison")
            async with asyncio.timeout(LIMIT_S):
                with pytest.raises(CoreFailedError, match="the heap is broken") as caught:
                    await poison.result()
                assert "while it handled SubmitTasks" in str(caught.value) or late
                assert await client.submit(add_one, 41) == 42
                gate.touch()
                assert await running.result() is True
                assert await client.gather(before) == list(range(1, 21))
                if with_journal:
                    assert await client.gather(others) == list(range(101, 111))
            assert isinstance(scheduler.transitions, Fragile) and scheduler.transitions.failures == 1 + late
            assert scheduler.status is Status.running and client.status == "running"
            scheduler.validate()
            assert "poison" not in scheduler.tasks
        if with_journal:
            # What it failed on is not there for the next one.
            security = Security.temporary()
            async with Scheduler(security=security, journal=journal) as another:
                assert "poison" not in another.tasks and another.status is Status.running

    asyncio.run(run())


def test_other_calls_hear_of_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def boom() -> None:
        raise ValueError("boom")

    async def run() -> None:
        async with cluster(monkeypatch, lambda message: isinstance(message, RetryKeys)) as (_scheduler, client):
            future = client.submit(boom)
            with pytest.raises(ValueError, match="boom"):
                await future.result()
            await client.retry([future])
            async with asyncio.timeout(LIMIT_S):
                while not isinstance(await future.exception(), CoreFailedError):
                    await asyncio.sleep(0.01)
                assert await client.submit(add_one, 1) == 2

    asyncio.run(run())


def test_after_some_failures_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = threading.Event()

    def is_poison(message: Any) -> bool:
        return broken.is_set() and isinstance(message, Tick)

    async def run() -> None:
        async with cluster(monkeypatch, is_poison, journal=tmp_path) as (scheduler, client):
            done = client.submit(add_one, 1)
            assert await done == 2
            broken.set()
            async with asyncio.timeout(LIMIT_S):
                await scheduler.finished()
            assert scheduler.failure is not None and "4 times" in scheduler.failure and "the heap is broken" in scheduler.failure
            assert "\n" not in scheduler.failure
            broken.clear()
            # Nobody was told goodbye: another scheduler goes on.
            async with Scheduler(security=Security.temporary(), journal=tmp_path) as another:
                assert list(another.tasks) == [done.key]
            await client.close(timeout=0)

    asyncio.run(run())


@pytest.mark.parametrize("late", [False, True], ids=["on the event", "after the events"])
def test_a_record_that_it_fails_on_does_not_end_the_next_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: bool) -> None:
    def cannot_run(number: int) -> int:
        return number

    async def submit() -> list[str]:
        async with cluster(monkeypatch, lambda message: False, journal=tmp_path / "journal") as (_scheduler, client):
            futures = client.map(cannot_run, range(30), resources={"GPU": 1}, batch_size=3)
            poison = client.submit(cannot_run, 1, key="poison", resources={"GPU": 1})
            async with asyncio.timeout(LIMIT_S):
                await client.nthreads()
                while client.session.sent.messages():
                    await asyncio.sleep(0.01)
            # What a kill leaves.
            shutil.copytree(tmp_path / "journal", tmp_path / "copy")
            keys = [future.key for future in futures]
            del poison
            return keys

    keys = asyncio.run(submit())
    monkeypatch.setattr(server, "Transitions", lambda *arguments: Fragile(Transitions(*arguments), names_poison, late))

    async def restart() -> None:
        async with Scheduler(security=Security.temporary(), journal=tmp_path / "copy") as scheduler:
            assert list(scheduler.tasks) == keys
            scheduler.validate()

    asyncio.run(restart())


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_in_a_local_cluster(monkeypatch: pytest.MonkeyPatch, processes: bool) -> None:
    monkeypatch.setattr(server, "Transitions", lambda *arguments: Fragile(Transitions(*arguments), names_poison))
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=processes) as local, Client(local) as client:
        before = client.map(add_one, range(20))
        assert client.gather(before) == list(range(1, 21))
        with pytest.raises(CoreFailedError, match="the heap is broken"):
            client.submit(add_one, 1, key="poison").result(timeout=LIMIT_S)
        assert client.submit(add_one, 41).result(timeout=LIMIT_S) == 42
        client.wait_for_workers(2, timeout=LIMIT_S)
        assert client.gather(before) == list(range(1, 21))
        if processes:
            # Nannies are back, too: they replace what dies.
            deadline = time.monotonic() + LIMIT_S
            while len(local.scheduler._nannies.numbers) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(client.run(os.getpid, nanny=True)) == 2
        assert local.scheduler.status is Status.running
