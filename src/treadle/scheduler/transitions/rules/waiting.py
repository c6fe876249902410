"""Rules that bring a task to waiting: it is needed, and its dependencies are made first."""

from __future__ import annotations

from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    ERRED,
    MEMORY,
    NO_WORKER,
    PROCESSING,
    QUEUED,
    RELEASED,
    WAITING,
    TaskState,
    is_needed,
)
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.rules.erred import lost_data_error
from treadle.scheduler.transitions.state import ClusterState


def to_waiting(state: ClusterState, task: TaskState, out: Outbox) -> None:
    start = task.state
    if start not in (RELEASED, NO_WORKER, QUEUED, PROCESSING):
        return
    if not is_needed(task):
        # The last one who wanted it went away between the recommendation and now.
        state.recommend(task, RELEASED)
        return
    if state.orphans and start != PROCESSING and state.recovery.claim(state, task, False, out):
        return
    if not task.has_recipe:
        if state.recovery.is_awaited(state, task, out):
            return
        task.error = lost_data_error(task)
        task.blame = task
        state.recommend(task, ERRED)
        return
    for dependency in task.dependencies:
        if dependency.state == ERRED:
            task.error = dependency.error
            task.blame = dependency.blame
            state.recommend(task, ERRED)
            return
    move(state, task, WAITING, out)
    missing = 0
    for dependency in task.dependencies:
        if dependency.state != MEMORY:
            missing += 1
            if dependency.state == RELEASED:
                state.recommend(dependency, WAITING)
    task.waiting_on = missing
    if missing == 0:
        state.recommend(task, PROCESSING)
