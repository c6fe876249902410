"""How a process that holds millions of records collects garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: A young collection after so many new objects, an older one after so many of those, a full one after so many of these.
#: With Python's own 700, 10, 10 a third of a scheduler's time goes into looking at its tasks again and again, in vain: what
#: the core forgets is taken apart and freed at once, so that only a few cycles, of streams that ended, need a collection.
_THRESHOLDS: Final = (50_000, 20, 20)


def settle() -> None:
    """Call once in a process of our own, when all is imported and before there is data: what is there now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


_lock = threading.Lock()
_pauses = 0
_was_enabled = False


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing meanwhile, in no thread: for the short time in which very many objects are made that all stay.

    A third of the time that it takes to build a large graph would go into looking at what there is of it, again and again.
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
