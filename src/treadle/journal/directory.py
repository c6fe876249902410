"""The directory of a journal: one scheduler at a time, segments by number, a snapshot that makes older ones superfluous."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

from treadle.exceptions import JournalError
from treadle.journal.reader import Segment
from treadle.utils.private import create_private, make_private, make_private_directory

if sys.platform != "win32":
    import fcntl

_SUFFIX: Final = ".journal"
_NEW: Final = ".new"
_LOCK: Final = "lock"


class Directory:
    """A journal's directory, locked against other processes until ``close`` (or the end of this process).

    Without ``lock`` somebody else holds the lock and answers for what is done here.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock: bool = True) -> None:
        """Makes the directory if need be. Raises JournalError that says what is wrong with it."""
        self.path = Path(path).expanduser().absolute()
        self._lock = -1
        if not lock:
            return
        try:
            make_private_directory(self.path)
            self._lock = create_private(self.path / _LOCK, os.O_RDWR)
        except OSError as error:
            raise JournalError(f"the journal's directory {self.path} cannot be used: {error.strerror or error}") from error
        try:
            self._take_lock()
            self._close_to_others()
            self._check_space()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise JournalError(f"{self.path / _LOCK} cannot be locked: {error.strerror}") from error
                owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
                raise JournalError(
                    f"the journal in {self.path} is in use by another scheduler (process {owner}); stop that one, or name another directory"
                ) from None
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _close_to_others(self) -> None:
        """What is there already is for its owner only from here on, and nobody else has put it there."""
        try:
            for path in self.path.iterdir():
                if path.suffix in (_SUFFIX, _NEW) or path.name == _LOCK:
                    make_private(path)
        except OSError as error:
            raise JournalError(f"the journal in {self.path} cannot be used: {error.strerror or error}") from error

    def _check_space(self) -> None:
        """Whether a block can be written at all, before any work is accepted."""
        probe = self.path / ("probe" + _NEW)
        try:
            probe.unlink(missing_ok=True)
            with open(create_private(probe), "wb") as file:
                file.write(bytes(65536))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(f"the journal's directory {self.path} cannot be written: {error.strerror or error}") from error
        finally:
            probe.unlink(missing_ok=True)

    def path_of(self, number: int) -> Path:
        return self.path / f"{number:010d}{_SUFFIX}"

    def new_path_of(self, number: int) -> Path:
        """Where a snapshot is written before it is whole."""
        return self.path / f"{number:010d}{_SUFFIX}{_NEW}"

    def numbers(self) -> list[int]:
        """The segments that are there, oldest first. Raises JournalError for a name that is none."""
        found: list[int] = []
        for path in self.path.iterdir():
            if path.suffix == _SUFFIX:
                if not path.stem.isdecimal():
                    raise JournalError(f"{path} is not a segment of a journal; move it away, or name another directory")
                found.append(int(path.stem))
        return sorted(found)

    def read(self, number: int) -> Segment:
        """Raises JournalError for what is no segment of this version."""
        return Segment(self.path_of(number))

    def segments(self, below: int | None = None) -> list[tuple[int, Segment]]:
        """(number, segment) of those that count, oldest first: the last snapshot and all that follow it.

        ``below``: of those with smaller numbers only.
        """
        found: list[tuple[int, Segment]] = []
        for number in reversed(self.numbers()):
            if below is not None and number >= below:
                continue
            segment = self.read(number)
            found.append((number, segment))
            if segment.header is not None and segment.header.snapshot:
                break
        return found[::-1]

    def tidy(self) -> None:
        """Remove what no reader needs: segments in front of the last snapshot, and snapshots that were never finished."""
        for path in list(self.path.iterdir()):
            if path.suffix == _NEW:
                path.unlink(missing_ok=True)
        kept = {number for number, _segment in self.segments()}
        for number in self.numbers():
            if number not in kept:
                self.path_of(number).unlink(missing_ok=True)
        self.sync()

    def cut(self, segment: Segment) -> None:
        """Cut the torn tail off a segment that was read to its end; one without a header goes away."""
        if segment.header is None:
            segment.path.unlink(missing_ok=True)
        elif segment.good_bytes < segment.size:
            with segment.path.open("rb+") as file:
                file.truncate(segment.good_bytes)
                os.fsync(file.fileno())
        self.sync()

    def sync(self) -> None:
        """Make sure that the names of new files are on disk."""
        if sys.platform != "win32":
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let another scheduler have it. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
