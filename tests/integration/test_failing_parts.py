"""A part that fails within, in a client, a worker, a nanny or the journal, is named, and what depends on it does not wait in vain."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from treadle import Client, LocalCluster
from treadle.comm.security import Security
from treadle.exceptions import CoreFailedError, FutureCancelledError, KilledWorker
from treadle.journal.writer import Writer
from treadle.messages.client_scheduler import KeysInMemory
from treadle.nanny.server import Nanny
from treadle.nanny.supervisor import Supervisor
from treadle.scheduler.server import Scheduler
from treadle.utils.status import Status
from treadle.worker.server import Worker
from treadle.worker.transitions.machine import WorkerTransitions

LIMIT_S = 60


def add_one(number: int) -> int:
    return number + 1


def test_ledger_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        ledger = client.session.ledger
        handle = ledger.handle

        def fail(message: Any, wake: Any) -> None:
            if isinstance(message, KeysInMemory):
                raise IndexError("no such row")
            handle(message, wake)

        monkeypatch.setattr(type(ledger), "handle", lambda self, message, wake: fail(message, wake))
        future = client.submit(add_one, 1)
        with pytest.raises(CoreFailedError, match="no such row"):
            future.result(timeout=LIMIT_S)
        assert client.status == "closed"
        with pytest.raises(RuntimeError, match="no such row"):
            client.submit(add_one, 2)
        monkeypatch.undo()
        with Client(cluster) as another:
            assert another.submit(add_one, 3).result(timeout=LIMIT_S) == 4


def test_core_of_a_worker_in_the_clusters_process(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = WorkerTransitions.handle
    failures = [KeyError("no such task")]

    def fail(self: WorkerTransitions, events: list[object], now: float) -> Any:
        if failures and any(type(event).__name__ == "ComputeTasks" for event in events):
            raise failures.pop()
        return handle(self, events, now)

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        monkeypatch.setattr(WorkerTransitions, "handle", fail)
        assert client.gather(client.map(add_one, range(10))) == list(range(1, 11))
        assert not failures


def test_core_of_a_worker_that_fails_again_and_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    handle = WorkerTransitions.handle

    def fail(self: WorkerTransitions, events: list[object], now: float) -> Any:
        if any(type(event).__name__ == "ComputeTasks" for event in events):
            raise KeyError("no such task")
        return handle(self, events, now)

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        monkeypatch.setattr(WorkerTransitions, "handle", fail)
        future = client.submit(add_one, 1)
        deadline = time.monotonic() + LIMIT_S
        while cluster.worker_spec and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not cluster.worker_spec and "failed 4 times within 60 s: KeyError: 'no such task'" in caplog.text
        # What each of them has met with is not tried a fifth time, and nothing else has suffered.
        with pytest.raises(KilledWorker):
            future.result(timeout=LIMIT_S)
        monkeypatch.undo()
        cluster.scale(1)
        assert client.submit(add_one, 2).result(timeout=LIMIT_S) == 3


def test_core_of_a_worker_that_a_nanny_watches() -> None:
    def sabotage() -> int:
        from treadle.worker.transitions.machine import WorkerTransitions

        def fail(self: Any, events: list[object], now: float) -> Any:
            raise KeyError("no such task")

        WorkerTransitions.handle = fail  # type: ignore[method-assign]
        return os.getpid()

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True) as cluster, Client(cluster) as client:
        pids = set(client.run(sabotage).values())
        assert client.submit(add_one, 1).result(timeout=LIMIT_S) == 2
        assert pids.isdisjoint(client.run(os.getpid).values())


def test_thread_of_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        security = Security.temporary()
        async with (
            Scheduler(security=security, journal=tmp_path) as scheduler,
            Worker(scheduler.address, security=security),
            Client(scheduler.address, asynchronous=True, security=security) as client,
        ):
            assert await client.submit(add_one, 1) == 2

            def fail(self: Writer, records: Any) -> Any:
                raise ZeroDivisionError("a fault")

            monkeypatch.setattr(Writer, "_pack", fail)
            async with asyncio.timeout(LIMIT_S):
                for number in range(2, 1_000_000):
                    try:
                        assert await client.submit(add_one, number) == number + 1
                    except FutureCancelledError as error:
                        assert error.reason == "journal-failed" and error.msg is not None and "its writer has failed" in error.msg
                        break
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert "treadle-journal has failed: ZeroDivisionError" in caplog.text


def test_watcher_of_a_nanny(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(self: Supervisor, process: Any) -> None:
        raise OSError("the pipe is broken")

    monkeypatch.setattr(Supervisor, "_see_its_end", fail)

    async def run() -> None:
        security = Security.temporary()
        async with Scheduler(security=security) as scheduler:
            nanny = await Nanny(scheduler.address, security=security, nthreads=1)
            process = nanny.process
            async with asyncio.timeout(LIMIT_S):
                await nanny.finished()
                while scheduler.workers:
                    await asyncio.sleep(0.01)
            assert nanny.failure is not None and "watcher of worker process" in nanny.failure and "the pipe is broken" in nanny.failure
            assert nanny.status is Status.closed and not nanny.is_alive()
            assert process is None or not process.is_alive()

    asyncio.run(run())
    assert "closes its worker and ends" in caplog.text


def test_housekeeping_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with Scheduler(security=Security.temporary(), delete_interval="10ms", idle_timeout="100ms") as scheduler:
            looks = iter([ValueError("a fault"), ValueError("another"), None])

            def look(now: float) -> None:
                error = next(looks, None)
                if error is not None:
                    raise error

            monkeypatch.setattr(scheduler._liveness, "look", look)
            async with asyncio.timeout(LIMIT_S):
                await scheduler.finished()
            assert scheduler.failure is None

    asyncio.run(run())
    assert caplog.text.count("housekeeping failed, and goes on") == 2


def test_a_question_that_cannot_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its asker hears that; what others have said in the same turn counts."""
    from treadle.scheduler import queries

    def fail(core: Any, options: Any) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setitem(queries.SUBJECTS, "nthreads", fail)
    monkeypatch.setitem(queries.SUBJECTS, "who_has", lambda core, options: object())
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        with pytest.raises(KeyError, match="no such thing"):
            client.nthreads()
        with pytest.raises(TypeError, match="the answer cannot be sent"):
            client.who_has()
        assert client.submit(add_one, 1).result(timeout=LIMIT_S) == 2
