"""The legal changes of a task's state, as data: feeds the dispatch, the diagram in the documentation and the tests."""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.records import (
    ERRED,
    FORGOTTEN,
    MEMORY,
    NO_WORKER,
    PROCESSING,
    QUEUED,
    RELEASED,
    STATE_NAMES,
    WAITING,
)

#: (start, finish) -> when it happens.
TABLE: Final[dict[tuple[int, int], str]] = {
    (RELEASED, WAITING): "somebody needs it",
    (RELEASED, MEMORY): "a client scattered it, or a worker came back with it",
    (RELEASED, ERRED): "needed, and a dependency has failed or is lost",
    (RELEASED, FORGOTTEN): "nobody can ask for it any more",
    (WAITING, QUEUED): "ready; waits for a place on a worker that may run it",
    (WAITING, PROCESSING): "ready; assigned where its data is",
    (WAITING, NO_WORKER): "ready, and no worker may run it",
    (WAITING, MEMORY): "a client scattered it, or a worker came back with it",
    (WAITING, ERRED): "a dependency failed",
    (WAITING, RELEASED): "nobody needs it any more",
    (NO_WORKER, WAITING): "a worker came that may run it, or a dependency was lost",
    (NO_WORKER, MEMORY): "a client scattered it, or a worker came back with it",
    (NO_WORKER, ERRED): "waited too long",
    (NO_WORKER, RELEASED): "nobody needs it any more",
    (QUEUED, PROCESSING): "assigned to a worker with room",
    (QUEUED, WAITING): "the last worker left, or a dependency was lost",
    (QUEUED, MEMORY): "a client scattered it, or a worker came back with it",
    (QUEUED, ERRED): "a dependency failed",
    (QUEUED, RELEASED): "nobody needs it any more",
    (PROCESSING, MEMORY): "finished",
    (PROCESSING, ERRED): "raised, or killed too many workers",
    (PROCESSING, WAITING): "its worker left, gave it back, or lost a dependency; or it is retried",
    (PROCESSING, RELEASED): "nobody needs it any more",
    (MEMORY, RELEASED): "nobody needs it any more, or the last copy was lost",
    (MEMORY, ERRED): "the last copy was lost and there is no recipe",
    (ERRED, RELEASED): "retried, or nobody needs it any more",
}

#: By start: bit ``finish`` is set for each legal change.
ALLOWED: Final[tuple[int, ...]] = tuple(
    [sum([1 << finish for begin, finish in TABLE if begin == start]) for start in range(len(STATE_NAMES))]
)


def readable() -> list[tuple[str, str, str]]:
    """(start, finish, reason) by name, in the order of the table."""
    return [(STATE_NAMES[start], STATE_NAMES[finish], reason) for (start, finish), reason in TABLE.items()]
