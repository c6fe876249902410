"""Append to a journal from an event loop: a separate thread packs, writes and syncs all records since its last pass at once.

The loop never waits for the disk: ``append`` queues a record, and ``on_durable`` reports later how many records are safe. When
a write fails, its records are kept and written again every second; ``on_failure`` reports the reason, and later the recovery.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Final

from treadle.exceptions import JournalError
from treadle.journal.directory import Directory
from treadle.journal.format import Buffer, Header, pack_header, pack_record
from treadle.utils.background import start_thread
from treadle.utils.private import create_private

#: Shortest time between two syncs, in seconds. Only the acknowledgement of submissions waits for a sync.
PAUSE_S: Final = 0.05
RETRY_S: Final = 1.0
_LARGE_BYTES: Final = 2**18
_sync = getattr(os, "fdatasync", os.fsync)


class Rotation:
    """An entry of the queue: the records behind it go to a new segment ``number``. ``done`` is called once the old one is on disk."""

    def __init__(self, number: int, done: Callable[[], None]) -> None:
        self.number = number
        self.done = done


class Writer:
    """Appends to the segment ``number`` of ``directory``, which must not exist yet.

    ``call_soon`` hands a callback to the loop's thread (``loop.call_soon_threadsafe``). ``on_durable`` gets the number of
    records that are on disk, counted since the writer was made. ``on_failure`` gets the reason why the disk refuses data, or
    None when it accepts data again. Raises JournalError when the segment cannot be created.
    """

    def __init__(
        self,
        directory: Directory,
        number: int,
        *,
        scheduler_id: str,
        epoch: int,
        release: str,
        call_soon: Callable[[Callable[[], None]], object],
        on_durable: Callable[[int], None],
        on_failure: Callable[[str | None], None],
    ) -> None:
        self._directory = directory
        self._identity = (scheduler_id, epoch, release)
        self._call_soon = call_soon
        self._on_durable = on_durable
        self._on_failure = on_failure
        #: Records that the thread has not taken yet; guarded by ``_changed``.
        self._queue: list[tuple[Buffer, Sequence[Buffer]] | Rotation] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        #: How many records were appended, and how many are on disk; bytes since the last ``rotate``, estimated when they are queued.
        self.appended = 0
        self.durable = 0
        self.nbytes = 0
        self._failure: str | None = None
        try:
            self._open(number)
        except OSError as error:
            raise JournalError(f"{directory.path_of(number)} cannot be written: {error.strerror or error}") from error
        self._start()

    def _start(self) -> None:
        self._thread = start_thread("treadle-journal", self._run, self._ended)

    # ------------------------------------------------------------------------------------- the loop's thread

    def append(self, body: Buffer, buffers: Sequence[Buffer] = ()) -> int:
        """Queue a record and return its number, from 1. Its memory must not change until the record is durable."""
        self._queue.append((body, buffers))
        self.appended += 1
        self.nbytes += len(body) + sum(map(len, buffers)) + 32
        return self.appended

    def commit(self) -> None:
        """The turn is over: the thread may write the records that were queued."""
        if self._queue:
            with self._changed:
                self._changed.notify()

    def rotate(self, number: int, done: Callable[[], None]) -> None:
        """Further records go to the new segment ``number``. ``done`` is called in the loop when all earlier records are on disk."""
        self._queue.append(Rotation(number, done))
        self.nbytes = 0
        self.commit()

    @property
    def failure(self) -> str | None:
        """Why nothing can be written at the moment; None when all is well."""
        return self._failure

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, for at most ``timeout_s`` seconds, and end the thread. Blocks. Idempotent."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout_s)

    # ------------------------------------------------------------------------------------- the writer's thread

    def _open(self, number: int) -> None:
        scheduler_id, epoch, release = self._identity
        self._marker = int.from_bytes(secrets.token_bytes(4), "little")
        path = self._directory.path_of(number)
        header = pack_header(Header(scheduler_id, epoch, self._marker, False, release))
        self._file = create_private(path)
        try:
            _write_all(self._file, [header])
            os.fsync(self._file)
            self._directory.sync()
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        #: Bytes of the segment that were written as whole records, and bytes that are on disk.
        self._written = self._synced = len(header)

    def _run(self) -> None:
        records: list[tuple[Buffer, Sequence[Buffer]] | Rotation] = []
        while True:
            with self._changed:
                while not self._queue and not self._closing.is_set() and not records:
                    self._changed.wait()
                taken = len(self._queue)
                records += self._queue[:taken]
                # The loop appends without the lock: remove only what was taken.
                del self._queue[:taken]
                closing = self._closing.is_set()
            if records:
                try:
                    self._write(records)
                except OSError as error:
                    self._fail(error.strerror or str(error))
                else:
                    self._fail(None)
                    self._report(self._on_durable, self.durable)
            if closing and not (self._queue and self._failure is None):
                os.close(self._file)
                return
            self._closing.wait(RETRY_S if self._failure is not None else PAUSE_S)

    def _ended(self, name: str, error: BaseException) -> None:
        """In the thread, at its unexpected end: as when the disk refuses, and for good."""
        self._fail(f"its writer has failed: {error!r}; start the scheduler anew")

    def _write(self, records: list[tuple[Buffer, Sequence[Buffer]] | Rotation]) -> None:
        """Write and sync all of ``records``, and remove them from the list as they become safe."""
        while records:
            pieces, count, rotation = self._pack(records)
            if pieces:
                try:
                    _write_all(self._file, pieces)
                    _sync(self._file)
                except OSError:
                    # The next attempt must not leave a part of this one in front of it.
                    os.lseek(self._file, self._written, os.SEEK_SET)
                    os.ftruncate(self._file, self._written)
                    raise
                self._written += sum(map(len, pieces))
                self._synced = self._written
                self.durable += count
                del records[:count]
            if rotation is not None:
                old = self._file
                self._open(rotation.number)
                os.close(old)
                del records[0]
                self._report(lambda done: done(), rotation.done)

    def _pack(self, records: Sequence[tuple[Buffer, Sequence[Buffer]] | Rotation]) -> tuple[list[Buffer], int, Rotation | None]:
        """The pieces to write for the records up to the next rotation, the number of these records, and that rotation or None."""
        pieces: list[Buffer] = []
        count = 0
        for record in records:
            if isinstance(record, Rotation):
                return pieces, count, record
            pieces += pack_record(self._marker, self._synced, record[0], record[1])
            count += 1
        return pieces, count, None

    def _fail(self, text: str | None) -> None:
        if text != self._failure:
            self._failure = text
            self._report(self._on_failure, text)

    def _report(self, callback: Callable[..., None], argument: object) -> None:
        try:
            self._call_soon(lambda: callback(argument))
        except RuntimeError:
            pass  # the loop is closed: nobody is left to report to


def _write_all(file: int, pieces: Sequence[Buffer]) -> None:
    """Write with few system calls and without copying large pieces. Raises OSError."""
    small: list[Buffer] = []
    size = 0
    for piece in pieces:
        if len(piece) >= _LARGE_BYTES or size >= _LARGE_BYTES:
            _write_one(file, b"".join(small))
            small, size = [], 0
        if len(piece) >= _LARGE_BYTES:
            _write_one(file, piece)
        else:
            small.append(piece)
            size += len(piece)
    _write_one(file, b"".join(small))


def _write_one(file: int, piece: Buffer) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]
