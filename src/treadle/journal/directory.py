"""The directory of a journal: for one scheduler at a time, with numbered segments and snapshots that replace older segments."""

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
    """A journal's directory, locked against other processes until ``close`` or the end of this process.

    ``lock=False``: the caller holds the lock by other means.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock: bool = True) -> None:
        """Create the directory if it is missing. Raises JournalError that says why the directory cannot be used."""
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
        """Take others' access to existing files away. Raises JournalError for a file that belongs to another user."""
        try:
            for path in self.path.iterdir():
                if path.suffix in (_SUFFIX, _NEW) or path.name == _LOCK:
                    make_private(path)
        except OSError as error:
            raise JournalError(f"the journal in {self.path} cannot be used: {error.strerror or error}") from error

    def _check_space(self) -> None:
        """Check that a block can be written, before any work is accepted. Raises JournalError."""
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
        """Where a snapshot is written until it is complete."""
        return self.path / f"{number:010d}{_SUFFIX}{_NEW}"

    def numbers(self) -> list[int]:
        """The numbers of the existing segments, oldest first. Raises JournalError for a file whose name is no segment's."""
        found: list[int] = []
        for path in self.path.iterdir():
            if path.suffix == _SUFFIX:
                if not path.stem.isdecimal():
                    raise JournalError(f"{path} is not a segment of a journal; move it away, or name another directory")
                found.append(int(path.stem))
        return sorted(found)

    def read(self, number: int) -> Segment:
        """The segment of that number. Raises JournalError for a file that is no segment of this version."""
        return Segment(self.path_of(number))

    def segments(self, below: int | None = None) -> list[tuple[int, Segment]]:
        """(number, segment) of the segments that a reader needs, oldest first: the last snapshot and all that follow it.

        ``below``: consider only segments with smaller numbers.
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
        """Remove what no reader needs: segments before the last snapshot, and unfinished snapshots."""
        for path in list(self.path.iterdir()):
            if path.suffix == _NEW:
                path.unlink(missing_ok=True)
        kept = {number for number, _segment in self.segments()}
        for number in self.numbers():
            if number not in kept:
                self.path_of(number).unlink(missing_ok=True)
        self.sync()

    def cut(self, segment: Segment) -> None:
        """Cut the torn tail off a segment that was read to its end; remove a segment without a header."""
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
        """Release the lock, so that another scheduler can use the directory. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
