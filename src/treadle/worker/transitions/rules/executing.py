"""Rules for the executor's reports: started, seceded, failed, not ready, given back. No I/O, no clock."""

from __future__ import annotations

from treadle.messages.local import ExecutionFailed, TakeBackDone
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import NO_ATTEMPT, WAITING, WorkerTask
from treadle.worker.transitions.rules.fetch import settle
from treadle.worker.transitions.rules.ready import leave_executor, to_long_running, to_ready, to_started
from treadle.worker.transitions.rules.released import to_error, to_given_back, to_rescheduled
from treadle.worker.transitions.state import LocalState, move


def execution_failed(state: LocalState, failed: ExecutionFailed, out: WorkerOutbox) -> None:
    task = state.tasks.get(failed.id)
    if task is None:
        return
    leave_executor(state, task, out)
    if task.attempt == NO_ATTEMPT:
        settle(state, task, out)
        return
    to_error(state, task, failed.error, failed.start, failed.stop, out)


def execution_rescheduled(state: LocalState, id: int, out: WorkerOutbox) -> None:
    task = state.tasks.get(id)
    if task is None:
        return
    leave_executor(state, task, out)
    if task.attempt == NO_ATTEMPT:
        settle(state, task, out)
        return
    to_rescheduled(state, task, out)


def execution_unready(state: LocalState, id: int, out: WorkerOutbox) -> None:
    """A value that the task needs was dropped before its start: the task was dropped, too, or is assigned again, or waits for it."""
    task = state.tasks.get(id)
    if task is None:
        return
    leave_executor(state, task, out)
    if task.attempt == NO_ATTEMPT:
        settle(state, task, out)
        return
    _wait_or_ready(state, task, out)


def executions_started(state: LocalState, ids: list[int], out: WorkerOutbox) -> None:
    for id in ids:
        task = state.tasks.get(id)
        if task is not None and task.in_executor:
            to_started(state, task, out)


def executions_seceded(state: LocalState, ids: list[int], out: WorkerOutbox) -> None:
    for id in ids:
        task = state.tasks.get(id)
        if task is not None and task.in_executor:
            to_long_running(state, task, out)


def take_back_done(state: LocalState, done: TakeBackDone, out: WorkerOutbox) -> None:
    for id in done.taken:
        task = state.tasks[id]
        leave_executor(state, task, out)
        asked = task.take_back_attempt
        task.take_back_attempt = NO_ATTEMPT
        if asked != NO_ATTEMPT and asked == task.attempt:
            to_given_back(state, task, out)
            continue
        if asked != NO_ATTEMPT:
            out.kept(id)
        if task.attempt == NO_ATTEMPT:
            settle(state, task, out)
        else:
            # The task was dropped, and assigned again before the executor answered.
            _wait_or_ready(state, task, out)
    for id in done.kept:
        kept = state.tasks.get(id)
        if kept is not None and kept.take_back_attempt != NO_ATTEMPT:
            kept.take_back_attempt = NO_ATTEMPT
            out.kept(id)


def _wait_or_ready(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    if task.waiting_on:
        move(state, task, WAITING)
    else:
        to_ready(state, task, out)
