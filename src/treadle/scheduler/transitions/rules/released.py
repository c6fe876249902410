"""Rules that bring a task to released: the value is not kept, the recipe may be."""

from __future__ import annotations

from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    ERRED,
    FORGOTTEN,
    MEMORY,
    RELEASED,
    WAITING,
    TaskState,
    is_active,
    is_needed,
)
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.rules.erred import lost_data_error
from treadle.scheduler.transitions.state import STEADY, ClusterState


def to_released(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """Nobody needs the task, or its value was lost, or it is to be tried again."""
    start = task.state
    if start == FORGOTTEN:
        return
    if start == MEMORY:
        if not task.who_has and state.recorder is not None:
            state.recorder.lost(task)
        if task.who_has:
            if is_needed(task):
                return
        elif is_needed(task) and not task.has_recipe and state.phase == STEADY:
            out.lost(task)
            task.error = lost_data_error(task)
            task.blame = task
            state.recommend(task, ERRED)
            return
    elif start != RELEASED and is_needed(task) and (start != ERRED or task.error is not None):
        # Still wanted; an error that was struck out is to be tried again all the same.
        return
    if start != RELEASED:
        move(state, task, RELEASED, out)
        if start == MEMORY:
            _wait_again(state, task)
    task.error = None
    task.blame = None
    if is_needed(task):
        out.pending(task, start == ERRED)
        state.recommend(task, WAITING)
    elif task.live_dependents == 0:
        state.recommend(task, FORGOTTEN)


def _wait_again(state: ClusterState, task: TaskState) -> None:
    """Its value left memory: who was to use it waits for it again."""
    if task.live_dependents == 0:
        return
    for dependent in task.dependents:
        if dependent.state == WAITING:
            dependent.waiting_on += 1
        elif is_active(dependent.state):
            state.recommend(dependent, WAITING)
