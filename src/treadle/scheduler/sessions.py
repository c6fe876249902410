"""The streams of clients, workers and nannies: a number for each, their frames in, their frames out. No task state."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.comm.interface import Buffer, Comm, Role
from treadle.exceptions import PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.beside import count_beside, put_reply_beside, put_results_beside, take_beside
from treadle.messages.client_scheduler import ClientRefused, ClientReply, RanOn, SubmitTasks
from treadle.messages.codec import (
    Decoder,
    decode_client_to_scheduler,
    decode_nanny_to_scheduler,
    decode_worker_to_scheduler,
    encode,
)
from treadle.scheduler.transitions.machine import Event
from treadle.utils.buffers import Buffers
from treadle.utils.turn import Turn

logger = logging.getLogger(__name__)

_DECODERS: dict[Role, Decoder[Any]] = {
    Role.CLIENT: decode_client_to_scheduler,
    Role.WORKER: decode_worker_to_scheduler,
    Role.NANNY: decode_nanny_to_scheduler,
}


#: The first number of a scheduler is a random one of many, so far apart that the numbers of two incarnations of it hardly ever meet:
#: parties that come back to another incarnation keep what they were called by. Ids (number << 32 | n) stay below 2**60.
_INCARNATIONS: Final = 2**14
NUMBERS_OF_AN_INCARNATION: Final = 2**13
_MOST: Final = 2**28
#: Messages that are more together go in frames of their own, so that whoever receives them is not kept busy with one.
FRAME_BYTES: Final = 64 * 2**20


class Session:
    """One stream. A party that comes back has another stream with the same number, else a number is not used again."""

    def __init__(self, number: int, comm: Comm, decoder: Decoder[Any]) -> None:
        self.number = number
        self.role = comm.peer.role
        self.comm = comm
        self.decode = decoder
        #: Set when the stream was closed on purpose: its end is no loss.
        self.leaving = False
        #: It broke the protocol: what it still says does not count.
        self.refused = False
        self.last_heard_s = 0.0


class Arrival:
    """What came in: a frame, or the end of the stream (body None)."""

    __slots__ = ("body", "buffers", "error", "session")

    def __init__(self, session: Session, body: Buffer | None, buffers: list[Buffer], error: Exception | None = None) -> None:
        self.session = session
        self.body = body
        self.buffers = buffers
        self.error = error


class Sessions:
    """All streams of a scheduler. ``on_turn`` gets what arrived in one turn of the loop, in order of arrival.

    ``incarnation``: a number in place of a random one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_turn: Callable[[list[Arrival]], None], incarnation: int | None = None) -> None:
        self._loop = loop
        self._turn: Turn[Arrival] = Turn(loop, on_turn)
        if incarnation is None:
            incarnation = 1 + secrets.randbelow(_INCARNATIONS)
        self._next_number = 1 + incarnation * NUMBERS_OF_AN_INCARNATION
        self.by_number: dict[int, Session] = {}

    @property
    def incarnation(self) -> int:
        """Which of many ranges the next number is of."""
        return self._next_number // NUMBERS_OF_AN_INCARNATION

    def begin_incarnation(self, incarnation: int) -> None:
        """Schedulers before this one may have given all numbers below that range."""
        self._next_number = 1 + incarnation * NUMBERS_OF_AN_INCARNATION

    def accept(self, comm: Comm) -> None:
        """A party that has authenticated itself; its role says which messages it may send."""
        decoder = _DECODERS.get(comm.peer.role)
        if decoder is None:
            logger.warning("%s wants to exchange data with the scheduler, which has none; closing", comm.peer_address)
            comm.start(lambda body, buffers: None, lambda error: None)
            comm.abort()
            return
        session = Session(self._next_number, comm, decoder)
        self._next_number += 1
        self.by_number[session.number] = session
        session.last_heard_s = self._loop.time()

        def on_frame(body: Buffer, buffers: list[Buffer]) -> None:
            session.last_heard_s = self._loop.time()
            self._turn.add(Arrival(session, body, buffers))

        def on_closed(error: Exception | None) -> None:
            self._turn.add(Arrival(session, None, [], error))

        comm.start(on_frame, on_closed)

    def may_have(self, number: int) -> bool:
        """Whether a party that calls itself that can be called so: no stream is."""
        return 0 < number < _MOST and number not in self.by_number

    def rename(self, session: Session, number: int) -> Session | None:
        """The stream is that of a party that has a number already. Returns the stream that it had, if that is still here.

        Newcomers go on to get numbers of this scheduler's own range: those next to a returner's are of others who may come back, too.
        """
        before = self.by_number.get(number)
        del self.by_number[session.number]
        session.number = number
        self.by_number[number] = session
        if number >= self._next_number and number // NUMBERS_OF_AN_INCARNATION == self.incarnation:
            # An earlier scheduler has drawn the same range, and others who have numbers of it may still come back.
            self.begin_another_incarnation()
        return before

    def is_current(self, session: Session) -> bool:
        """Whether what arrives on that stream counts: it is the only one of its party."""
        return self.by_number.get(session.number) is session

    def send(self, number: int, messages: list[Any], frames: list[Any]) -> bool:
        """One frame for one party, or some when it is large. False when the party is gone, or when something could not be sent:
        an answer, whose refusal is sent then, or what the party has to know, whose stream is cut then, so that it comes back and hears it.
        """
        session = self.by_number.get(number)
        if session is None:
            return False
        try:
            if len(messages) == 1 and type(messages[0]) is RanOn:
                messages[0], frames = put_results_beside(messages[0])
            body = encode(messages)
            if len(body) <= FRAME_BYTES or len(messages) == 1:
                if len(body) > FRAME_BYTES and type(messages[0]) is ClientReply:
                    reply, frames = put_reply_beside(messages[0])
                    body = encode([reply])
                session.comm.send(body, frames)
                return True
        except (TypeError, ValueError, OverflowError) as error:
            if len(messages) == 1:
                self._cannot_send(session, messages[0], error)
                return False
        sent = True
        for message in messages:
            count = sum([count for _row, count in getattr(message, "buffers", None) or ()])
            sent = self.send(number, [message], frames[:count]) and sent
            frames = frames[count:]
        return sent

    def _cannot_send(self, session: Session, message: Any, error: Exception) -> None:
        what, to = type(message).__name__, session.comm.peer_address
        request = getattr(message, "request", 0)
        if request and type(message) in (ClientReply, RanOn):
            logger.error("an answer (%s) to %s could not be sent: %s", what, to, error)
            self.send(session.number, [ClientRefused(request, type(error).__name__, f"the answer cannot be sent: {error}")], [])
        elif request:
            logger.error("%s could not be sent to %s: %s", what, to, error)
        else:
            logger.error("%s could not be sent to %s, whose stream is cut: %s", what, to, error)
            session.comm.abort()

    def cut(self) -> None:
        """Break all streams, without a goodbye: their parties come back."""
        sessions = list(self.by_number.values())
        self.by_number.clear()
        for session in sessions:
            session.comm.abort()

    def begin_another_incarnation(self) -> None:
        """Numbers are of another random range from here on."""
        self.begin_incarnation(1 + secrets.randbelow(_INCARNATIONS))

    def forget(self, number: int) -> Session | None:
        return self.by_number.pop(number, None)

    async def close(self, numbers: list[int]) -> None:
        """Send what is queued, then close these."""
        sessions = [session for number in numbers if (session := self.by_number.get(number)) is not None]
        for session in sessions:
            session.leaving = True
        await asyncio.gather(*(session.comm.close() for session in sessions), return_exceptions=True)


def messages_of(events: Sequence[Event]) -> list[Message]:
    """What came from parties of these events, to be encoded again."""
    return [event.message for event in events if isinstance(event.message, Message)]


def events_of(arrival: Arrival) -> list[Event]:
    """The messages of one frame, each with the buffers that are its own. Raises PeerProtocolError."""
    assert arrival.body is not None
    return events_of_messages(arrival.session.number, arrival.session.decode(arrival.body), arrival.buffers)


def events_of_messages(number: int, messages: Sequence[Any], buffers: list[Any]) -> list[Event]:
    """Those of one frame, each with the buffers that are its own. Raises PeerProtocolError."""
    events: list[Event] = []
    beside = Buffers(buffers)
    for message in messages:
        frames: list[Any] = []
        if buffers:
            if type(message) is SubmitTasks and message.buffers:
                frames = beside.take(sum(count for _row, count in message.buffers))
            elif count := count_beside(message):
                take_beside(message, beside.take(count))
        events.append(Event(number, message, frames))
    if beside.left:
        raise PeerProtocolError(f"{beside.left} buffers came that no message speaks of")
    return events
