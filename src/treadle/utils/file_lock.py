"""A lock on a file's name, shared by all threads and processes on all hosts that reach the file system."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from treadle.utils.private import create_private

_known: WeakValueDictionary[str, FileLock] = WeakValueDictionary()
_known_guard = threading.Lock()
#: Seconds between two attempts of a wait with a timeout.
_AGAIN_S = 0.01


class FileLock:
    """As ``threading.Lock``, between processes too: they ``flock`` a file beside the named one, which exists while the lock is held.

    Needs a file system with ``flock``, also over a network, as HDF5 does for its own locks. Pickles as the file's name.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        target = Path(self.path)
        self._lock_path = target.with_name(f".{target.name}.lock")
        self._threads = threading.Lock()
        self._descriptor = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return lock_of_file, (self.path,)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Raises OSError when the lock's file cannot be created beside the named one."""
        began = time.monotonic()
        if not self._threads.acquire(blocking, timeout):
            return False
        try:
            while True:
                descriptor = create_private(self._lock_path, os.O_RDWR)
                try:
                    wait = blocking and timeout < 0
                    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                    if self._is_the_file(descriptor):
                        self._descriptor = descriptor
                        return True
                    # Its holder has removed that file meanwhile; a new one may have its name now.
                except BlockingIOError:
                    if not blocking or time.monotonic() - began >= timeout:
                        os.close(descriptor)
                        self._threads.release()
                        return False
                    time.sleep(_AGAIN_S)
                os.close(descriptor)
        except BaseException:
            if self._descriptor < 0 and self._threads.locked():
                self._threads.release()
            raise

    def _is_the_file(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._lock_path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Raises RuntimeError when the lock is not held."""
        if self._descriptor < 0:
            raise RuntimeError("release unlocked lock")
        descriptor, self._descriptor = self._descriptor, -1
        os.unlink(self._lock_path)
        os.close(descriptor)
        self._threads.release()

    def locked(self) -> bool:
        """Whether this process holds the lock or waits for it."""
        return self._threads.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<FileLock {self.path!r}>"


def lock_of_file(path: str) -> FileLock:
    """The lock that this process uses for that file name."""
    path = os.path.abspath(path)
    with _known_guard:
        lock = _known.get(path)
        if lock is None:
            lock = _known[path] = FileLock(path)
        return lock
