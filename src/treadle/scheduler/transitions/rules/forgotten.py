"""Rules that bring a task to forgotten: no trace is left."""

from __future__ import annotations

from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import FORGOTTEN, NO_TASKS, RELEASED, FunctionState, TaskGroup, TaskState, is_needed
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.state import ClusterState


def to_forgotten(state: ClusterState, task: TaskState, out: Outbox) -> None:
    if task.state != RELEASED or is_needed(task) or task.live_dependents > 0:
        return
    move(state, task, FORGOTTEN, out)
    if task.suspicious > 0:
        state.deaths.pop(task, None)
    if state.avoided:
        state.avoided.pop(task, None)
    del state.tasks[task.key]
    del state.by_id[task.id]
    if state.renamed:
        for id in state.former_ids.pop(task, []):
            del state.renamed[id]
    for dependency in task.dependencies:
        lose_dependent(state, dependency)
    # Break the cycles between tasks: reference counts alone give the memory back.
    task.dependencies = NO_TASKS
    task.dependents = NO_TASKS
    task.payload = None
    task.buffers = None
    function = task.function
    if function is not None:
        function.ntasks -= 1
        if function.ntasks == 0 and not function.held:
            drop_function(state, function, out)
    group = task.group
    if group.alive == 0:
        forget_group(state, group)


def forget_group(state: ClusterState, group: TaskGroup) -> None:
    """All its tasks are forgotten: nothing refers to it any more."""
    if state.groups.pop(group.name, None) is not None:
        group.prefix.ngroups -= 1
    for other in group.dependents:
        other.dependencies.pop(group, None)
    for other in group.dependencies:
        other.dependents.pop(group, None)
    group.dependents = {}
    group.dependencies = {}


def lose_dependent(state: ClusterState, task: TaskState) -> None:
    """One of the tasks that need ``task`` is forgotten."""
    task.live_dependents -= 1
    if task.live_dependents == 0:
        task.dependents = NO_TASKS
        if task.state == RELEASED:
            state.recommend(task, FORGOTTEN)
    elif len(task.dependents) > 2 * task.live_dependents + 8:
        task.dependents = [dependent for dependent in task.dependents if dependent.state != FORGOTTEN]


def drop_function(state: ClusterState, function: FunctionState, out: Outbox) -> None:
    """No task calls it and its client will not name it again."""
    state.functions.pop(function.id, None)
    for number in function.workers:
        worker = state.by_number.get(number)
        if worker is not None:
            worker.functions.pop(function, None)
            out.unlearn(worker, function.id)
