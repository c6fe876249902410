"""The interpreter of a process of our own: how it collects garbage and switches threads, and whether the cores are compiled."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from typing import Final

#: New objects before a young collection, young collections before an older one, older ones before a full one.
#: With Python's own 700, 10, 10 a scheduler spends a third of its time scanning its tasks again and again, in vain: the core
#: breaks up what it forgets, so reference counts free it, and only a few cycles of streams that ended need a collection.
_THRESHOLDS: Final = (50_000, 20, 20)
#: Seconds that a thread may keep the interpreter when another one waits for it.
_SWITCH_S: Final = 0.001


def settle_garbage() -> None:
    """Call once in a process of our own, after all imports and before there is data: objects that exist by then are never scanned again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


_lock = threading.Lock()
_pauses = 0
_was_enabled = False


@contextmanager
def garbage_paused() -> Iterator[None]:
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


def answer_quickly() -> None:
    """Call once in a worker's process. Its loop serves peers while tasks compute in Python, and with Python's default of 5 ms each
    message in or out would wait that long."""
    sys.setswitchinterval(_SWITCH_S)


def is_compiled() -> bool:
    """Whether the scheduler's core is a compiled extension module, or would be if it were imported."""
    spec = find_spec("treadle.scheduler.transitions.machine")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
