"""What 10,000 tasks cost a client, a scheduler and two workers, in frames, bytes and wake-ups. Never times.

Frames depend on who is faster; the bounds leave a factor for that, and are far below one for each task."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from treadle.client.client import Client
from treadle.comm.framing import frame_pieces
from treadle.comm.security import Security
from treadle.comm.tcp import TcpComm
from treadle.scheduler.server import Scheduler
from treadle.utils.loop import LoopRunner
from treadle.worker.server import Worker

TASKS = 10_000


def inc(number: int) -> int:
    return number + 1


@pytest.fixture
def client() -> Iterator[Client]:
    """Of a scheduler and two workers of one thread over TCP, on the background loop."""
    runner = LoopRunner()
    runner.start()
    security = Security.temporary()
    stack = contextlib.AsyncExitStack()

    async def start() -> str:
        scheduler = await stack.enter_async_context(Scheduler(security=security, port=0))
        for name in ("alice", "bob"):
            await stack.enter_async_context(Worker(scheduler.address, name=name, nthreads=1, security=security, memory_limit=0))
        return scheduler.address

    try:
        with Client(runner.sync(start), security=security, loop=None) as client:
            client.gather(client.map(inc, range(-500, 0)))  # durations are known from here on
            yield client
    finally:
        runner.sync(stack.aclose)
        runner.stop()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch, client: Client) -> Counter[str]:
    """Frames and their bytes on all connections, and wake-ups of loops from other threads, from here on."""
    found: Counter[str] = Counter()
    send, wake = TcpComm.send, asyncio.BaseEventLoop.call_soon_threadsafe

    def counted_send(self: TcpComm, body: Any, buffers: Any = ()) -> None:
        found["frames"] += 1
        found["bytes"] += frame_pieces(body, buffers, self._limits)[1]
        send(self, body, buffers)

    def counted_wake(self: Any, *args: Any, **options: Any) -> Any:
        found["wake-ups"] += 1
        return wake(self, *args, **options)

    monkeypatch.setattr(TcpComm, "send", counted_send)
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", counted_wake)
    return found


def test_map_and_gather(client: Client, counts: Counter[str]) -> None:
    assert client.gather(client.map(inc, range(TASKS))) == list(range(1, TASKS + 1))
    assert counts["frames"] <= TASKS / 20
    assert counts["wake-ups"] <= TASKS / 20
    # Submission, assignment, report, news, value.
    assert counts["bytes"] <= 350 * TASKS


def test_submit_one_by_one(client: Client, counts: Counter[str]) -> None:
    futures = [client.submit(inc, number, pure=False) for number in range(TASKS)]
    submitting = counts["wake-ups"]
    assert client.gather(futures) == list(range(1, TASKS + 1))
    assert submitting <= TASKS / 20
    assert counts["frames"] <= TASKS / 20
    assert counts["bytes"] <= 350 * TASKS


def test_one_round_trip(client: Client, counts: Counter[str]) -> None:
    """Submitted, assigned, finished, told; asked for and given; and what was released and dropped."""
    assert client.submit(inc, 1, pure=False).result() == 2
    assert counts["frames"] <= 12
    assert counts["wake-ups"] <= 12
