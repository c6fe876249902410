"""The scheduler's journal: what a turn has to leave behind is written, and says so when it is on disk; now and then it is compacted."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from treadle.journal.directory import Directory
from treadle.journal.writer import Writer
from treadle.messages.client_scheduler import (
    ClientRefused,
    FireAndForget,
    KeysCancelled,
    KeysScattered,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import encode
from treadle.messages.journal import ClientGone, FrameRecord, WorkerGone, encode_record
from treadle.messages.scheduler_local import FramesDurable
from treadle.messages.worker_scheduler import DropKeys
from treadle.scheduler.recovery import DURABLE, Recovery, recover
from treadle.scheduler.sessions import Arrival, Sessions, messages_of
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.records import ClientState
from treadle.utils.background import Background
from treadle.utils.child_process import ChildProcess
from treadle.version import __version__

logger = logging.getLogger(__name__)

#: The journal is compacted when this many times the size of the last snapshot has been written since.
GROWTH: Final = 2
#: What is written at the end may take so long, seconds: less than what a process is given before it is killed.
_CLOSE_S: Final = 20.0


def _refusal(reason: str) -> str:
    return f"The scheduler's journal cannot be written ({reason}), so it takes no new work. See to the disk, then submit again."


class ClientFrame:
    """A frame of a client that must outlive the scheduler, or a part of one; the core puts it among its records where its turn comes.

    ``more``: other parts follow.
    """

    __slots__ = ("body", "buffers", "more", "number")

    def __init__(self, number: int, body: Any, buffers: list[Any], more: bool = False) -> None:
        self.number = number
        self.body = body
        self.buffers = buffers
        self.more = more


#: What these do depends on whether something has finished or failed.
STATEFUL: Final = frozenset([FireAndForget, RetryKeys, KeysScattered])


class Journal:
    """Made before the scheduler listens: the constructor reads what is there into ``core``, which must be fresh.

    ``directory`` is its own from here on. Raises JournalError that says what is wrong and what to do. Methods are for the loop's
    thread. ``tell`` hands local events to the core.
    """

    def __init__(
        self,
        directory: Directory,
        core: Transitions,
        sessions: Sessions,
        loop: asyncio.AbstractEventLoop,
        *,
        compact_from_bytes: int,
        tell: Callable[[Any], None],
        writer: type[Writer] = Writer,
    ) -> None:
        self.directory = directory
        self._core = core
        self._sessions = sessions
        self._loop = loop
        self._compact_from_bytes = compact_from_bytes
        self._tell = tell
        #: (number of a record, client, number of its frame): to be told when that record is durable.
        self._promises: deque[tuple[int, ClientState, int]] = deque()
        #: (number of a record, worker, id): values to be dropped when that record is durable.
        self._drops: deque[tuple[int, int, int]] = deque()
        self._background = Background("journal")
        self._compaction: asyncio.Task[None] | None = None
        self._closed = False
        self.compactions = 0
        try:
            self.recovery: Recovery = recover(self.directory, core)
            if self.recovery.cut_bytes:
                logger.warning("%d bytes at the end of the journal were torn, and are cut off", self.recovery.cut_bytes)
            self.directory.tidy()
            if self.recovery.epoch:
                sessions.begin_incarnation(self.recovery.next_incarnation())
            self._segment = self.recovery.newest_segment + 1
            self._snapshot_bytes = self.recovery.snapshot_bytes
            self._writer = writer(
                self.directory,
                self._segment,
                scheduler_id=core.scheduler_id,
                epoch=sessions.incarnation,
                release=__version__,
                call_soon=loop.call_soon_threadsafe,
                on_durable=self._on_durable,
                on_failure=self._on_failure,
            )
        except BaseException:
            self.directory.close()
            raise
        self._writer.nbytes = self.recovery.log_bytes
        core.start_recording()
        if self.recovery.records:
            logger.info(
                "the journal in %s has %d tasks, %d clients and %d workers, which may come back",
                self.directory.path,
                len(core.tasks),
                len(core.clients),
                len(core.workers),
            )

    @property
    def failure(self) -> str | None:
        """Why nothing can be written at the moment."""
        return self._writer.failure

    def mark(self, number: int, arrival: Arrival, fresh: list[Event], apart: bool = False) -> list[Event]:
        """What the core is to hear of a client's frame, marked so that it comes among the records; ``apart``: each message of it alone.

        Submissions are refused while nothing can be written, but for the rest of those that have begun.
        """
        if self.failure is not None:
            text = _refusal(self.failure)
            kept: list[Event] = []
            refused = False
            for event in fresh:
                if type(event.message) is not SubmitTasks or self._is_under_way(number, event.message.submission):
                    kept.append(event)
                    continue
                refused = True
                wanted = event.message.ids if event.message.wanted is None else event.message.wanted
                self._sessions.send(number, [KeysCancelled(wanted, "journal-failed", text)], [])
                # Some may be known, of a client that comes back: it takes these for cancelled, too.
                kept.append(Event(event.session, ReleaseKeys(wanted)))
            if refused:
                for event in kept:
                    if type(event.message) in DURABLE:
                        buffers = [buffer for other in kept for buffer in other.frames]
                        event.record = ClientFrame(number, encode(messages_of(kept)), buffers)
                        break
                return kept
        durable = [event for event in fresh if type(event.message) in DURABLE]
        if len(durable) > 1 and (apart or self._core.state.orphans or any(type(event.message) in STATEFUL for event in durable)):
            # What one message brings about at once may be what another one means: the record of it comes between them.
            parts = [event for event in fresh if type(event.message) in DURABLE or type(event.message) is Sent]
            for event in parts:
                event.record = ClientFrame(number, encode(messages_of([event])), event.frames, event is not parts[-1])
        elif durable:
            durable[0].record = ClientFrame(number, arrival.body, arrival.buffers)
        return fresh

    def _is_under_way(self, number: int, submission: int) -> bool:
        """Whether rows of that submission wait for others that it is still to bring."""
        client = self._core.state.clients_by_number.get(number)
        return client is not None and any(expected.submission == submission for expected in client.expecting.values())

    def keep(self, events: list[Event], records: list[Any], now: float) -> None:
        """Write down what a turn leaves; clients hear of their frames when that is on disk."""
        if records:
            self.record(records, now)
        for event in events:
            if type(event.message) is Sent:
                client = self._core.state.clients_by_number.get(event.session)
                if client is not None:
                    self._promises.append((self._writer.appended, client, event.message.sequence))
                if self._writer.durable == self._writer.appended:
                    self._loop.call_soon(self._on_durable, self._writer.durable)

    def drop_when_durable(self, drops: list[tuple[int, int]]) -> None:
        """(worker, id): values that cannot be made again. Told to the workers when all is on disk that has led to it."""
        for number, id in drops:
            self._drops.append((self._writer.appended, number, id))
        if self._writer.durable == self._writer.appended:
            self._loop.call_soon(self._on_durable, self._writer.durable)

    def record(self, records: list[Any], now: float) -> None:
        """Write the records of one turn, all at once, soon. ``now`` is the time that the core was told."""
        append = self._writer.append
        for record in records:
            if type(record) is ClientFrame:
                append(encode_record(FrameRecord(record.number, now, record.more)), [record.body, *record.buffers])
            else:
                append(encode_record(record))
        self._writer.commit()
        if self._writer.nbytes > self._compact_from_bytes and self._writer.nbytes > GROWTH * self._snapshot_bytes:
            self._compact()

    def _on_durable(self, count: int) -> None:
        if self._closed:
            # The core that these were promised to is another one now.
            return
        found: dict[int, int] = {}
        promises = self._promises
        while promises and promises[0][0] <= count:
            _record, client, sequence = promises.popleft()
            # One that was given up meanwhile, and is back, counts its frames anew.
            if self._core.state.clients_by_number.get(client.number) is client:
                found[client.number] = sequence
        if found:
            self._tell(FramesDurable(list(found), list(found.values())))
        drops: dict[int, list[int]] = {}
        while self._drops and self._drops[0][0] <= count:
            _record, worker, id = self._drops.popleft()
            if self._core.is_dropped(worker, id):
                drops.setdefault(worker, []).append(id)
        for worker, ids in drops.items():
            self._sessions.send(worker, [DropKeys(ids, ids)], [])

    def _on_failure(self, reason: str | None) -> None:
        if self._closed:
            return
        if reason is None:
            logger.warning("the journal is written again: submissions are taken")
            return
        logger.critical("the journal cannot be written (%s): what is submitted is refused until it can", reason)
        for client in self._core.clients.values():
            self._sessions.send(client.number, [ClientRefused(0, "JournalError", _refusal(reason))], [])

    # ------------------------------------------------------------------------------------------ compaction

    def _compact(self) -> None:
        """What is written so far becomes a snapshot, made by a process of its own; meanwhile a new segment goes on."""
        if self._compaction is not None and not self._compaction.done():
            return
        snapshot = self._segment + 1
        self._segment += 2
        whole = asyncio.Event()
        self._writer.rotate(self._segment, whole.set)
        self._compaction = self._background.spawn("compaction", self._make_snapshot(snapshot, whole))

    async def _make_snapshot(self, number: int, whole: asyncio.Event) -> None:
        await whole.wait()
        process = ChildProcess(
            [sys.executable, "-m", "treadle.scheduler.compacting", str(self.directory.path), str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, errors, code = await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
        except BaseException:
            process.kill()
            raise
        finally:
            process.close()
        if code:
            # The segments stay as they are: all is there, only more of it than need be.
            words = errors.decode(errors="replace").strip().splitlines()
            logger.error("the journal was not compacted (exit code %d): %s", code, words[-1] if words else "")
            return
        self._snapshot_bytes = int(out)
        await self._loop.run_in_executor(None, self.directory.tidy)
        self.compactions += 1
        logger.info("the journal was compacted to %d bytes", self._snapshot_bytes)

    async def close(self, now: float | None = None, timeout_s: float = _CLOSE_S) -> None:
        """Write what is recorded, for at most ``timeout_s``, and let another scheduler have the directory.

        ``now``: all parties were told that the scheduler goes, so that the next one need not wait for them.
        """
        if now is not None:
            gone: list[Any] = [ClientGone(client.number) for client in self._core.clients.values()]
            self.record(gone + [WorkerGone(worker.number) for worker in self._core.workers.values()], now)
        self._closed = True
        if self._compaction is not None and not self._compaction.done():
            self._compaction.cancel()
            await asyncio.gather(self._compaction, return_exceptions=True)
        await self._loop.run_in_executor(None, self._writer.close, timeout_s)
        missing = self._writer.appended - self._writer.durable
        if missing:
            why = self.failure or f"the disk was too slow for {timeout_s:g} s"
            logger.critical("the last %d records of the journal were not written (%s): what they say is lost", missing, why)
        self.directory.close()
