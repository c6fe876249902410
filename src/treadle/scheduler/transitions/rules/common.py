"""What every change of state shares: counts, the story, and what is left behind."""

from __future__ import annotations

from treadle.exceptions import InvariantError
from treadle.scheduler.transitions.candidates import discard
from treadle.scheduler.transitions.durations import unplace
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.quarantine import leave
from treadle.scheduler.transitions.records import (
    FORGOTTEN,
    MEMORY,
    NO_WORKER,
    NO_WORKERS,
    PROCESSING,
    QUEUED,
    RELEASED,
    STATE_NAMES,
    TaskState,
    WorkerState,
    is_active,
    is_needed,
)
from treadle.scheduler.transitions.state import ClusterState
from treadle.scheduler.transitions.table import ALLOWED


def move(state: ClusterState, task: TaskState, finish: int, out: Outbox) -> None:
    """Leave the present state in good order and enter ``finish``; what that state needs is its rule's to set."""
    start = task.state
    if not (ALLOWED[start] >> finish) & 1:
        story = state.story.of([task.key])
        raise InvariantError(f"{task.key!r} cannot go from {STATE_NAMES[start]} to {STATE_NAMES[finish]}; its story: {story}")
    if start == QUEUED:
        if not state.suspects or not leave(state, task):
            if task.candidates is None:
                state.queue.discard(task)
            else:
                discard(state, task.candidates, task)
    elif start == PROCESSING:
        worker = task.processing_on
        unplace(state, task)
        if finish != MEMORY and worker is not None and worker.number in state.by_number:
            out.abandon(task, worker)
    elif start == MEMORY:
        drop_replicas(state, task, out)
    elif start == NO_WORKER:
        del state.unrunnable[task]
        state.placeable.discard(task)
        if state.awaited:
            state.awaited.pop(task, None)
    task.state = finish
    state.counts[start] -= 1
    state.counts[finish] += 1
    if finish == FORGOTTEN:
        task.group.alive -= 1
    state.story.note(task.key, start, finish)
    if task.dependencies:
        if is_active(finish):
            if not is_active(start):
                for dependency in task.dependencies:
                    dependency.waiters += 1
        elif is_active(start):
            for dependency in task.dependencies:
                dependency.waiters -= 1
                if dependency.waiters == 0 and not is_needed(dependency):
                    state.recommend(dependency, RELEASED)


def add_replica(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """``worker`` holds the value of ``task``."""
    if task in worker.has_what:
        return
    worker.has_what[task] = None
    worker.nbytes += task.nbytes
    state.total_nbytes += task.nbytes
    if not task.who_has:
        task.who_has = worker.only_it
    elif len(task.who_has) == 1:
        task.who_has = [task.who_has[0], worker]
    else:
        task.who_has.append(worker)
    if task.payload is None and state.recorder is not None:
        state.recorder.copied(task, worker)


def remove_replica(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """``worker`` no longer holds the value of ``task``. Says nothing to anybody."""
    if task not in worker.has_what:
        return
    state.replicas_lost += 1
    del worker.has_what[task]
    worker.nbytes -= task.nbytes
    state.total_nbytes -= task.nbytes
    if len(task.who_has) == 1:
        task.who_has = NO_WORKERS
    else:
        task.who_has.remove(worker)


def begin_replica(state: ClusterState, task: TaskState, recipient: WorkerState) -> bool:
    """A copy of ``task`` for ``recipient`` is under way from here on; whether it was not before."""
    coming = state.replicating.get(task)
    if coming is None:
        state.replicating[task] = [recipient]
    elif recipient in coming:
        return False
    else:
        coming.append(recipient)
    recipient.receiving[task] = None
    return True


def confirm_replica(state: ClusterState, holder: WorkerState, tasks: list[TaskState], out: Outbox) -> None:
    """``holder`` is said to have these, by somebody who may be mistaken: it says which it has, and fetches, or misses, the others."""
    if not holder.connected:
        # It will say when it comes back.
        return
    unsure: list[TaskState] = []
    for task in tasks:
        if begin_replica(state, task, holder):
            unsure.append(task)
    if unsure:
        out.fetch(holder, unsure)


def drop_when_written(state: ClusterState, id: int, worker: WorkerState, out: Outbox) -> None:
    """For what cannot be made again: it is kept until a journal says why nobody needs it, since another scheduler may not know that."""
    if state.recorder is None:
        # It was perhaps asked whether it has it.
        out.drop_id(id, worker)
    else:
        state.recorder.drop_later(id, worker)


def drop_replicas(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """All holders shall forget the value, and who is fetching a copy to keep need not."""
    if state.replicating:
        for worker in state.replicating.pop(task, []):
            worker.receiving.pop(task, None)
            out.drop_id(task.id, worker)
    if state.under_replicated:
        state.under_replicated.pop(task, None)
    at_once = task.has_recipe and (state.recorder is None or not task.from_data)
    for worker in task.who_has:
        del worker.has_what[task]
        worker.nbytes -= task.nbytes
        state.total_nbytes -= task.nbytes
        if task.options is not None and task.options.actor:
            worker.actors.pop(task, None)
        if at_once:
            out.drop(task, worker)
        else:
            drop_when_written(state, task.id, worker, out)
    task.who_has = NO_WORKERS
