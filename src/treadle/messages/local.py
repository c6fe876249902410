"""Instructions of a worker's core to its shell, and the shell's events that answer them. They never travel.

Each instruction ends in exactly one event, which its docstring names. Columns have one row per task.
"""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.messages.base import TaskError
from treadle.messages.worker_scheduler import TaskErred

# -------------------------------------------------------------------------------------- core -> shell


class Execute(msgspec.Struct, gc=False):
    """Run this task. Ends in a row of ``ExecutionsDone``, in ``ExecutionFailed``, ``ExecutionRescheduled`` or
    ``ExecutionUnready``, or in ``TakeBackDone.taken`` when the core takes the task back in time."""

    id: int
    key: Any
    attempt: int
    #: Function id; 0: the payload is a pickled graph node, called with key -> value of ``dependencies``.
    function: int
    payload: bytes
    #: (minus the user's priority, generation, rank): smaller runs first.
    priority: tuple[float, float, int]
    #: Keys of the values that the task needs; they are in the store when the instruction is given.
    dependencies: list[Any] | None = None
    #: Out-of-band buffers of ``payload``.
    buffers: list[Any] | None = None
    #: Name of the worker's executor; None means the thread pool.
    executor: str | None = None
    #: Whether a small value is to travel to the scheduler with the report.
    eager: bool = False


class Fetch(msgspec.Struct, gc=False):
    """Request these values from the peer, in one request. Ends in ``FetchDone``, ``FetchBusy`` or ``FetchFailed``."""

    peer: int
    address: str
    ids: list[int]


# -------------------------------------------------------------------------------------- shell -> core


class ExecutionsDone(msgspec.Struct):
    """These tasks returned. ``starts`` and ``stops``: seconds since the epoch."""

    ids: list[int]
    values: list[Any]
    nbytes: list[int]
    types: list[str]
    starts: list[float]
    stops: list[float]


class ExecutionFailed(msgspec.Struct):
    """The task raised, or its specification could not be unpickled."""

    id: int
    error: TaskError
    start: float
    stop: float


class ExecutionRescheduled(msgspec.Struct):
    """The task raised ``Reschedule``."""

    id: int


class ExecutionUnready(msgspec.Struct):
    """A value that the task needs was dropped before the task started; nothing of it ran."""

    id: int


class ExecutionsStarted(msgspec.Struct):
    """These tasks have been executing for a moment."""

    ids: list[int]


class ExecutionsSeceded(msgspec.Struct):
    """These tasks left the thread pool."""

    ids: list[int]


class TakeBackDone(msgspec.Struct):
    """The result of taking tasks back from the executor: ``taken`` had not started, ``kept`` had, or are done."""

    taken: list[int]
    kept: list[int]


class StoreFailed(msgspec.Struct):
    """The store refused these results of this turn; their reports were withdrawn (``WorkerOutbox.withdraw_finished``)."""

    rows: list[TaskErred]


class FetchDone(msgspec.Struct):
    """A peer's answer. An id of ``asked`` that is in none of ``ids``, ``missing`` and ``failed`` is to be requested again."""

    peer: int
    asked: list[int]
    ids: list[int]
    values: list[Any]
    nbytes: list[int]
    types: list[str]
    missing: list[int]
    failed: list[tuple[int, TaskError]]


class FetchBusy(msgspec.Struct):
    """The peer serves too many requests at the moment."""

    peer: int
    asked: list[int]


class FetchFailed(msgspec.Struct):
    """The peer could not be reached, or the connection broke before the peer answered."""

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
    """The store no longer has these values."""

    ids: list[int]


class BuffersCame(msgspec.Struct):
    """The out-of-band buffers of the ``ComputeTasks`` that is the next event, in the order of its rows."""

    buffers: list[Any]


class Paused(msgspec.Struct):
    """Start no new executions (True), or go on (False)."""

    paused: bool


class Tick(msgspec.Struct):
    """The time that the outbox asked for has come."""
