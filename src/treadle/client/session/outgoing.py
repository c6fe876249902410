"""What a client has to tell the scheduler, in order, merged where that changes nothing. No I/O; the caller holds the lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from treadle.client.session.ledger import ID_BITS
from treadle.messages.base import Message
from treadle.messages.client_scheduler import DefineFunctions, ReleaseKeys, SubmitTasks

#: A submission that has this many rows is left alone: the scheduler can begin with it.
MERGE_ROWS: Final = 2000
#: Frames are cut at about this size.
FRAME_BYTES: Final = 16 * 2**20
#: What a row costs beside its payload: id, key, length bytes.
ROW_BYTES: Final = 64
#: Fields of the messages from a client that are lists of ids; 0 is the function of a row that has none.
_ID_COLUMNS: Final = ("ids", "functions", "wanted")


def is_provisional(id: int) -> bool:
    """Whether it was given before the scheduler had given this client a number. 0 is no id."""
    return 0 < id < 1 << ID_BITS


def raise_ids(message: Message, shift: int) -> None:
    """Make the provisional ones of all ids in it final."""
    for name in _ID_COLUMNS:
        ids = getattr(message, name, None)
        if ids is not None:
            setattr(message, name, [id + shift if is_provisional(id) else id for id in ids])
    if isinstance(message, SubmitTasks) and message.dependencies is not None:
        message.dependencies = [[id + shift if is_provisional(id) else id for id in ids] for ids in message.dependencies]


class Outgoing:
    """Messages in the order in which they will be sent."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        #: Buffers and sizes of the messages, same length.
        self._buffers: list[list[Any]] = []
        self._sizes: list[int] = []
        #: What the last message must share with a row to take it in; None when it is closed.
        self._open: tuple[object, ...] | None = None
        #: About how much there is to send.
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message, buffers: Sequence[Any] = (), nbytes: int = ROW_BYTES) -> None:
        """Any message. Nothing that comes later is moved before it."""
        self._open = None
        self._messages.append(message)
        self._buffers.append(list(buffers))
        nbytes += sum([memoryview(buffer).nbytes for buffer in buffers])
        self._sizes.append(nbytes)
        self.nbytes += nbytes

    def define(self, message: DefineFunctions) -> None:
        """Functions may be known earlier than asked, so that they do not part submissions that could be one."""
        if self._open is None:
            self.add(message, (), ROW_BYTES + sum([len(body) for body in message.bodies]))
            return
        kept = self._open
        last, buffers, size = self._messages.pop(), self._buffers.pop(), self._sizes.pop()
        self.add(message, (), ROW_BYTES + sum([len(body) for body in message.bodies]))
        self._messages.append(last)
        self._buffers.append(buffers)
        self._sizes.append(size)
        self._open = kept

    def release(self, ids: list[int]) -> None:
        """Keys that are not wanted any more; later than all submissions so far."""
        if self._messages and isinstance(self._messages[-1], ReleaseKeys):
            self._messages[-1].ids.extend(ids)
        else:
            self.add(ReleaseKeys(ids))

    def joinable(self, agreed: tuple[object, ...]) -> SubmitTasks | None:
        """The last message, if it was opened with an equal ``agreed`` and has room for another row."""
        if self._open is None or self._open != agreed:
            return None
        last = self._messages[-1]
        return last if isinstance(last, SubmitTasks) and len(last.ids) < MERGE_ROWS and self._sizes[-1] < FRAME_BYTES else None

    def open(self, message: SubmitTasks, agreed: tuple[object, ...]) -> None:
        """A submission that more rows may join; ``agreed`` stands for all that its rows have in common."""
        self.add(message, (), 0)
        self._open = agreed

    def grow(self, nbytes: int) -> None:
        """A row with a payload of that size joined the last message."""
        self._sizes[-1] += nbytes + ROW_BYTES
        self.nbytes += nbytes + ROW_BYTES

    def messages(self) -> list[Message]:
        """What waits to be sent: to look at."""
        return list(self._messages)

    def rebase(self, shift: int) -> None:
        """All ids in it were provisional: raise them."""
        for message in self._messages:
            raise_ids(message, shift)

    def take(self) -> list[tuple[list[Message], list[Any]]]:
        """All of it, as frames: messages, and the buffers that ride beside them. Nothing remains."""
        frames: list[tuple[list[Message], list[Any]]] = []
        messages: list[Message] = []
        buffers: list[Any] = []
        nbytes = 0
        for message, beside, size in zip(self._messages, self._buffers, self._sizes, strict=True):
            if messages and nbytes + size > FRAME_BYTES:
                frames.append((messages, buffers))
                messages, buffers, nbytes = [], [], 0
            messages.append(message)
            buffers.extend(beside)
            nbytes += size
        if messages:
            frames.append((messages, buffers))
        self._messages, self._buffers, self._sizes = [], [], []
        self._open = None
        self.nbytes = 0
        return frames
