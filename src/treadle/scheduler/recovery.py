"""Tell a fresh core what the journal of another scheduler says. Afterwards it knows its workers and clients, and all are away."""

from __future__ import annotations

import gc
import logging
from collections.abc import Container, Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from treadle.exceptions import JournalError, PeerProtocolError
from treadle.journal.directory import Directory
from treadle.journal.format import Record
from treadle.journal.reader import Segment
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysScattered,
    PublishData,
    ReattachKeys,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
    UnpublishData,
)
from treadle.messages.codec import decode_client_to_scheduler
from treadle.messages.journal import FrameRecord, KnownClient, StateRecord, WorkerRecord, decode_record
from treadle.messages.scheduler_local import ConnectionLost, JournalRead
from treadle.scheduler.failures import CoreFailure
from treadle.scheduler.sessions import NUMBERS_OF_AN_INCARNATION, events_of_messages
from treadle.scheduler.transitions.machine import Event, Transitions

logger = logging.getLogger(__name__)

_BATCH: Final = 200
#: Where more than so many records cannot be told to the core, it is no journal to go on from.
MOST_SET_ASIDE: Final = 10
#: Messages of clients that must outlive the scheduler: they are what is told of a frame. (Leaving and restarts are records of their own.)
DURABLE: Final = frozenset(
    [
        RegisterClient,
        DefineFunctions,
        ForgetFunctions,
        SubmitTasks,
        AttachKeys,
        ReattachKeys,
        ReleaseKeys,
        CancelKeys,
        RetryKeys,
        KeysScattered,
        FireAndForget,
        PublishData,
        UnpublishData,
    ]
)


class Recovery:
    """What a journal told, beside the state of the core."""

    def __init__(self) -> None:
        #: Of all parties there ever were.
        self.highest_number = 0
        #: The incarnation of the last scheduler that wrote here, 0 when there was none: its numbers are of that range.
        self.epoch = 0
        #: Number of the newest segment, 0 when there is none.
        self.newest_segment = 0
        self.records = 0
        #: Bytes of the last snapshot, and of the segments behind it.
        self.snapshot_bytes = 0
        self.log_bytes = 0
        #: Bytes at the torn end that were left out.
        self.cut_bytes = 0
        #: What the core fails on, and the stories of that: it was not told these.
        self.set_aside: list[tuple[Event, str]] = []

    def next_incarnation(self) -> int:
        """That of a scheduler that goes on from here. Each has another one, also when nothing was written but that it had begun."""
        return max(self.epoch, self.highest_number // NUMBERS_OF_AN_INCARNATION) + 1


def recover(directory: Directory, core: Transitions, *, below: int | None = None) -> Recovery:
    """Tell ``core``, which must be fresh, all segments with numbers under ``below`` (None: all; then a torn end is cut off).

    Raises JournalError for what is damaged or not understood, OSError.
    """
    # Nothing of it is garbage: looking for some again and again takes longer than all the rest.
    collecting = gc.isenabled()
    gc.disable()
    first_attempt = core.state.first_attempt
    aside: dict[Place, tuple[Event, str]] = {}
    one_by_one = False
    try:
        while True:
            recovery = Recovery()
            recovery.set_aside = list(aside.values())
            try:
                _tell(directory, directory.segments(below), Replay(core, aside, one_by_one), recovery, below is None)
            except _CoreFailed as error:
                failure = error.failure
                core.reset(first_attempt)
                if failure.culprit is None and not one_by_one:
                    # It was what follows from many of them.
                    one_by_one = True
                    continue
                culprit = failure.culprit if failure.culprit is not None else failure.events[0]
                if culprit.record is None or len(aside) >= MOST_SET_ASIDE:
                    raise JournalError(f"{directory.path} holds a journal that this treadle fails on: {failure.story}") from error.__cause__
                logger.critical("a record of the journal in %s is set aside, for the core fails on it: %s", directory.path, failure.story)
                aside[culprit.record] = (culprit, failure.story)
                continue
            return recovery
    finally:
        if collecting:
            gc.enable()


def _tell(directory: Directory, segments: list[tuple[int, Segment]], replay: Replay, recovery: Recovery, newest: bool) -> None:
    """``newest``: the last of the segments is the one that may have a torn end."""
    for number, segment in segments:
        last = newest and number == segments[-1][0]
        recovery.newest_segment = number
        for entry in segment.records(last):
            recovery.records += 1
            try:
                replay.take(entry, recovery)
            except (msgspec.MsgspecError, PeerProtocolError, IndexError) as error:
                raise JournalError(f"{segment.path} holds a record that this treadle does not understand: {error}") from error
        if segment.header is not None:
            recovery.epoch = max(recovery.epoch, segment.header.epoch)
            if segment.header.snapshot:
                recovery.snapshot_bytes = segment.size
            else:
                recovery.log_bytes += segment.good_bytes
        replay.end_of_segment()
        if last:
            recovery.cut_bytes = segment.size - segment.good_bytes
            directory.cut(segment)
    replay.end(recovery)


#: Where a message stands in the journal: number of its record, its place in that.
Place: TypeAlias = tuple[int, int]


class _CoreFailed(Exception):
    def __init__(self, failure: CoreFailure) -> None:
        super().__init__(failure.story)
        self.failure = failure


class Replay:
    """Records into events, in batches of the same time, but for what is set ``aside``. ``one_by_one``: each in a turn of its own.

    ``Event.record`` is where it stands: the core has no journal of its own meanwhile.
    """

    def __init__(self, core: Transitions, aside: Container[Place] = (), one_by_one: bool = False) -> None:
        self._core = core
        self._aside = aside
        self._one_by_one = one_by_one
        self._record = 0
        self._events: list[Event] = []
        #: Since the first part of a frame whose last one has not come yet.
        self._parts: list[Event] | None = None
        self._now = 0.0
        #: Why something of it was not taken in: it had not been by the scheduler before, either.
        self.refused: list[str] = []
        core.begin_restoring()

    def take(self, entry: Record, recovery: Recovery) -> None:
        record = decode_record(entry.body)
        self._record = recovery.records
        if isinstance(record, FrameRecord):
            recovery.highest_number = max(recovery.highest_number, record.number)
            self._at(record.now)
            if record.more and self._parts is None:
                self._parts = []
            self._add(_frame_events(record.number, entry))
            if not record.more and self._parts is not None:
                whole, self._parts = self._parts, None
                self._add(whole)
        else:
            if isinstance(record, StateRecord):
                recovery.highest_number = max(recovery.highest_number, record.highest_number)
                self._at(record.now)
            elif isinstance(record, (WorkerRecord, KnownClient)):
                recovery.highest_number = max(recovery.highest_number, record.number)
            self._add([Event(0, record, [bytearray(buffer) for buffer in entry.buffers])])
        if len(self._events) >= _BATCH:
            self._flush()

    def _add(self, events: Iterable[Event]) -> None:
        into = self._events if self._parts is None else self._parts
        for at, event in enumerate(events):
            if event.record is None:
                event.record = (self._record, at)
            if event.record not in self._aside:
                into.append(event)

    def end_of_segment(self) -> None:
        """A frame that is there in part was not received: the client says it again."""
        self._parts = None

    def _at(self, now: float) -> None:
        if now > self._now:
            self._flush()
            self._now = now

    def _flush(self) -> None:
        events, self._events = self._events, []
        if not events:
            return
        for turn in [[event] for event in events] if self._one_by_one else [events]:
            try:
                result = self._core.handle(turn, self._now)
            except Exception as error:
                raise _CoreFailed(CoreFailure(self._core, error, turn)) from error
            self.refused += [why for _number, why in result.closes]

    def end(self, recovery: Recovery) -> None:
        self._flush()
        if self.refused:
            logger.warning("%d records of the journal were not taken in, as they were not before: %s", len(self.refused), self.refused[0])
        # Their counts of attempts start above all that the scheduler before can have given.
        self._events.append(Event(0, JournalRead((recovery.epoch + 1) << 24)))
        self._flush()


def _frame_events(number: int, entry: Record) -> Iterator[Event]:
    messages = decode_client_to_scheduler(entry.buffers[0])
    for event in events_of_messages(number, messages, [bytearray(buffer) for buffer in entry.buffers[1:]]):
        if isinstance(event.message, RegisterClient):
            # It had been away.
            yield Event(number, ConnectionLost())
        if type(event.message) is Sent or type(event.message) in DURABLE:
            yield event
