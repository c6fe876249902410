"""The legal changes of a task's state, as data: feeds validation, documentation and tests."""

from __future__ import annotations

from typing import Final

from treadle.worker.transitions.records import (
    CANCELLED,
    CONSTRAINED,
    ERROR,
    EXECUTING,
    FETCH,
    FLIGHT,
    FORGOTTEN,
    LONG_RUNNING,
    MEMORY,
    MISSING,
    NEW,
    READY,
    WAITING,
)

#: start -> the states that may follow.
LEGAL: Final[dict[int, tuple[int, ...]]] = {
    NEW: (WAITING, CONSTRAINED, READY, MEMORY, FETCH, MISSING),
    # Assigned states -> FETCH, MISSING: the assignment ended, but a task here needs the value.
    # Assigned states -> CANCELLED: the assignment ended, but a request for the value is still under way.
    WAITING: (CONSTRAINED, READY, FETCH, FLIGHT, MISSING, CANCELLED, ERROR, FORGOTTEN),
    # -> CONSTRAINED: another attempt; -> WAITING: a value that it needs was lost.
    CONSTRAINED: (WAITING, CONSTRAINED, READY, FETCH, FLIGHT, MISSING, CANCELLED, FORGOTTEN),
    # -> WAITING, CONSTRAINED, READY: the executor gave it back, or a value that it needs was lost.
    READY: (WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING, MEMORY, FETCH, FLIGHT, MISSING, CANCELLED, ERROR, FORGOTTEN),
    # -> WAITING, CONSTRAINED, READY: collecting its values took long, and one was lost.
    EXECUTING: (WAITING, CONSTRAINED, READY, LONG_RUNNING, MEMORY, FETCH, FLIGHT, MISSING, CANCELLED, ERROR, FORGOTTEN),
    LONG_RUNNING: (MEMORY, FETCH, FLIGHT, MISSING, CANCELLED, ERROR, FORGOTTEN),
    # Never to an assigned state: a value that is here is not computed again.
    MEMORY: (FETCH, FLIGHT, MISSING, CANCELLED, ERROR, FORGOTTEN),
    FETCH: (FLIGHT, MISSING, MEMORY, WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING, CANCELLED, FORGOTTEN),
    FLIGHT: (FETCH, MISSING, MEMORY, WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING, CANCELLED, FORGOTTEN),
    MISSING: (FETCH, MEMORY, WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING, CANCELLED, FORGOTTEN),
    CANCELLED: (WAITING, CONSTRAINED, READY, EXECUTING, LONG_RUNNING, MEMORY, FETCH, FLIGHT, MISSING, FORGOTTEN),
    ERROR: (FETCH, FLIGHT, MISSING, CANCELLED, FORGOTTEN),
    FORGOTTEN: (),
}


def is_legal(start: int, finish: int) -> bool:
    return finish in LEGAL[start]
