"""Workers that are kept free for a *suspect*: a task that was executing when a worker died, which is tried with nothing beside it. Pure.

While a worker is reserved it is not among the running ones, so that nothing else is placed there; that ends when the suspect has left
it, or its thread pool. A suspect that waits for its worker is QUEUED without being in a queue.
"""

from __future__ import annotations

from treadle.scheduler.transitions.candidates import release_candidate, reserve_candidate, strand, worker_runs, worker_stops
from treadle.scheduler.transitions.records import QUEUED, RUNNING, WAITING, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState


def reserve(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """``worker`` is for the suspect ``task`` as soon as it has nothing else to do."""
    state.reserved[worker] = task
    state.suspects[task] = worker
    worker.reserved_at = state.now
    for pool in (state.running, state.idle, state.saturated, state.has_capacity):
        pool.pop(worker, None)
    if worker.candidates:
        worker_stops(worker)
        reserve_candidate(worker)


def release(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` is like all others again; what had to wait for that is looked at anew."""
    del state.reserved[worker]
    release_candidate(worker)
    if worker.status == RUNNING and worker.connected and state.by_number.get(worker.number) is worker:
        state.running[worker] = None
        worker.taking_back.clear()
        worker_runs(state, worker)
        state.touch(worker)
        return
    strand(state, worker)
    if not state.running and not state.reserved:
        # Nobody is left to whom the queue could go.
        for task in state.queue.tasks():
            state.recommend(task, WAITING)


def give_up(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` takes nothing new: its suspect waits for another one, unless it is there already."""
    task = state.reserved.get(worker)
    if task is not None and task.state == QUEUED:
        state.suspects[task] = None
        release(state, worker)


def is_emptied(state: ClusterState, worker: WorkerState) -> bool:
    """Whether it is to have nothing but what it has begun: it retires, pauses, or is kept for a suspect."""
    return worker.status != RUNNING or worker in state.reserved


def leave(state: ClusterState, task: TaskState) -> bool:
    """``task`` is about to leave the state QUEUED: whether it was not in a queue but here."""
    if task not in state.suspects:
        return False
    worker = state.suspects.pop(task)
    if worker is not None:
        release(state, worker)
    return True


def forget_all(state: ClusterState) -> None:
    """All tasks are about to be forgotten."""
    state.avoided.clear()
    state.replicating.clear()
    state.under_replicated.clear()
    state.suspects.clear()
    state.deaths.clear()
    for worker in list(state.reserved):
        release(state, worker)
