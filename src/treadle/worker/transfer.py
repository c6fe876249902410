"""Fetch values from peers: over cached connections, several values per request, with one event for each instruction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from treadle.comm.interface import Buffer, Introduction
from treadle.comm.peer import PeerConnection
from treadle.comm.registry import connect
from treadle.exceptions import CommClosedError
from treadle.messages.base import Block, Message, TaskError
from treadle.messages.local import Fetch, FetchBusy, FetchDone, FetchFailed
from treadle.messages.worker_worker import Busy, Data, GetData, PeerRefused
from treadle.serialize.errors import dump_error
from treadle.serialize.sizes import sizeof, type_name
from treadle.serialize.values import belongs_in_a_thread
from treadle.utils.background import Background
from treadle.utils.buffers import Buffers
from treadle.worker.unpacking import Unpack

logger = logging.getLogger(__name__)

#: An unreachable peer is tried for this many seconds; then other holders are tried, or the value is computed again.
CONNECT_TIMEOUT_S: Final = 5.0
#: The pause before a broken connection is made again for the same request: the first, and the longest; it doubles each time.
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 2.0


class Fetcher:
    """Performs ``Fetch`` instructions. ``deliver`` is called, on the loop, with exactly one event for each."""

    def __init__(
        self,
        introduction: Introduction,
        secret: bytes,
        offload: Executor,
        deliver: Callable[[object], None],
        unpack: Unpack,
        max_error_length: int,
    ) -> None:
        self._introduction = introduction
        self._unpack_block = unpack
        self._secret = secret
        self._offload = offload
        self._deliver = deliver
        self._max_error_length = max_error_length
        self._connections: dict[str, PeerConnection] = {}
        self._background = Background("fetching")
        self._tasks: dict[asyncio.Task[object], Fetch] = {}

    def fetch(self, instruction: Fetch) -> None:
        task = self._background.spawn(f"from {instruction.address}", self._fetch(instruction))
        self._tasks[task] = instruction
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        """Deliver the event of a request, even if it was cancelled before it began: the core counts on one event per instruction."""
        instruction = self._tasks.pop(task)
        failed = task.cancelled() or task.exception() is not None
        self._deliver(FetchFailed(instruction.peer, instruction.ids) if failed else task.result())

    def forget(self, address: str) -> None:
        """The worker at that address left: requests to it fail."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.comm.abort()
        for task, instruction in self._tasks.items():
            if instruction.address == address:
                task.cancel()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._connections.values():
            connection.comm.abort()
        self._connections.clear()

    async def _fetch(self, instruction: Fetch) -> object:
        """Perform the instruction; the event that it ends in."""
        try:
            connection, answer, buffers = await self._ask(instruction)
            if type(answer) is Data:
                return await self._received(instruction, connection, answer, buffers)
            if type(answer) is Busy:
                return FetchBusy(instruction.peer, instruction.ids)
            if isinstance(answer, PeerRefused):
                logger.warning("%s refuses to send data: %s: %s", instruction.address, answer.exception, answer.text)
        except OSError as error:
            logger.info("cannot fetch from %s: %s", instruction.address, error)
        except Exception:
            logger.exception("fetching from %s failed", instruction.address)
        return FetchFailed(instruction.peer, instruction.ids)

    async def _ask(self, instruction: Fetch) -> tuple[PeerConnection, Message, list[Buffer]]:
        """The peer's answer. Uses a new connection when one breaks: the scheduler decides whether the peer is gone, see ``forget``.

        Raises OSError when the peer cannot be reached for CONNECT_TIMEOUT_S, or breaks one connection after the other.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            connection = await self._connection(instruction.address)
            try:
                return connection, *await connection.ask(GetData(0, instruction.ids))
            except CommClosedError:
                if pause_s > _LONGEST_PAUSE_S:
                    raise
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _connection(self, address: str) -> PeerConnection:
        """A connection to the peer, which is kept open. The core has at most one request to a peer, so only one is made at a time."""
        connection = self._connections.get(address)
        if connection is None or connection.comm.closed:
            comm = await connect(address, self._introduction, secret=self._secret, timeout_s=CONNECT_TIMEOUT_S)
            connection = self._connections[address] = PeerConnection(comm)
        return connection

    async def _received(self, instruction: Fetch, connection: PeerConnection, data: Data, buffers: list[Buffer]) -> FetchDone:
        done = FetchDone(instruction.peer, instruction.ids, [], [], [], [], data.missing, list(data.failed))
        beside = Buffers(buffers)
        for block in data.blocks:
            try:
                await self._unpack(block, beside.take(block.buffers), done)
            except Exception as error:
                if len(block.ids) == 1:
                    done.failed.append((block.ids[0], self._error(error)))
                else:
                    await self._one_by_one(connection, block.ids, done)
        return done

    async def _unpack(self, block: Block, buffers: Sequence[Buffer], done: FetchDone) -> None:
        """Append the values of the block to ``done``. Raises what unpickling raises, with nothing appended."""
        if belongs_in_a_thread(block):
            values = await asyncio.get_running_loop().run_in_executor(self._offload, self._unpack_block, block, buffers)
        else:
            values = self._unpack_block(block, buffers)
        done.ids += block.ids
        done.values += values
        done.nbytes += [sizeof(value) for value in values]
        done.types += [type_name(value) for value in values]

    async def _one_by_one(self, connection: PeerConnection, ids: list[int], done: FetchDone) -> None:
        """Fetch values one by one, because one of them cannot be unpickled and must not harm tasks that need the others."""
        for id in ids:
            answer, buffers = await connection.ask(GetData(0, [id]))
            if not isinstance(answer, Data):
                continue  # the core asks again
            done.missing += answer.missing
            done.failed += answer.failed
            beside = Buffers(buffers)
            for block in answer.blocks:
                try:
                    await self._unpack(block, beside.take(block.buffers), done)
                except Exception as error:
                    done.failed.append((id, self._error(error)))

    def _error(self, error: Exception) -> TaskError:
        return dump_error(error, self._max_error_length)
