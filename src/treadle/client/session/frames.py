"""Frames that a client has sent and the scheduler has not acknowledged: what is sent once more when the stream broke.

No I/O; the caller holds the session's lock. See ``Sent``, ``Received`` and ``ClientWelcome`` in ``messages.client_scheduler``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from treadle.client.session.ledger import ERROR, FINISHED, ID_BITS, LOST, PENDING, Ledger
from treadle.messages.base import Message
from treadle.messages.client_scheduler import AttachKeys, ConfirmKeys, DefineFunctions, KeysScattered, ReattachKeys, SubmitTasks
from treadle.messages.codec import decode_client_to_scheduler

#: When so much is unacknowledged, the scheduler is asked to say soon what it has.
URGENT_BYTES: Final = 32 * 2**20


class Function(Protocol):
    """A function as it was defined."""

    id: int
    name: str
    body: bytes


class FunctionCache(Protocol):
    """What the submitting threads know of functions."""

    def defined(self) -> Sequence[Function]: ...

    def rebase(self, shift: int) -> None: ...


class Frame:
    """As it was sent. Its buffers do not change until it is acknowledged."""

    __slots__ = ("body", "buffers", "nbytes", "sequence")

    def __init__(self, sequence: int, body: bytes, buffers: Sequence[Any]) -> None:
        self.sequence = sequence
        self.body = body
        self.buffers = buffers
        self.nbytes = len(body) + sum([memoryview(buffer).nbytes for buffer in buffers])


class SentFrames:
    """In order, those that the scheduler may not have."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        #: Number of the last frame.
        self.sequence = 0
        self.nbytes = 0
        #: Number of the last frame that asked for an answer.
        self._asked = 0

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def acknowledged(self) -> int:
        """Number of the last frame that the scheduler has."""
        return self._frames[0].sequence - 1 if self._frames else self.sequence

    def is_urgent(self) -> bool:
        """Whether the next frame shall ask for an answer."""
        if self.nbytes < URGENT_BYTES or self._asked > self.acknowledged:
            return False
        self._asked = self.sequence + 1
        return True

    def keep(self, body: bytes, buffers: Sequence[Any]) -> None:
        """The next frame is on its way."""
        self.sequence += 1
        frame = Frame(self.sequence, body, buffers)
        self._frames.append(frame)
        self.nbytes += frame.nbytes

    def put_first(self, body: bytes) -> None:
        """A frame in place of all that were acknowledged."""
        frame = Frame(self.acknowledged, body, ())
        self._frames.appendleft(frame)
        self.nbytes += frame.nbytes

    def received(self, sequence: int) -> None:
        """The scheduler has the frames up to that number."""
        frames = self._frames
        while frames and frames[0].sequence <= sequence:
            self.nbytes -= frames.popleft().nbytes

    def clear(self) -> None:
        self._frames.clear()
        self.nbytes = 0

    def messages(self) -> list[Message]:
        """All that is in them; costs what decoding costs."""
        return [message for frame in self._frames for message in decode_client_to_scheduler(frame.body)]


def confirmation(ledger: Ledger) -> ConfirmKeys:
    """All that this client wants."""
    message = ConfirmKeys([])
    for state in ledger.states.values():
        (message.erred if state.status is ERROR else message.ids).append(state.id)
    return message


def recollections(ledger: Ledger, number: int, functions: Sequence[Function], on_their_way: Iterable[Message]) -> list[Message]:
    """What a scheduler that never heard of this client has to know before it gets the messages that are ``on_their_way``.

    Everything that was finished is pending again: values may come back with the workers that hold them. Failures stay what they are.
    """
    ids: set[int] = set()
    defined: set[int] = set()
    for message in on_their_way:
        if isinstance(message, DefineFunctions):
            defined.update(message.ids)
        elif isinstance(message, (SubmitTasks, KeysScattered, AttachKeys, ReattachKeys)):
            ids.update(message.ids)
    messages: list[Message] = []
    missing = [known for known in functions if known.id not in defined]
    if missing:
        messages.append(
            DefineFunctions([known.id for known in missing], [known.name for known in missing], [known.body for known in missing])
        )
    lost = ReattachKeys([], [])
    for state in list(ledger.states.values()):
        if state.status is FINISHED or state.status is LOST:
            state.status = PENDING
            state.worker = 0
            state.detail = None
        if state.status is ERROR or state.id in ids:
            continue
        if state.id >> ID_BITS != number:
            # It had another client's name for it.
            ledger.rename(state)
        lost.ids.append(state.id)
        lost.keys.append(state.key)
    if lost.ids:
        messages.append(lost)
    return messages
