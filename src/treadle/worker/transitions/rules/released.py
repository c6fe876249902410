"""Rules that end an assignment: erred, rescheduled, given back, dropped. No I/O, no clock."""

from __future__ import annotations

from treadle.messages.base import TaskError
from treadle.messages.worker_scheduler import TaskErred
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import (
    CANCELLED,
    CONSTRAINED,
    ERROR,
    FETCH,
    FLIGHT,
    FORGOTTEN,
    MEMORY,
    MISSING,
    NO_ATTEMPT,
    READY,
    WAITING,
    WorkerTask,
)
from treadle.worker.transitions.rules.fetch import lose, remote_of, to_cancelled, to_fetch
from treadle.worker.transitions.rules.inventory import note_error
from treadle.worker.transitions.state import LocalState, move


def end_assignment(state: LocalState, task: WorkerTask) -> None:
    """The task is reported or given up. Values that only this task needed and that are not here yet are no longer fetched."""
    task.attempt = NO_ATTEMPT
    task.spec = None
    task.waiting_on = 0
    dependencies = task.dependencies
    if dependencies is None:
        return
    task.dependencies = None
    for dependency in dependencies:
        dependents = dependency.dependents
        if dependents is None:
            continue
        dependents.pop(task, None)
        if dependents or (dependency.remote is not None and dependency.remote.wanted):
            continue
        if dependency.state == FETCH or dependency.state == FLIGHT or dependency.state == MISSING:
            to_cancelled(state, dependency)


def to_error(state: LocalState, task: WorkerTask, error: TaskError, start: float, stop: float, out: WorkerOutbox) -> None:
    """Report the failure, and forget the task: the scheduler keeps what is to be known of it."""
    row = TaskErred(task.id, task.attempt, error, start, stop)
    out.erred(row)
    note_error(state, row)
    move(state, task, ERROR)
    end_assignment(state, task)
    lose(state, task, out)


def to_rescheduled(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    out.rescheduled(task.id, task.attempt)
    end_assignment(state, task)
    lose(state, task, out)


def to_given_back(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    out.given_back(task.id, task.attempt)
    end_assignment(state, task)
    lose(state, task, out)


def fail_dependents(state: LocalState, task: WorkerTask, error: TaskError, out: WorkerOutbox) -> None:
    """No peer can provide the value in a usable form: the tasks here that need it fail with that error."""
    remote = remote_of(task)
    remote.wanted = False
    if task.dependents:
        for dependent in list(task.dependents):
            # A task that the executor holds will itself report that the value is missing.
            if not dependent.in_executor:
                to_error(state, dependent, error, 0.0, 0.0, out)
    if task.state != FORGOTTEN:
        remote.holders = []
        lose(state, task, out)


def take_back(state: LocalState, ids: list[int], attempts: list[int], out: WorkerOutbox) -> None:
    """The scheduler wants these tasks back. Each gets one answer, at once or when the executor has answered."""
    for row in range(len(ids)):
        task = state.tasks.get(ids[row])
        if task is None or task.attempt != attempts[row]:
            out.kept(ids[row])
        elif task.state == WAITING or task.state == CONSTRAINED:
            to_given_back(state, task, out)
        elif task.state == READY:
            if task.take_back_attempt == NO_ATTEMPT:
                out.take_back.append(task.id)
            task.take_back_attempt = task.attempt
        else:
            out.kept(task.id)


def drop_keys(state: LocalState, ids: list[int], unconfirmed: list[int] | None, out: WorkerOutbox) -> None:
    """Forget these tasks. Values that tasks here still need are handled last, because the same message may drop those tasks."""
    if unconfirmed is not None:
        for id in unconfirmed:
            unconfirmed_task = state.tasks.get(id)
            if unconfirmed_task is not None and unconfirmed_task.state == MEMORY:
                out.replica_dropped(id)
    if state.reannounced:
        for id in ids:
            if id in state.reannounced:
                state.reannounced.discard(id)
                out.replica_dropped(id)
    needed: list[WorkerTask] = []
    for id in ids:
        task = state.tasks.get(id)
        if task is None:
            continue
        if task.dependents:
            needed.append(task)
        else:
            _drop(state, task, out)
    for task in needed:
        if task.state != FORGOTTEN and task.attempt != NO_ATTEMPT:
            _drop(state, task, out)
    for task in needed:
        if task.state != FORGOTTEN:
            _drop(state, task, out)


def _drop(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    if task.remote is not None:
        task.remote.wanted = False
    if task.state == MEMORY:
        if not out.unstore(task.id):
            out.drop.append(task.key)
        if task.dependents:
            _disown(state, task)
            lose(state, task, out)
            return
        state.stored_bytes -= task.nbytes
        to_cancelled(state, task)
        return
    if task.state == CANCELLED:
        return
    if task.attempt != NO_ATTEMPT:
        if task.state == READY:
            out.take_back.append(task.id)
        end_assignment(state, task)
        if task.dependents:
            _disown(state, task)
        lose(state, task, out)
    elif not task.dependents:
        to_cancelled(state, task)
    elif task.state == FLIGHT:
        # The value on its way will be discarded; then the scheduler is asked where the value is.
        _disown(state, task)
        to_cancelled(state, task)
    elif task.state == FETCH:
        _disown(state, task)
        to_fetch(state, task, out)


def _disown(state: LocalState, task: WorkerTask) -> None:
    """A task here needs the value although the scheduler dropped it. All that is known now is that this worker does not have it."""
    remote = remote_of(task)
    remote.holders = []
    remote.tried = [state.number]
