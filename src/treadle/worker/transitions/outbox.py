"""All outputs of one turn of the worker's core: instructions for the shell and messages for the scheduler. No I/O."""

from __future__ import annotations

from typing import Final, TypeVar

from treadle.messages.base import Message
from treadle.messages.local import Execute, Fetch
from treadle.messages.worker_scheduler import (
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TaskErred,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerStatus,
)

#: A message with more than that is closed, and another one begun.
MESSAGE_BYTES: Final = 16 * 2**20

T = TypeVar("T")


def _take_row(column: list[T], at: int) -> None:
    """The last row takes its place."""
    last = column.pop()
    if at < len(column):
        column[at] = last


class WorkerOutbox:
    """The shell performs it in this order: ``drop``, ``store``, send ``messages()``, ``execute``, ``take_back``, ``fetch``.

    Drop comes before store because a key may come back under another id in the same turn. Execute comes before take back
    because a task may be assigned and dropped in the same turn.
    """

    __slots__ = (
        "_erred",
        "_finished_attempts",
        "_finished_ids",
        "_finished_nbytes",
        "_finished_rows",
        "_finished_starts",
        "_finished_stops",
        "_finished_types",
        "_given_back",
        "_given_back_attempts",
        "_kept",
        "_missing",
        "_missing_holders",
        "_replicas_added",
        "_replicas_dropped",
        "_rescheduled",
        "_rescheduled_attempts",
        "_seceded",
        "_seceded_attempts",
        "_started",
        "_started_attempts",
        "_type_index",
        "_type_names",
        "closed_peers",
        "drop",
        "execute",
        "fetch",
        "paused",
        "resumed",
        "store",
        "take_back",
        "wake_at",
    )

    def __init__(self) -> None:
        #: Keys of the values to free.
        self.drop: list[object] = []
        #: Values to keep: id -> (key, value). ``StoreFailed`` names those that could not be stored.
        self.store: dict[int, tuple[object, object]] = {}
        #: Ids to take back from the executor. Answered by ``TakeBackDone`` before any other event.
        self.take_back: list[int] = []
        self.execute: list[Execute] = []
        self.fetch: list[Fetch] = []
        #: Addresses of workers that left: connections to them are useless.
        self.closed_peers: list[str] = []
        #: When to send a ``Tick``; 0 if none is needed.
        self.wake_at: float = 0.0
        #: Whether the worker was paused, or resumed, in this turn.
        self.paused: bool = False
        self.resumed: bool = False

        #: Where each id stands; made when the first report is taken back.
        self._finished_rows: dict[int, int] | None = None
        self._finished_ids: list[int] = []
        self._finished_attempts: list[int] = []
        self._finished_nbytes: list[int] = []
        self._finished_types: list[int] = []
        self._finished_starts: list[float] = []
        self._finished_stops: list[float] = []
        self._type_index: dict[str, int] = {}
        self._type_names: list[str] = []
        self._erred: list[TaskErred] = []
        self._rescheduled: list[int] = []
        self._rescheduled_attempts: list[int] = []
        self._started: list[int] = []
        self._started_attempts: list[int] = []
        self._seceded: list[int] = []
        self._seceded_attempts: list[int] = []
        self._given_back: list[int] = []
        self._given_back_attempts: list[int] = []
        self._kept: list[int] = []
        self._replicas_added: dict[int, None] = {}
        self._replicas_dropped: dict[int, None] = {}
        self._missing: list[int] = []
        self._missing_holders: list[int] = []

    # ------------------------------------------------------------------------------------------ reports

    def finished(self, id: int, attempt: int, nbytes: int, type_name: str, start: float, stop: float) -> None:
        index = self._type_index.get(type_name, -1)
        if index < 0:
            index = len(self._type_names)
            self._type_index[type_name] = index
            self._type_names.append(type_name)
        if self._replicas_dropped:
            self._replicas_dropped.pop(id, None)
        self._finished_ids.append(id)
        self._finished_attempts.append(attempt)
        self._finished_nbytes.append(nbytes)
        self._finished_types.append(index)
        self._finished_starts.append(start)
        self._finished_stops.append(stop)

    def erred(self, row: TaskErred) -> None:
        self._erred.append(row)

    def rescheduled(self, id: int, attempt: int) -> None:
        self._rescheduled.append(id)
        self._rescheduled_attempts.append(attempt)

    def started(self, id: int, attempt: int) -> None:
        self._started.append(id)
        self._started_attempts.append(attempt)

    def seceded(self, id: int, attempt: int) -> None:
        self._seceded.append(id)
        self._seceded_attempts.append(attempt)

    def given_back(self, id: int, attempt: int) -> None:
        self._given_back.append(id)
        self._given_back_attempts.append(attempt)

    def kept(self, id: int) -> None:
        self._kept.append(id)

    def replica_added(self, id: int) -> None:
        self._replicas_dropped.pop(id, None)
        self._replicas_added[id] = None

    def replica_dropped(self, id: int) -> None:
        self._replicas_dropped[id] = None

    def replica_renamed(self, id: int) -> None:
        """The id stands for another value from now on: withdraw the report that a value with that id was dropped."""
        self._replicas_dropped.pop(id, None)

    def missing(self, id: int, holder: int) -> None:
        self._missing.append(id)
        self._missing_holders.append(holder)

    # ----------------------------------------------------------------------------------------- withdrawals

    def unstore(self, id: int) -> bool:
        """The value is dropped in the turn in which it came: neither store it nor report it as added.

        Returns whether it was to be stored in this turn.
        """
        if self.store.pop(id, None) is None:
            return False
        self._replicas_added.pop(id, None)
        return True

    def withdraw_finished(self, id: int) -> tuple[int, float, float] | None:
        """Withdraw the report that a task finished. Returns its attempt, start and stop; None if there is no such report.

        Called between ``handle`` and ``messages`` for results that the store refused.
        """
        if self._finished_rows is None:
            # Of one that was reported twice, the first.
            self._finished_rows = {self._finished_ids[at]: at for at in reversed(range(len(self._finished_ids)))}
        at = self._finished_rows.pop(id, -1)
        if at < 0:
            return None
        found = self._finished_attempts[at], self._finished_starts[at], self._finished_stops[at]
        for column in (self._finished_ids, self._finished_attempts, self._finished_nbytes, self._finished_types):
            _take_row(column, at)
        for times in (self._finished_starts, self._finished_stops):
            _take_row(times, at)
        if at < len(self._finished_ids):
            self._finished_rows[self._finished_ids[at]] = at
        return found

    # ------------------------------------------------------------------------------------------ messages

    def messages(self) -> list[Message]:
        """The messages to the scheduler, in the order of events: tasks that started, then how tasks ended."""
        messages: list[Message] = []
        if self.paused or self.resumed:
            messages.append(WorkerStatus("paused" if self.paused else "running"))
        if self._started:
            messages.append(TasksStarted(self._started, self._started_attempts))
        if self._seceded:
            messages.append(TasksSeceded(self._seceded, self._seceded_attempts))
        if self._replicas_added:
            messages.append(ReplicasAdded(list(self._replicas_added)))
        if self._finished_ids:
            messages.append(
                TasksFinished(
                    self._finished_ids,
                    self._finished_attempts,
                    self._finished_nbytes,
                    self._finished_types,
                    self._type_names,
                    self._finished_starts,
                    self._finished_stops,
                )
            )
        if self._erred:
            messages += _in_parts(self._erred)
        if self._rescheduled:
            messages.append(TasksRescheduled(self._rescheduled, self._rescheduled_attempts))
        if self._replicas_dropped:
            messages.append(ReplicasDropped(list(self._replicas_dropped)))
        if self._missing:
            messages.append(ReplicasMissing(self._missing, self._missing_holders))
        if self._given_back or self._kept:
            messages.append(TasksTakenBack(self._given_back, self._given_back_attempts, self._kept))
        return messages


def _in_parts(rows: list[TaskErred]) -> list[Message]:
    """Errors may be large: a message has some, or one."""
    parts: list[Message] = []
    part: list[TaskErred] = []
    nbytes = 0
    for row in rows:
        nbytes += len(row.error.exception) + len(row.error.traceback)
        if part and nbytes > MESSAGE_BYTES:
            parts.append(TasksErred(part))
            part = []
            nbytes = 0
        part.append(row)
    parts.append(TasksErred(part))
    return parts
