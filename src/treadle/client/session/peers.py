"""A client's connections to workers: one each, kept open, many requests under way on each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from treadle.client.session.requests import refusal
from treadle.comm.addressing import parse_address
from treadle.comm.interface import Buffer, Introduction, Role
from treadle.comm.peer import PeerConnection
from treadle.comm.registry import connect
from treadle.exceptions import CommClosedError
from treadle.messages.base import Block, TaskError
from treadle.messages.worker_worker import Busy, Data, DataStored, GetData, PeerRefused, PutData

#: Seconds to wait when a worker is busy: at first, and at most.
BUSY_S: Final = 0.01
BUSY_MOST_S: Final = 1.0
#: Seconds to try to reach a worker once.
CONNECT_S: Final = 5.0
#: Ids asked for in one request.
IDS_PER_REQUEST: Final = 50_000


@dataclass
class Fetched:
    """What a worker answered: blocks with their buffers, ids that it does not have, and values that could not be pickled."""

    blocks: list[tuple[Block, list[Buffer]]] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    failed: list[tuple[int, TaskError]] = field(default_factory=list)


class PeerPool:
    """Connections by address; of those that are idle, the ones used longest ago are closed when there are too many."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, session: bytes, limit: int) -> None:
        self._loop = loop
        self._introduction = Introduction(Role.PEER, session)
        #: The cluster's, once it is known; nobody asks for data before.
        self.secret = b""
        self._limit = limit
        #: Of workers in this process: where it reaches them without leaving it, by the addresses that others use.
        self.near: dict[str, str] = {}
        #: In the order of their last use.
        self._connections: dict[str, asyncio.Task[PeerConnection]] = {}

    def is_here(self, address: str) -> bool:
        """Whether a worker is in this process, so that it gives and takes values themselves."""
        return parse_address(self.near.get(address, address))[0] == "inproc"

    async def get(self, address: str, ids: Sequence[int]) -> Fetched:
        """Fetch the values of these ids from a worker, in as many answers as it needs. Raises OSError that names it."""
        fetched = Fetched()
        remaining = list(ids)
        while remaining:
            asked = remaining[:IDS_PER_REQUEST]
            answer, buffers = await self._ask(address, GetData(0, asked))
            if not isinstance(answer, Data):
                raise CommClosedError(f"worker {address} answered a request for data by {type(answer).__name__}")
            start = 0
            covered: set[int] = set(answer.missing)
            for block in answer.blocks:
                fetched.blocks.append((block, buffers[start : start + block.buffers]))
                start += block.buffers
                covered.update(block.ids)
            for id, error in answer.failed:
                covered.add(id)
                fetched.failed.append((id, error))
            fetched.missing.extend(answer.missing)
            if not covered:
                # An answer of nothing would be asked for for ever.
                fetched.missing.extend(remaining)
                break
            remaining = [id for id in remaining if id not in covered]
        return fetched

    async def put(self, address: str, message: PutData, buffers: Sequence[Buffer]) -> DataStored:
        """Have a worker keep values. Raises OSError that names it, or what it says in its refusal."""
        answer, _ = await self._ask(address, message, buffers)
        if isinstance(answer, PeerRefused):
            raise refusal(answer.exception, f"worker {address} did not take the data: {answer.text}")
        if not isinstance(answer, DataStored):
            raise CommClosedError(f"worker {address} answered an offer of data by {type(answer).__name__}")
        return answer

    async def _ask(self, address: str, message: GetData | PutData, buffers: Sequence[Buffer] = ()) -> tuple[Any, list[Buffer]]:
        pause_s = BUSY_S
        while True:
            connection = await self._connection(address)
            answer, beside = await connection.ask(message, buffers)
            if isinstance(answer, PeerRefused) and isinstance(message, GetData):
                raise refusal(answer.exception, f"worker {address} refused: {answer.text}")
            if not isinstance(answer, Busy):
                return answer, beside
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, BUSY_MOST_S)

    async def _connection(self, address: str) -> PeerConnection:
        task = self._connections.pop(address, None)
        if task is not None and task.done() and (task.cancelled() or task.exception() or task.result().comm.closed):
            task = None
        if task is None:
            self._close_idle()
            task = self._loop.create_task(self._connect(address))
        self._connections[address] = task
        # Several may wait for it: one that is cancelled must not cancel it for the others.
        return await asyncio.shield(task)

    async def _connect(self, address: str) -> PeerConnection:
        comm = await connect(self.near.get(address, address), self._introduction, secret=self.secret, timeout_s=CONNECT_S)
        return PeerConnection(comm)

    def _close_idle(self) -> None:
        if len(self._connections) < self._limit:
            return
        for address, task in list(self._connections.items()):
            if len(self._connections) < self._limit:
                return
            if task.done() and not task.cancelled() and not task.exception() and task.result().idle:
                task.result().comm.abort()
                del self._connections[address]

    def close(self) -> None:
        """Drop all connections."""
        connections, self._connections = self._connections, {}
        for task in connections.values():
            if not task.done():
                task.cancel()
            elif not task.cancelled() and not task.exception():
                task.result().comm.abort()
