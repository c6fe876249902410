"""The connection over which workers and clients exchange data with a worker: many requests under way, answered in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from treadle.comm.interface import Buffer, Comm
from treadle.exceptions import CommClosedError, PeerProtocolError
from treadle.messages.codec import decode_worker_to_peer, encode
from treadle.messages.worker_worker import Data, GetData, PutData, WorkerToPeer
from treadle.utils.buffers import Buffers


class PeerConnection:
    """A connection to one worker. To be used in the thread of the running loop only."""

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self._waiting: dict[int, asyncio.Future[tuple[WorkerToPeer, list[Buffer]]]] = {}
        self._count = 0
        comm.start(self._on_frame, self._on_closed)

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._waiting

    async def ask(self, message: GetData | PutData, buffers: Sequence[Buffer] = ()) -> tuple[WorkerToPeer, list[Buffer]]:
        """Number the message and send it; the answer and the buffers beside it. Raises CommClosedError."""
        if self.comm.closed:
            raise CommClosedError(f"the connection to {self.comm.peer_address} is closed")
        self._count += 1
        number = message.request = self._count
        future: asyncio.Future[tuple[WorkerToPeer, list[Buffer]]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self.comm.send(encode([message]), buffers)
            return await future
        finally:
            self._waiting.pop(number, None)

    def _on_frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        beside = Buffers(buffers)
        for message in decode_worker_to_peer(body):
            mine: list[Buffer] = []
            if type(message) is Data:
                count = sum([block.buffers for block in message.blocks])
                mine = beside.take(count)
                if len(mine) != count:
                    raise PeerProtocolError(f"an answer announces {count} buffers but came with {len(mine)}")
            future = self._waiting.get(message.request)
            if future is not None and not future.done():
                future.set_result((message, mine))

    def _on_closed(self, error: Exception | None) -> None:
        lost = CommClosedError(f"the connection to {self.comm.peer_address} was closed: {error or 'by the worker'}")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost)
