"""A simulated disk with a journal on it: what was written is safe when it was synced, a crash may tear the rest; it can be slow, or full.

The bytes are those of ``treadle.journal``, written by its writer's own packing and read by its reader; what is simulated is files and time.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

from treadle.journal.directory import Directory
from treadle.journal.format import END, Buffer, Header, pack_header, pack_record
from treadle.journal.reader import Segment
from treadle.journal.writer import PAUSE_S, RETRY_S, Rotation, Writer
from treadle.messages.journal import encode_record
from treadle.scheduler.journaling import Journal
from treadle.scheduler.recovery import recover
from treadle.scheduler.snapshot import snapshot
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.testing.simulation.network import World


class Disk:
    """Segments by number. It outlives the schedulers that write to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.segments: dict[int, bytearray] = {}
        #: So much of each is safe.
        self.synced: dict[int, int] = {}
        self.full = False
        #: How long a sync takes at most, seconds.
        self.sync_s = 0.005
        #: How often it has refused; how many bytes were lost in crashes.
        self.refusals = 0
        self.lost_bytes = 0

    def check_space(self) -> None:
        """Raises OSError."""
        if self.full:
            self.refusals += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, number: int, pieces: list[Buffer]) -> None:
        self.check_space()
        self.segments[number] += b"".join(pieces)

    def sync(self, number: int) -> None:
        self.synced[number] = len(self.segments[number])

    def crash(self, chance: random.Random) -> None:
        """Whoever writes is killed, or the power goes: what is not safe may be there, or in part, or with a hole in it."""
        whole = True
        for number, data in self.segments.items():
            safe = self.synced[number]
            if safe == len(data):
                continue
            whole = False
            kept = chance.choice((safe, len(data), chance.randint(safe, len(data))))
            self.lost_bytes += len(data) - kept
            del data[kept:]
            if kept > safe and chance.random() < 0.2:
                start = chance.randrange(safe, kept)
                end = min(kept, start + chance.choice((1, 16, 4096)))
                data[start:end] = bytes(end - start)
            self.synced[number] = len(data)
        if whole and self.segments and chance.random() < 0.2:
            # It was just making another one, which it does when all before is safe.
            newest = max(self.segments) + 1
            header = pack_header(Header("torn", 1, 7, False, "simulated"))
            self.segments[newest] = bytearray(header[: chance.randint(0, len(header) - 1)])
            self.synced[newest] = len(self.segments[newest])


class SimulatedDirectory(Directory):
    """What a scheduler, or compaction, sees of the disk."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.path = Path("simulated")

    def numbers(self) -> list[int]:
        return sorted(self.disk.segments)

    def read(self, number: int) -> Segment:
        return Segment(self.path_of(number), memoryview(bytes(self.disk.segments[number])))

    def tidy(self) -> None:
        kept = {number for number, _segment in self.segments()}
        for number in self.numbers():
            if number not in kept:
                self._remove(number)

    def cut(self, segment: Segment) -> None:
        number = int(segment.path.stem)
        if segment.header is None:
            self._remove(number)
        else:
            del self.disk.segments[number][segment.good_bytes :]
            self.disk.sync(number)

    def _remove(self, number: int) -> None:
        del self.disk.segments[number]
        del self.disk.synced[number]

    def sync(self) -> None:
        return

    def close(self) -> None:
        return


class SimulatedWriter(Writer):
    """Group commit as the real one does it, in simulated time instead of a thread."""

    _directory: SimulatedDirectory

    def _open(self, number: int) -> None:
        scheduler_id, epoch, release = self._identity
        disk = self._directory.disk
        disk.check_space()
        self._marker = disk.world.random.getrandbits(32)
        self._number = number
        assert number not in disk.segments, f"there is a segment {number} already"
        disk.segments[number] = bytearray(pack_header(Header(scheduler_id, epoch, self._marker, False, release)))
        disk.sync(number)
        self._written = self._synced = len(disk.segments[number])

    def _start(self) -> None:
        self._records: list[Any] = []
        self._busy = False
        self.killed = False

    def commit(self) -> None:
        if not self._busy:
            self._busy = True
            self._directory.disk.world.later(0.0, self._begin)

    def close(self, timeout_s: float = 5.0) -> None:
        self.killed = True

    def _begin(self) -> None:
        """Write what is queued; it is safe when the sync is over."""
        if self.killed:
            return
        self._records += self._queue
        self._queue.clear()
        if not self._records:
            self._busy = False
            return
        world, disk = self._directory.disk.world, self._directory.disk
        pieces, count, rotation = self._pack(self._records)
        try:
            if pieces:
                disk.write(self._number, pieces)
        except OSError as error:
            self._fail(error.strerror or str(error))
            world.later(RETRY_S, self._begin)
        else:
            world.later(disk.sync_s * world.random.random() if pieces else 0.0, lambda: self._safe(count, rotation))

    def _safe(self, count: int, rotation: Rotation | None) -> None:
        if self.killed:
            return
        disk = self._directory.disk
        if count:
            disk.sync(self._number)
            self._written = self._synced = disk.synced[self._number]
            self.durable += count
            del self._records[:count]
        try:
            if rotation is not None:
                self._open(rotation.number)
                del self._records[0]
                self._report(lambda done: done(), rotation.done)
        except OSError as error:
            self._fail(error.strerror or str(error))
            disk.world.later(RETRY_S, self._begin)
            return
        self._fail(None)
        self._report(self._on_durable, self.durable)
        disk.world.later(PAUSE_S if rotation is None else 0.0, self._begin)


class SimulatedJournal(Journal):
    """The real one, but for compaction, which is no process of its own here."""

    directory: SimulatedDirectory
    _writer: SimulatedWriter
    _compacting = False

    def kill(self) -> None:
        self._writer.close()

    def _compact(self) -> None:
        if self._compacting:
            return
        self._compacting = True
        number = self._segment + 1
        self._segment += 2
        world = self.directory.disk.world
        self._writer.rotate(self._segment, lambda: world.later(world.random.choice((0.0, 0.05)), lambda: self._finish_compaction(number)))

    def _finish_compaction(self, number: int) -> None:
        if self._writer.killed:
            return
        disk = self.directory.disk
        core = Transitions(Limits(), "compaction")
        recovery = recover(self.directory, core, below=number)
        marker = disk.world.random.getrandbits(32)
        pieces: list[Buffer] = [pack_header(Header("compaction", recovery.epoch, marker, True, "simulated"))]
        for record, buffers in snapshot(core.state, recovery.highest_number):
            pieces += pack_record(marker, 0, encode_record(record), buffers)
        pieces += pack_record(marker, 0, END)
        self._compacting = False
        if disk.full:
            return
        disk.segments[number] = bytearray(b"".join(pieces))
        disk.sync(number)
        self._snapshot_bytes = len(disk.segments[number])
        self.directory.tidy()
        self.compactions += 1


def told_by(disk: Disk) -> Transitions:
    """What a scheduler that started now would know."""
    core = Transitions(Limits(validate=True), "the judge")
    directory = SimulatedDirectory(disk)
    newest = max(directory.numbers(), default=0)
    recover(directory, core, below=newest + 1)
    core.validate()
    return core
