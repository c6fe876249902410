"""Workers report: what finished, failed, started, came, went or could not be had. Reports of old attempts are stale."""

from __future__ import annotations

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import TaskError
from treadle.messages.worker_scheduler import (
    ReplicasMissing,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
)
from treadle.scheduler.transitions.durations import learn_duration, raise_estimate, set_long_running
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.quarantine import is_emptied
from treadle.scheduler.transitions.records import ERRED, MEMORY, RELEASED, WAITING, TaskState, WorkerState
from treadle.scheduler.transitions.replicas import lost_replica, replica_came
from treadle.scheduler.transitions.rules.common import add_replica, remove_replica
from treadle.scheduler.transitions.rules.memory import to_memory
from treadle.scheduler.transitions.state import ClusterState


def check_attempts(message: TasksStarted | TasksSeceded | TasksRescheduled | TasksTakenBack) -> None:
    """Raises PeerProtocolError unless each id has an attempt; before anything was changed."""
    if len(message.ids) != len(message.attempts):
        raise PeerProtocolError(f"{type(message).__name__}: columns of different lengths")


def current(state: ClusterState, worker: WorkerState, id: int, attempt: int) -> TaskState | None:
    """The task that ``worker`` is to run as ``attempt``, or None for a stale report."""
    task = state.by_id.get(id)
    if task is None or task.processing_on is not worker or task.attempt != attempt:
        return None
    return task


def drop_stale(state: ClusterState, worker: WorkerState, id: int, out: Outbox) -> None:
    """``worker`` has a result that nobody asked it for (any more): it shall not keep it."""
    task = state.by_id.get(id)
    if task is None or (task not in worker.has_what and task.processing_on is not worker):
        out.drop_id(id, worker)


def tasks_finished(state: ClusterState, worker: WorkerState, message: TasksFinished, out: Outbox) -> None:
    ids: list[int] = message.ids
    attempts: list[int] = message.attempts
    sizes: list[int] = message.nbytes
    types: list[int] = message.types
    type_names: list[str] = message.type_names
    starts: list[float] = message.starts
    stops: list[float] = message.stops
    values: list[bytes] | None = message.values
    length = len(ids)
    for column in (attempts, sizes, types, starts, stops, values):
        if column is not None and len(column) != length:
            raise PeerProtocolError("TasksFinished: columns of different lengths")
    known_types = len(type_names)
    for number in types:
        if not 0 <= number < known_types:
            raise PeerProtocolError(f"TasksFinished: type {number} of {known_types}")
    for row in range(length):
        id = ids[row]
        task = current(state, worker, id, attempts[row])
        if task is None:
            # The task was cancelled, or given to another worker, while this one ran it.
            if not worker.orphans or not state.recovery.finished(worker, id, sizes[row], type_names[types[row]]):
                drop_stale(state, worker, id, out)
            continue
        if stops[row] > 0:
            # Without times the worker had the value already and ran nothing.
            learn_duration(task, stops[row] - starts[row])
        state.total_finished += 1
        to_memory(state, task, worker, sizes[row], type_names[types[row]], out, b"" if values is None else values[row])


def tasks_erred(state: ClusterState, worker: WorkerState, message: TasksErred, out: Outbox) -> None:
    for row in message.tasks:
        task = current(state, worker, row.id, row.attempt)
        if task is None:
            state.recovery.ended(state, worker, row.id)
            drop_stale(state, worker, row.id, out)
        else:
            task.account.used_s += max(0.0, row.stop - row.start) * task.account.rate
            task_erred(state, task, row.error)


def task_erred(state: ClusterState, task: TaskState, error: TaskError) -> None:
    """The attempt under way has failed."""
    if task.retries > 0:
        task.retries -= 1
        if state.recorder is not None:
            state.recorder.retried(task)
        state.recommend(task, WAITING)
    else:
        task.error = error
        task.blame = task
        state.recommend(task, ERRED)


def tasks_returned(state: ClusterState, worker: WorkerState, message: TasksTakenBack) -> None:
    """The worker gave these back."""
    check_attempts(message)
    for id, attempt in zip(message.ids, message.attempts, strict=True):
        task = current(state, worker, id, attempt)
        if task is not None:
            state.recommend(task, WAITING)
        else:
            state.recovery.ended(state, worker, id)


def tasks_rescheduled(state: ClusterState, worker: WorkerState, message: TasksRescheduled) -> None:
    """These asked to run elsewhere, where there is another worker."""
    check_attempts(message)
    for id, attempt in zip(message.ids, message.attempts, strict=True):
        task = current(state, worker, id, attempt)
        if task is not None:
            state.avoided[task] = worker
            state.recommend(task, WAITING)
        else:
            state.recovery.ended(state, worker, id)


def take_back_refused(state: ClusterState, worker: WorkerState, ids: list[int]) -> None:
    """It has begun these. One that is to have nothing left is not asked for them again."""
    if is_emptied(state, worker):
        return
    for id in ids:
        task = state.by_id.get(id)
        if task is not None:
            worker.taking_back.pop(task, None)


def tasks_started(state: ClusterState, worker: WorkerState, message: TasksStarted) -> None:
    check_attempts(message)
    for id, attempt in zip(message.ids, message.attempts, strict=True):
        task = current(state, worker, id, attempt)
        if task is not None:
            worker.executing[task] = None
            raise_estimate(state, task, worker)


def tasks_seceded(state: ClusterState, worker: WorkerState, message: TasksSeceded) -> None:
    check_attempts(message)
    for id, attempt in zip(message.ids, message.attempts, strict=True):
        task = current(state, worker, id, attempt)
        if task is not None:
            set_long_running(state, task, worker)


def replicas_added(state: ClusterState, worker: WorkerState, ids: list[int], out: Outbox) -> None:
    for id in ids:
        task = state.by_id.get(id)
        if task is not None and task.state == MEMORY:
            if state.replicating:
                replica_came(state, task, worker)
            add_replica(state, task, worker)
        else:
            # Released while it was on its way, or put there by a client that has not lived to say so.
            drop_stale(state, worker, id, out)


def replicas_dropped(state: ClusterState, worker: WorkerState, ids: list[int], out: Outbox) -> None:
    for id in ids:
        task = state.by_id.get(id)
        if task is not None and task in worker.has_what:
            remove_replica(state, task, worker)
            lost_replica(state, task, out)


def replicas_missing(state: ClusterState, worker: WorkerState, message: ReplicasMissing, out: Outbox) -> None:
    """``worker`` could not have these from those holders: what a holder does not have is struck off its list."""
    if len(message.ids) != len(message.holders):
        raise PeerProtocolError("ReplicasMissing: columns of different lengths")
    elsewhere: dict[TaskState, None] = {}
    for id, number in zip(message.ids, message.holders, strict=True):
        task = state.by_id.get(id)
        if task is None or task.state != MEMORY:
            # It is being made again; the assignment that needs it was called back when it was lost. Nor is a copy to be waited for.
            drop_stale(state, worker, id, out)
            continue
        holder = state.by_number.get(number)
        if holder is not None:
            # Also itself: asked for a value that it is said to have and has not, it would ask for ever.
            remove_replica(state, task, holder)
            if holder is not worker:
                out.drop_id(task.id, holder)
        if task.who_has:
            elsewhere[task] = None
        else:
            elsewhere.pop(task, None)
            drop_stale(state, worker, id, out)
            state.recommend(task, RELEASED)
    if elsewhere:
        out.holders_changed(worker, list(elsewhere))
