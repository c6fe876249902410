"""Copies of values on further workers, made by order of the scheduler: for data that nobody can compute, for retiring workers,
for users who ask. What is under way is known, so that it is not ordered twice and is called back when nobody wants the value. Pure.
"""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import MEMORY, RELEASED, TaskState, WorkerState
from treadle.scheduler.transitions.rules.common import begin_replica, remove_replica
from treadle.scheduler.transitions.state import ClusterState

#: Workers that are looked at for one copy.
MOST_LOOKED_AT: Final = 32
#: Values that are looked at in one turn because they have too few copies.
MOST_AT_ONCE: Final = 1000


def order_replicas(state: ClusterState, recipient: WorkerState, tasks: list[TaskState], out: Outbox) -> None:
    """``recipient`` shall fetch and keep those that are in memory and that it does not have, or fetch, already."""
    wanted: list[TaskState] = []
    for task in tasks:
        if task.state != MEMORY or task.actor or task in recipient.has_what:
            continue
        if begin_replica(state, task, recipient):
            wanted.append(task)
    if wanted and recipient.connected:
        out.fetch(recipient, wanted)


def replica_came(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """It is not under way any more, whether it came or cannot come."""
    coming = state.replicating.get(task)
    if coming is not None and worker in coming:
        coming.remove(worker)
        worker.receiving.pop(task, None)
        if not coming:
            del state.replicating[task]


def forget_recipient(state: ClusterState, worker: WorkerState, out: Outbox) -> None:
    """It is gone, and with it all that was on its way to it."""
    for task in list(worker.receiving):
        replica_came(state, task, worker)
        if not task.has_recipe:
            keep_enough(state, task, out)


def drop_replicas_at(state: ClusterState, holder: WorkerState, tasks: list[TaskState], out: Outbox) -> None:
    """``holder`` gives its copies up, of what others have as well. Nobody who was told to fetch from it is misled: it says it has not."""
    for task in tasks:
        if task in holder.has_what and len(task.who_has) > 1:
            remove_replica(state, task, holder)
            out.drop(task, holder)


# ------------------------------------------------------------------------------------------------ scattered data


def keep_enough(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """``task`` is data without a recipe: have as many copies as it should have, as far as there are workers for them."""
    limits = state.limits
    if task.state != MEMORY or limits.scatter_replicas < 2 or task.nbytes > limits.scatter_replica_limit_bytes:
        state.under_replicated.pop(task, None)
        return
    missing = limits.scatter_replicas - len(task.who_has)
    for worker in state.replicating.get(task, []):
        if worker not in task.who_has:
            missing -= 1
    if missing <= 0:
        state.under_replicated.pop(task, None)
        return
    for worker in _emptiest(state, task, missing):
        order_replicas(state, worker, [task], out)
        missing -= 1
    if missing > 0:
        state.under_replicated[task] = None
    else:
        state.under_replicated.pop(task, None)


def _emptiest(state: ClusterState, task: TaskState, count: int) -> list[WorkerState]:
    """Running workers without a copy, those with the least data first, copies on their way counted as if of that size.

    Those that were taken are looked at last the next time.
    """
    coming = state.replicating.get(task, [])
    found: list[tuple[int, int, WorkerState]] = []
    for looked, worker in enumerate(state.running):
        if worker not in task.who_has and worker not in coming:
            found.append((worker.nbytes + len(worker.receiving) * task.nbytes, looked, worker))
        if looked == MOST_LOOKED_AT:
            break
    found.sort(key=_load)
    taken = [entry[2] for entry in found[:count]]
    for worker in taken:
        del state.running[worker]
        state.running[worker] = None
    return taken


def _load(entry: tuple[int, int, WorkerState]) -> tuple[int, int]:
    return (entry[0], entry[1])


def keep_more(state: ClusterState, out: Outbox) -> None:
    """Time has passed: there may be workers now for copies that were missing. Looks at some of them at a time."""
    tasks: list[TaskState] = []
    for task in state.under_replicated:
        tasks.append(task)
        if len(tasks) == MOST_AT_ONCE:
            break
    for task in tasks:
        # To the end of the line, if it has still too few.
        del state.under_replicated[task]
        keep_enough(state, task, out)


def lost_replica(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """A worker that held ``task`` is gone."""
    if not task.who_has:
        state.recommend(task, RELEASED)
    elif not task.has_recipe:
        keep_enough(state, task, out)
