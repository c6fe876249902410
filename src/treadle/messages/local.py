"""What never travels: the instructions a worker's core gives to its shell, and the events the shell answers with.

Each instruction ends in exactly one event (named in its docstring). Columns have a row a task.
"""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.messages.base import TaskError
from treadle.messages.worker_scheduler import TaskErred

# -------------------------------------------------------------------------------------- core -> shell


class Execute(msgspec.Struct, gc=False):
    """Run this. Ends in a row of ``ExecutionsDone``, or in ``ExecutionFailed``, ``ExecutionRescheduled``,
    ``ExecutionUnready``, or in ``TakeBackDone.taken`` when the core asked for it back in time."""

    id: int
    key: Any
    attempt: int
    #: Function id; 0: the payload is a pickled graph node, called with key -> value of ``dependencies``.
    function: int
    payload: bytes
    #: (minus the user's priority, generation, rank): smaller runs first.
    priority: tuple[float, float, int]
    #: Keys of the values it needs; they are in the store when this is given out.
    dependencies: list[Any] | None = None
    #: Out-of-band buffers of ``payload``.
    buffers: list[Any] | None = None
    #: Name of the worker's executor; None means the thread pool.
    executor: str | None = None
    #: A small value shall go to the scheduler with the report.
    eager: bool = False


class Fetch(msgspec.Struct, gc=False):
    """Ask that peer for these values, in one request. Ends in ``FetchDone``, ``FetchBusy`` or ``FetchFailed``."""

    peer: int
    address: str
    ids: list[int]


# -------------------------------------------------------------------------------------- shell -> core


class ExecutionsDone(msgspec.Struct):
    """These returned. ``starts`` and ``stops`` are wall-clock seconds."""

    ids: list[int]
    values: list[Any]
    nbytes: list[int]
    types: list[str]
    starts: list[float]
    stops: list[float]


class ExecutionFailed(msgspec.Struct):
    """It raised, or its specification could not be unpickled."""

    id: int
    error: TaskError
    start: float
    stop: float


class ExecutionRescheduled(msgspec.Struct):
    """It raised ``Reschedule``."""

    id: int


class ExecutionUnready(msgspec.Struct):
    """A value it needs was dropped before it started; nothing of it ran."""

    id: int


class ExecutionsStarted(msgspec.Struct):
    """These are executing, and have been for a moment."""

    ids: list[int]


class ExecutionsSeceded(msgspec.Struct):
    """These left the thread pool."""

    ids: list[int]


class TakeBackDone(msgspec.Struct):
    """What became of the instruction to take tasks back from the executor: had not started, or had (or is done)."""

    taken: list[int]
    kept: list[int]


class StoreFailed(msgspec.Struct):
    """The store refused these results of this turn; their reports were taken back (``WorkerOutbox.withdraw_finished``)."""

    rows: list[TaskErred]


class FetchDone(msgspec.Struct):
    """A peer's answer. What was ``asked`` and is in none of the three others is to be asked for again."""

    peer: int
    asked: list[int]
    ids: list[int]
    values: list[Any]
    nbytes: list[int]
    types: list[str]
    missing: list[int]
    failed: list[tuple[int, TaskError]]


class FetchBusy(msgspec.Struct):
    """The peer serves too many at the moment."""

    peer: int
    asked: list[int]


class FetchFailed(msgspec.Struct):
    """The peer could not be reached, or the connection broke before it had answered."""

    peer: int
    asked: list[int]


class DataPut(msgspec.Struct):
    """A client or peer handed over these values to keep."""

    ids: list[int]
    keys: list[Any]
    values: list[Any]
    nbytes: list[int]
    types: list[str]


class DataLost(msgspec.Struct):
    """The store no longer has these."""

    ids: list[int]


class BuffersCame(msgspec.Struct):
    """The out-of-band buffers of the rows of the ``ComputeTasks`` that is the next event."""

    buffers: list[Any]


class Paused(msgspec.Struct):
    """Hand out no new executions (True), or go on (False)."""

    paused: bool


class Tick(msgspec.Struct):
    """The time that the outbox asked for has come."""
