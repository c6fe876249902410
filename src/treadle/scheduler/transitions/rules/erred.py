"""Rules that bring a task to erred: it, or something that it needs, has failed for good."""

from __future__ import annotations

import pickle

from treadle.messages.base import TaskError
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import ERRED, FORGOTTEN, MEMORY, RELEASED, TaskState, is_active, is_needed
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.rules.memory import forget_fire_and_forget
from treadle.scheduler.transitions.state import ClusterState


def to_erred(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """``task.error`` and ``task.blame`` say why."""
    if task.state in (ERRED, FORGOTTEN) or task.error is None:
        return
    if task.state == MEMORY and task.who_has:
        # It was scattered again while its loss was dealt with.
        task.error = None
        task.blame = None
        return
    if task.state == RELEASED and not is_needed(task):
        task.error = None
        task.blame = None
        state.recommend(task, RELEASED)
        return
    move(state, task, ERRED, out)
    state.total_erred += 1
    if task.who_wants:
        out.erred(task)
        forget_fire_and_forget(state, task)
    if task.blame is task and state.recorder is not None:
        if is_needed(task):
            state.recorder.erred(task)
        else:
            # The error is of no use to anybody; what needs the task later has it run once more.
            state.recorder.unwanted(state.fire_and_forget, task.id)
    if task.live_dependents > 0:
        for dependent in task.dependents:
            if is_active(dependent.state):
                dependent.error = task.error
                dependent.blame = task.blame
                state.recommend(dependent, ERRED)
    if not is_needed(task):
        state.recommend(task, RELEASED)


def own_error(error: BaseException) -> TaskError:
    """An error of the scheduler's own making, for a task. (Users' errors pass through as they come, unread.)"""
    return TaskError(pickle.dumps(error, 5), b"", f"{type(error).__name__}: {error}", "")


def lost_data_error(task: TaskState) -> TaskError:
    return own_error(
        RuntimeError(
            f"The data {task.key!r} was scattered (or is older than this scheduler), and the last worker that held a copy is gone. "
            "There is no recipe to compute it again: scatter it anew, or to several workers with broadcast."
        )
    )
