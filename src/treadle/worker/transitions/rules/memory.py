"""Rules that bring a value to memory (computed, fetched, handed over), and for values that the store loses. No I/O, no clock."""

from __future__ import annotations

from treadle.messages.local import DataPut, ExecutionsDone
from treadle.messages.worker_scheduler import TaskErred
from treadle.utils.keys import key_from_wire
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import MEMORY, NO_ATTEMPT, NO_PEER, WAITING, WorkerTask
from treadle.worker.transitions.rules.fetch import lose, remote_of, settle
from treadle.worker.transitions.rules.inventory import note_error, note_put
from treadle.worker.transitions.rules.ready import leave_executor, to_ready
from treadle.worker.transitions.rules.released import end_assignment
from treadle.worker.transitions.state import LocalState, add_task, move


def to_memory(state: LocalState, task: WorkerTask, value: object, nbytes: int, type_name: str, out: WorkerOutbox) -> None:
    """Keep the value. Tasks that waited for this value only are ready."""
    task.nbytes = nbytes
    task.type_name = type_name
    state.stored_bytes += nbytes
    out.store[task.id] = (task.key, value)
    move(state, task, MEMORY)
    remote = task.remote
    if remote is not None:
        remote.wanted = False
        if remote.peer == NO_PEER:
            task.remote = None
    if task.dependents:
        for dependent in task.dependents:
            dependent.waiting_on -= 1
            if dependent.waiting_on == 0 and dependent.state == WAITING:
                to_ready(state, dependent, out)


def executions_done(state: LocalState, done: ExecutionsDone, out: WorkerOutbox) -> None:
    ids, values, nbytes, types = done.ids, done.values, done.nbytes, done.types
    starts, stops = done.starts, done.stops
    tasks = state.tasks
    for row in range(len(ids)):
        task = tasks.get(ids[row])
        if task is None:
            continue
        leave_executor(state, task, out)
        attempt = task.attempt
        if attempt == NO_ATTEMPT:
            # The task was dropped while it was executing, and not assigned again.
            settle(state, task, out)
            continue
        end_assignment(state, task)
        to_memory(state, task, values[row], nbytes[row], types[row], out)
        out.finished(task.id, attempt, nbytes[row], types[row], starts[row], stops[row])


def data_put(state: LocalState, put: DataPut, out: WorkerOutbox) -> None:
    """Keep values that a client or peer handed over. The giver reports them to the scheduler."""
    for row in range(len(put.ids)):
        task = state.tasks.get(put.ids[row])
        if task is None:
            task = add_task(state, put.ids[row], key_from_wire(put.keys[row]))
        elif task.state == MEMORY or task.attempt != NO_ATTEMPT:
            continue
        to_memory(state, task, put.values[row], put.nbytes[row], put.types[row], out)
        note_put(state, task.id)


def data_lost(state: LocalState, ids: list[int], out: WorkerOutbox) -> None:
    for id in ids:
        task = state.tasks.get(id)
        if task is None or task.state != MEMORY:
            continue
        out.replica_dropped(id)
        _lose_value(state, task, out)


def store_failed(state: LocalState, rows: list[TaskErred], out: WorkerOutbox) -> None:
    """Results that the store refused in the previous turn count as failures of their tasks."""
    for row in rows:
        out.erred(row)
        note_error(state, row)
        task = state.tasks.get(row.id)
        if task is not None and task.state == MEMORY:
            _lose_value(state, task, out)


def _lose_value(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    state.reannounced.discard(task.id)
    if task.dependents:
        remote = remote_of(task)
        remote.holders = []
        remote.tried = [state.number]
    lose(state, task, out)
