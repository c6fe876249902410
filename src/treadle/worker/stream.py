"""The worker's stream to the scheduler: connect, register, then exchange messages, received turn by turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.comm.interface import Buffer, Comm, Introduction
from treadle.comm.reconnect import WELCOME_S
from treadle.comm.registry import connect
from treadle.exceptions import CommClosedError, PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.beside import put_result_beside
from treadle.messages.codec import decode_scheduler_to_worker, encode
from treadle.messages.local import BuffersCame
from treadle.messages.worker_scheduler import ComputeTasks, RegisterWorker, WorkerRan, WorkerRefused, WorkerWelcome
from treadle.utils.buffers import Buffers
from treadle.utils.turn import Turn

logger = logging.getLogger(__name__)

#: Messages that are more together go in frames of their own.
FRAME_BYTES: Final = 64 * 2**20


class SchedulerStream:
    """``on_events`` gets what arrived in a turn of the loop, ``BuffersCame`` before each message that has buffers.
    ``on_closed`` is called once, unless ``close`` was called before."""

    def __init__(self, comm: Comm, on_events: Callable[[list[Any]], None], on_closed: Callable[[Exception | None], None]) -> None:
        self.comm = comm
        loop = asyncio.get_running_loop()
        self._turn: Turn[Any] = Turn(loop, on_events)
        self._closed_handler = on_closed
        self._welcome: asyncio.Future[WorkerWelcome] = loop.create_future()
        self._closing = False
        comm.start(self._on_frame, self._on_closed)

    async def register(self, registration: RegisterWorker) -> WorkerWelcome:
        """Raises ValueError with the scheduler's text when it refuses, CommClosedError, TimeoutError."""
        self.send([registration])
        async with asyncio.timeout(WELCOME_S):
            return await self._welcome

    def send(self, messages: Sequence[Message]) -> None:
        """In one frame, or some where it would be large. Of what cannot be sent the scheduler hears that, if it has asked for it;
        else the stream is cut, so that it hears by coming back what has become of everything.
        """
        try:
            body = encode(messages)
            if len(body) <= FRAME_BYTES or len(messages) == 1:
                self.comm.send(body)
                return
        except (TypeError, ValueError, OverflowError) as error:
            if len(messages) == 1:
                logger.error("%s could not be sent to the scheduler, whose stream is cut: %s", type(messages[0]).__name__, error)
                self.comm.abort()
                return
        for message in messages:
            self.send([message])

    def answer(self, ran: WorkerRan) -> None:
        """What a function has given that the scheduler had asked to be run."""
        message, buffers = put_result_beside(ran)
        self.comm.send(encode([message]), buffers)

    async def close(self) -> None:
        """Send what is queued, then close. No more messages are delivered."""
        self._closing = True
        await self.comm.close()

    def abort(self) -> None:
        self._closing = True
        self.comm.abort()

    def _on_frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        beside, named = Buffers(buffers), 0
        for message in decode_scheduler_to_worker(body):
            if not self._welcome.done():
                if isinstance(message, WorkerRefused):
                    self._welcome.set_exception(ValueError(message.text))
                    continue
                if isinstance(message, WorkerWelcome):
                    self._welcome.set_result(message)
            if type(message) is ComputeTasks and message.buffers is not None:
                count = sum([count for _, count in message.buffers])
                self._turn.add(BuffersCame(list(beside.take(count))))
                named += count
            self._turn.add(message)
        if named > len(buffers):
            raise PeerProtocolError(f"a frame announces {named} buffers but came with {len(buffers)}")

    def _on_closed(self, error: Exception | None) -> None:
        if not self._welcome.done():
            self._welcome.set_exception(
                CommClosedError(f"the scheduler at {self.comm.peer_address} closed the connection instead of an answer ({error})")
            )
            return
        if not self._closing:
            self._closed_handler(error)


async def connect_to_scheduler(address: str, introduction: Introduction, secret: bytes, timeout_s: float) -> Comm:
    """Raises TimeoutError when it cannot be reached in time, AuthenticationError and VersionError at once."""
    try:
        return await connect(address, introduction, secret=secret, timeout_s=timeout_s)
    except CommClosedError:
        raise
    except OSError as error:
        raise TimeoutError(f"the scheduler at {address} could not be reached within {timeout_s:g} s: {error}") from error
