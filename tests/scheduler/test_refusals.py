"""A party that breaks the protocol is told so and dropped; what others have said in the same turn counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import nan
from typing import Any

from treadle.comm.interface import Comm, Introduction, Role
from treadle.comm.registry import connect
from treadle.comm.security import Security
from treadle.messages.client_scheduler import (
    ClientRefused,
    ClientReply,
    ClientWelcome,
    Query,
    RegisterClient,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, encode
from treadle.scheduler.server import Scheduler

LIMIT_S = 60


class Party:
    """A client that speaks the protocol by hand."""

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.inbox: list[Any] = []
        self.closed = False
        self._changed = asyncio.Event()
        comm.start(self._on_frame, self._on_closed)

    def _on_frame(self, body: Any, buffers: list[Any]) -> None:
        self.inbox += decode_scheduler_to_client(body)
        self._changed.set()

    def _on_closed(self, error: Exception | None) -> None:
        self.closed = True
        self._changed.set()

    def send(self, *messages: Any) -> None:
        self.comm.send(encode(messages))

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def got(self, kind: type) -> Any:
        await self.until(lambda: any(isinstance(message, kind) for message in self.inbox))
        return next(message for message in self.inbox if isinstance(message, kind))


async def join(scheduler: Scheduler, name: str) -> tuple[Party, int]:
    introduction = Introduction(Role.CLIENT, name.encode().ljust(16))
    party = Party(await connect(scheduler.address, introduction, secret=SECRET, timeout_s=LIMIT_S))
    party.send(RegisterClient(name, {}))
    return party, (await party.got(ClientWelcome)).number


SECRET = b"0" * 64


def test_frame_of_nonsense() -> None:
    asyncio.run(_frame_of_nonsense())


async def _frame_of_nonsense() -> None:
    async with Scheduler(security=Security(secret=SECRET), protocol="inproc") as scheduler:
        rogue, number = await join(scheduler, "rogue")
        honest, its = await join(scheduler, "honest")
        rogue.send(SubmitTasks(1, [number << 32 | 1], ["bad"], [0], [b""], priority=nan), Sent(1))
        honest.send(SubmitTasks(1, [its << 32 | 1], ["good"], [0], [b""]), Sent(1))
        refusal = await rogue.got(ClientRefused)
        assert refusal.exception == "PeerProtocolError" and ">=" in refusal.text
        await rogue.until(lambda: rogue.closed)
        honest.send(Query(1, "task_counts", {}), Sent(2))
        await honest.got(ClientReply)
        assert list(scheduler.tasks) == ["good"] and [client.id for client in scheduler.clients.values()] == ["honest"]
        rogue.comm.abort()
        await honest.comm.close()
