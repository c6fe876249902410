"""A scheduler with a journal, and parties that speak the protocol by hand. A copy of the directory is what a power failure leaves."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import dask
import pytest

from treadle.comm.interface import Comm, Introduction, Role
from treadle.comm.registry import connect
from treadle.comm.security import Security, find_secret
from treadle.config import secret_settings
from treadle.exceptions import JournalError
from treadle.journal import writer
from treadle.journal.directory import Directory
from treadle.journal.format import Header, pack_header
from treadle.messages.base import TaskError, WorkerIdentity
from treadle.messages.client_scheduler import (
    ClientRefused,
    ClientReply,
    ClientWelcome,
    ConfirmKeys,
    DefineFunctions,
    FireAndForget,
    KeysCancelled,
    KeysErred,
    KeysInMemory,
    KeysPending,
    KeysScattered,
    Query,
    Received,
    RegisterClient,
    ReleaseKeys,
    SchedulerClosing,
    Sent,
    Shutdown,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, decode_scheduler_to_worker, encode
from treadle.messages.worker_scheduler import (
    CloseWorker,
    ComputeTasks,
    DropKeys,
    Inventory,
    RegisterWorker,
    TaskErred,
    TasksErred,
    TasksFinished,
    WorkerWelcome,
)
from treadle.scheduler.server import Scheduler
from treadle.scheduler.transitions.records import MEMORY
from treadle.scheduler.transitions.state import HOLDING, STEADY

SECURITY = Security.temporary()
LIMIT_S = 60


class Party:
    """One end of a stream to the scheduler."""

    def __init__(self, comm: Comm, decode: Any) -> None:
        self.comm = comm
        self.inbox: list[Any] = []
        self._changed = asyncio.Event()

        def on_frame(body: Any, buffers: list[Any]) -> None:
            self.inbox += decode(body)
            self._changed.set()

        comm.start(on_frame, lambda error: self._changed.set())

    def send(self, *messages: Any, buffers: tuple[bytes, ...] = ()) -> None:
        self.comm.send(encode(messages), buffers)

    async def received(self, sequence: int) -> None:
        """Its frames up to that one are acknowledged."""
        await self.get(Received, lambda message: message.sequence == sequence)

    async def get(self, kind: type, matches: Callable[[Any], bool] = lambda message: True) -> Any:
        """The first message of that kind for which that holds; it and those before it are taken out."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for at, message in enumerate(self.inbox):
                    if type(message) is kind and matches(message):
                        del self.inbox[: at + 1]
                        return message
                assert not self.comm.closed, f"closed while waiting for {kind.__name__}; there is {self.inbox}"
                self._changed.clear()
                await self._changed.wait()


async def party(scheduler: Scheduler, role: Role, decode: Any) -> Party:
    secret = find_secret(SECURITY, secret_settings()).value
    return Party(await connect(scheduler.address, Introduction(role, secrets.token_bytes(16)), secret=secret, timeout_s=LIMIT_S), decode)


async def a_client(scheduler: Scheduler, number: int = 0, id: str = "c") -> tuple[Party, ClientWelcome]:
    client = await party(scheduler, Role.CLIENT, decode_scheduler_to_client)
    client.send(RegisterClient(id, {}, number))
    return client, await client.get(ClientWelcome)


async def a_worker(scheduler: Scheduler, name: str = "w", inventory: Inventory | None = None) -> tuple[Party, WorkerWelcome]:
    worker = await party(scheduler, Role.WORKER, decode_scheduler_to_worker)
    worker.send(RegisterWorker(WorkerIdentity(f"id of {name}", f"tcp://{name}:1", name, "h", 4, 0, {}, 1, "", {}, None), inventory))
    return worker, await worker.get(WorkerWelcome)


def inventory(held: dict[int, str], executing: dict[int, tuple[str, int]] | None = None, functions: tuple[int, ...] = ()) -> Inventory:
    count = len(held)
    running = executing or {}
    return Inventory(
        ids=list(held),
        keys=list(held.values()),
        nbytes=[8] * count,
        types=[0] * count,
        type_names=["int"],
        fresh=[],
        assigned=list(running),
        assigned_keys=[key for key, _ in running.values()],
        attempts=[attempt for _, attempt in running.values()],
        stages=[1] * len(running),
        erred=[],
        fetching=[],
        functions=list(functions),
        peers=[],
        status="running",
    )


def finished(compute: ComputeTasks, ids: list[int]) -> TasksFinished:
    attempts = [compute.attempts[compute.ids.index(id)] for id in ids]
    count = len(ids)
    return TasksFinished(ids, attempts, [8] * count, [0] * count, ["int"], [1.0] * count, [1.001] * count)


@asynccontextmanager
async def a_scheduler(journal: Path | None, **options: Any) -> AsyncIterator[Scheduler]:
    async with Scheduler(security=SECURITY, port=0, validate=True, journal=journal, **options) as scheduler:
        yield scheduler


def copied(journal: Path) -> Path:
    """As it is now on disk."""
    copy = journal.with_name(journal.name + "'")
    shutil.copytree(journal, copy)
    return copy


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


def submission(number: int, count: int, first: int = 1, payload: bytes = b"p") -> list[Any]:
    ids = [number << 32 | (first + n) for n in range(count)]
    return [SubmitTasks(1, ids, [f"k-{first + n}" for n in range(count)], [number << 32 | 1] * count, [payload] * count)]


def test_what_was_acknowledged_outlives_the_scheduler(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            worker, worker_welcome = await a_worker(scheduler)
            function = number << 32 | 1
            client.send(DefineFunctions([function], ["f"], [b"body"]), *submission(number, 4), Sent(1, True))
            ids = [number << 32 | n for n in (1, 2, 3, 4)]
            compute = await worker.get(ComputeTasks)
            assert compute.ids == ids
            worker.send(finished(compute, ids[:1]))
            worker.send(TasksErred([TaskErred(ids[1], compute.attempts[1], TaskError(b"", b"", "it failed", ""), 1.0, 2.0)]))
            await client.get(KeysErred)
            client.send(ReleaseKeys([ids[3]]), Sent(2, True))
            await client.received(2)

            after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j")))
            assert {key: task.state for key, task in after.tasks.items()}.keys() == {"k-1", "k-2", "k-3"}
            # The client comes back: its ids mean what they meant, and it hears where all stands.
            again, second = await a_client(after, number)
            assert (second.number, second.known, second.received) == (number, True, 2)
            again.send(ConfirmKeys(ids[:3]), Sent(3, True))
            assert (await again.get(KeysInMemory)).ids == ids[:1]
            assert (await again.get(KeysErred)).error.exception_text == "it failed"
            assert (await again.get(KeysPending)).ids == ids[2:3]
            # So does the worker: what it executes is not given to it, nor to another, a second time.
            other, _ = await a_worker(after, "other")
            back, third = await a_worker(after, "w", inventory({ids[0]: "k-1"}, {ids[2]: ("k-3", compute.attempts[2])}, (function,)))
            assert (third.number, third.known) == (worker_welcome.number, True)
            assert after.transitions.state.phase == STEADY
            compute = await back.get(ComputeTasks)
            assert compute.ids == [ids[2]]
            back.send(finished(compute, compute.ids))
            assert (await again.get(KeysInMemory)).ids == [ids[2]]
            assert not [message for message in other.inbox if isinstance(message, ComputeTasks)]

    asyncio.run(scene())


def test_nothing_is_assigned_before_the_workers_are_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            worker, _ = await a_worker(scheduler)
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 2), Sent(1, True))
            await worker.get(ComputeTasks)
            await client.received(1)

            with dask.config.set({"treadle.scheduler.recovery-grace": "500ms"}):
                after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j")))
            state = after.transitions.state
            other, _ = await a_worker(after, "other")
            query, _ = await a_client(after, id="d")
            query.send(Query(1, "scheduler_info", {}))
            await query.get(ClientReply)
            assert state.phase == HOLDING
            assert not other.inbox
            # It does not come back in time.
            compute = await other.get(ComputeTasks)
            assert state.phase == STEADY
            assert sorted(compute.ids) == [number << 32 | 1, number << 32 | 2]
            other.send(finished(compute, compute.ids))
            await until(lambda: after.transitions.statistics()["tasks"]["memory"] == 2)

    asyncio.run(scene())


@pytest.mark.parametrize("first_s", [1.0, 1e9])
def test_the_time_without_a_scheduler_counts_for_nobody(tmp_path: Path, first_s: float) -> None:
    """Nor does it matter what the clock of another machine, or of one that was started anew, says."""

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            ahead_s = first_s - asyncio.get_running_loop().time()
            scheduler._clock_offset_s = ahead_s
            client, welcome = await a_client(scheduler)
            number = welcome.number
            worker, worker_welcome = await a_worker(scheduler)
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 1), Sent(1, True))
            await worker.get(ComputeTasks)
            await client.received(1)

            after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j"), delete_interval="10ms"))
            other, _ = await a_worker(after, "other")
            for turn in range(5):
                # Time passes for the core, if not much.
                now = after.transitions.state.now
                await until(lambda now=now: after.transitions.state.now > now)  # type: ignore[misc]
                assert abs(now - asyncio.get_running_loop().time() - ahead_s) < 1000, turn
            assert after.transitions.state.phase == HOLDING
            assert [state.number for state in after.transitions.state.absent_workers] == [worker_welcome.number]
            assert not other.inbox

    asyncio.run(scene())


def test_work_that_nobody_waits_for_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            ids = [number << 32 | n for n in (1, 2)]
            worker, _ = await a_worker(scheduler)
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 2), FireAndForget(ids), Sent(1, True))
            compute = await worker.get(ComputeTasks)
            worker.send(finished(compute, ids[:1]))
            await client.get(KeysInMemory)
            client.send(ReleaseKeys(ids), Sent(2, True))
            await client.received(2)

            # The end: everybody leaves, only the work is left.
            await scheduler.close(for_good=True)
            after = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            assert not after.clients and not after.workers
            assert list(after.tasks) == ["k-2"]
            other, _ = await a_worker(after, "other")
            compute = await other.get(ComputeTasks)
            assert compute.ids == ids[1:]
            other.send(finished(compute, compute.ids))
            await until(lambda: not after.tasks)

    asyncio.run(scene())


def test_a_scheduler_that_closes_is_waited_for_by_all_and_what_they_said_last_is_on_disk(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            worker, worker_welcome = await a_worker(scheduler)
            number = welcome.number
            ids = [number << 32 | n for n in (1, 2)]
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 2), Sent(1, True))
            compute = await worker.get(ComputeTasks)
            worker.send(finished(compute, ids[:1]))
            await client.get(KeysInMemory)

            await scheduler.close()
            await until(lambda: client.comm.closed and worker.comm.closed)
            assert not [
                message for party in (client, worker) for message in party.inbox if isinstance(message, (SchedulerClosing, CloseWorker))
            ]
            after = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            again, second = await a_client(after, number)
            assert (second.number, second.known, second.received) == (number, True, 1)
            _, third = await a_worker(after, "w", inventory({ids[0]: "k-1"}, {ids[1]: ("k-2", compute.attempts[1])}, (number << 32 | 1,)))
            assert (third.number, third.known) == (worker_welcome.number, True)
            again.send(ConfirmKeys(ids), Sent(2, True))
            assert (await again.get(KeysInMemory)).ids == ids[:1]

            # When a client says that this is the end, it is.
            again.send(Shutdown())
            await again.get(SchedulerClosing)
            await after.finished()
            last = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            assert not last.clients and not last.workers and not last.tasks

    asyncio.run(scene())


def test_what_comes_while_a_scheduler_closes_is_for_the_next_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            closing = asyncio.ensure_future(scheduler.close())
            await asyncio.sleep(0)
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 2), Sent(1, True))
            await closing
            assert not [message for message in client.inbox if isinstance(message, (Received, SchedulerClosing))]
            after = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            _again, second = await a_client(after, number)
            assert (second.number, second.known, second.received) == (number, True, 0)
            assert not after.tasks

    asyncio.run(scene())


def test_buffers_of_payloads_are_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            big = os.urandom(3_000_000)
            message = SubmitTasks(1, [number << 32 | 1], ["big"], [0], [b"p"], buffers=[(0, 2)])
            client.send(message, Sent(1, True), buffers=(big, b"small"))
            await client.received(1)
            after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j")))
            buffers = after.tasks["big"].buffers
            assert buffers is not None
            assert [bytes(buffer) for buffer in buffers] == [big, b"small"]

    asyncio.run(scene())


def test_scattered_data_is_dropped_when_the_journal_says_that_nobody_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else a scheduler that dies before would leave another one that still wants it, and a worker that has it no more.
    disk_works = threading.Event()
    disk_works.set()
    real = writer._sync

    def sync(file: int) -> None:
        assert disk_works.wait(LIMIT_S)
        real(file)

    monkeypatch.setattr(writer, "_sync", sync)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            stack.callback(disk_works.set)
            client, welcome = await a_client(scheduler)
            worker, worker_welcome = await a_worker(scheduler)
            recipe, data, derived, further = [welcome.number << 32 | n for n in (1, 100, 101, 102)]
            client.send(DefineFunctions([welcome.number << 32 | 1], ["f"], [b"body"]), *submission(welcome.number, 1))
            client.send(KeysScattered([data], ["data"], [[worker_welcome.number]], [8], ["int"]))
            ids, keys, needs = [derived, further], ["derived", "further"], [[data], [derived]]
            client.send(SubmitTasks(2, ids, keys, [0, 0], [b"call", b"call"], needs), Sent(1, True))
            left = {recipe, derived, further}
            while left:
                compute = await worker.get(ComputeTasks)
                worker.send(finished(compute, compute.ids))
                left -= set(compute.ids)
            await client.received(1)
            await until(lambda: scheduler.tasks["k-1"].state == MEMORY and scheduler.tasks["further"].state == MEMORY)
            disk_works.clear()
            client.send(ReleaseKeys([data, recipe, derived, further]), Sent(2, True))
            # What can be made again goes at once; not so what has come of the data.
            assert (await worker.get(DropKeys)).ids == [recipe]
            assert not scheduler.tasks
            assert not [message for message in worker.inbox if isinstance(message, DropKeys)]
            disk_works.set()
            assert sorted((await worker.get(DropKeys)).ids) == [data, derived, further]
            await client.received(2)

    asyncio.run(scene())


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("knows_worker", [True, False])
@pytest.mark.parametrize("worker_first", [True, False])
def test_data_survives_whose_news_did_not_reach_the_disk(tmp_path: Path, knows_worker: bool, worker_first: bool, fresh: bool) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            client.send(FireAndForget([]), Sent(1, True))
            await client.received(1)
            journal = copied(tmp_path / "j")
            _worker, worker_welcome = await a_worker(scheduler)
            if knows_worker:
                client.send(FireAndForget([]), Sent(2, True))
                await client.received(2)
                shutil.rmtree(journal)
                journal = copied(tmp_path / "j")
            data = welcome.number << 32 | 100
            # A fresh one is named with the number that its worker had with a scheduler before this one.
            number = worker_welcome.number + 1000 * fresh
            scattered = KeysScattered([data], ["data"], [[number]], [8], ["int"])

            after = await stack.enter_async_context(a_scheduler(journal))

            async def worker_comes() -> Party:
                found = inventory({data: "data"})
                found.fresh = [data] * fresh
                return (await a_worker(after, "w", found))[0]

            async def client_comes() -> None:
                again, back = await a_client(after, welcome.number)
                assert back.known
                again.send(scattered, ConfirmKeys([data]), Sent(3, True))
                await until(lambda: "data" in after.tasks)

            if worker_first:
                worker = await worker_comes()
                await client_comes()
            else:
                await client_comes()
                worker = await worker_comes()
            await until(lambda: after.tasks["data"].state == MEMORY)
            assert [holder.name for holder in after.tasks["data"].who_has] == ["w"]
            assert not [message for message in worker.inbox if isinstance(message, DropKeys)]

    asyncio.run(scene())


def test_a_journal_that_grows_is_compacted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack:
            with dask.config.set({"treadle.scheduler.journal-compaction": "100kB"}):
                scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 3), Sent(1))
            journal = scheduler._journal
            assert journal is not None
            sent = 1
            while journal.compactions < 2:
                sent += 1
                client.send(*submission(number, 1, 100 + sent, b"x" * 20_000), ReleaseKeys([number << 32 | (100 + sent)]), Sent(sent, True))
                await client.received(sent)
            size = sum(path.stat().st_size for path in (tmp_path / "j").iterdir())
            assert size < 20_000 * sent
            after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j")))
            assert list(after.tasks) == ["k-1", "k-2", "k-3"]
            _again, second = await a_client(after, number)
            assert (second.known, second.received) == (True, sent)

    asyncio.run(scene())


def test_while_the_disk_is_full_submissions_are_refused_and_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.journal.writer.RETRY_S", 0.01)
    real = os.write
    full = False

    def write(file: int, data: Any) -> int:
        if full and os.fstat(file).st_size and stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(28, "No space left on device")
        return real(file, data)

    async def scene() -> None:
        nonlocal full
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(a_scheduler(tmp_path / "j"))
            client, welcome = await a_client(scheduler)
            number = welcome.number
            worker, _ = await a_worker(scheduler)
            client.send(DefineFunctions([number << 32 | 1], ["f"], [b"body"]), *submission(number, 1), Sent(1, True))
            compute = await worker.get(ComputeTasks)
            await client.received(1)
            full = True
            worker.send(finished(compute, compute.ids))
            await client.get(KeysInMemory)
            refusal = await client.get(ClientRefused)
            assert refusal.exception == "JournalError" and "No space left on device" in refusal.text
            client.send(*submission(number, 1, 2), Sent(2, True))
            cancelled = await client.get(KeysCancelled)
            assert cancelled.ids == [number << 32 | 2] and "No space left on device" in cancelled.msg
            full = False
            await until(lambda: scheduler._journal is not None and scheduler._journal.failure is None)
            client.send(*submission(number, 1, 3), Sent(3, True))
            assert (await worker.get(ComputeTasks)).keys == ["k-3"]
            await client.received(3)
            after = await stack.enter_async_context(a_scheduler(copied(tmp_path / "j")))
            assert list(after.tasks) == ["k-1", "k-3"]

    monkeypatch.setattr(os, "write", write)
    asyncio.run(scene())


def test_a_journal_that_cannot_be_used_is_an_error_before_it_listens(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    header = bytearray(pack_header(Header("S", 1, 1, False, "0")))
    header[8] = 99
    (other / "0000000001.journal").write_bytes(header)
    (tmp_path / "file").write_bytes(b"")
    taken = Directory(tmp_path / "taken")

    async def scene() -> None:
        for name, text in [("other", "of version 99"), ("file", "cannot be used"), ("taken", "in use by another")]:
            scheduler = Scheduler(security=SECURITY, port=0, journal=tmp_path / name)
            with pytest.raises(JournalError, match=text):
                await scheduler
            assert not scheduler.listeners

    asyncio.run(scene())
    taken.close()
