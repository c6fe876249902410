"""Garbage collection in a process that holds millions of records."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: New objects before a young collection, young collections before an older one, older ones before a full one.
#: With Python's own 700, 10, 10 a scheduler spends a third of its time scanning its tasks again and again, in vain: the core
#: breaks up what it forgets, so reference counts free it, and only a few cycles of streams that ended need a collection.
_THRESHOLDS: Final = (50_000, 20, 20)


def settle() -> None:
    """Call once in a process of our own, after all imports and before there is data: objects that exist by then are never scanned again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


_lock = threading.Lock()
_pauses = 0
_was_enabled = False


@contextmanager
def paused() -> Iterator[None]:
    """Suspend garbage collection in all threads, for a short time in which very many objects are made that all stay.

    Otherwise a third of the time to build a large graph would go into scanning its parts again and again.
    """
    global _pauses, _was_enabled
    with _lock:
        if not _pauses:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_enabled:
                gc.enable()
