"""Rules that bring a ready task to a worker, or to where it waits for one."""

from __future__ import annotations

from treadle.scheduler.transitions.candidates import find_candidates, is_possible, push
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placement import assign, choose_candidate, choose_worker, is_rootish
from treadle.scheduler.transitions.records import NO_WORKER, QUEUED, WAITING, TaskState, WorkerState
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.rules.quarantine import await_worker, least_busy
from treadle.scheduler.transitions.state import STEADY, ClusterState


def to_processing(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """A waiting task whose dependencies are all in memory goes on: to a worker, the queue, or no-worker."""
    if task.state != WAITING or task.waiting_on > 0:
        # A dependency was lost again between the recommendation and now.
        return
    if state.orphans and state.recovery.claim(state, task, True, out):
        return
    candidates = find_candidates(state, task) if task.options is not None else None
    task.candidates = candidates
    if state.phase != STEADY or not is_possible(state, candidates):
        to_no_worker(state, task, out)
    elif task.suspicious > 0:
        await_worker(state, task, out)
    elif state.avoided and (other := elsewhere(state, task)) is not None:
        assign(state, task, other, out)
    elif task.actor or not is_rootish(state, task):
        worker = choose_worker(state, task) if candidates is None else choose_candidate(state, candidates, task)
        if worker is not None:
            assign(state, task, worker, out)
        else:
            enqueue(state, task, out)
    else:
        enqueue(state, task, out)


def enqueue(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """It waits until one of its candidates has room; there are some, or will be when suspects have had their turn."""
    move(state, task, QUEUED, out)
    if task.candidates is None:
        state.queue.push(task)
    else:
        push(state, task.candidates, task)


def elsewhere(state: ClusterState, task: TaskState) -> WorkerState | None:
    """Another worker than the one that the task has asked not to run on; None when it has not asked, or there is no other."""
    avoided = state.avoided.pop(task, None)
    return None if avoided is None or task.actor else least_busy(state, task, avoided)


def to_no_worker(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """No worker may run it now."""
    move(state, task, NO_WORKER, out)
    state.unrunnable[task] = state.now
    state.placeable.add(task, state.now)
