"""Suspects get a worker of their own for the time that they run, so that they take nobody along. Pure.

An empty worker is taken where there is one; else one is reserved and runs empty. At most half of the workers are given to suspects
at a time, and a suspect that has waited for long is tried beside others, so that neither they nor the others starve.
"""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.candidates import find_candidates, is_possible
from treadle.scheduler.transitions.durations import settle
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placement import assign
from treadle.scheduler.transitions.quarantine import release, reserve
from treadle.scheduler.transitions.records import QUEUED, WAITING, TaskState, WorkerState
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.state import ClusterState

#: Seconds that a suspect waits for its worker to run empty.
PATIENCE_S: Final = 30.0
#: Workers that are looked at, and tasks that are asked back from one.
MOST_LOOKED_AT: Final = 64
MOST_TAKEN_BACK: Final = 500


def await_worker(state: ClusterState, task: TaskState, out: Outbox) -> None:
    """A ready suspect waits for a worker that it may have for itself."""
    move(state, task, QUEUED, out)
    state.suspects[task] = None


def place_suspects(state: ClusterState, out: Outbox) -> None:
    """Send suspects to workers that are theirs and have run empty; find workers for the others."""
    # So that a worker that has just come is seen before the queue fills it.
    settle(state)
    for worker, task in list(state.reserved.items()):
        if task.state != QUEUED:
            continue
        if not is_clear(worker):
            other = _clear_worker(state, task)
            if other is not None:
                release(state, worker)
                reserve(state, task, other)
                worker = other
            elif state.now - worker.reserved_at < PATIENCE_S:
                continue
        _begin(state, task, worker, out)
    most = max(1, (len(state.running) + len(state.reserved)) // 2)
    for task, reserved in list(state.suspects.items()):
        if len(state.reserved) >= most:
            return
        if reserved is not None:
            continue
        found = _clear_worker(state, task)
        if found is None:
            found = least_busy(state, task, None)
        if found is None:
            if not is_possible(state, find_candidates(state, task)):
                # Nobody may run it: that is another state.
                state.recommend(task, WAITING)
            continue
        reserve(state, task, found)
        if is_clear(found):
            _begin(state, task, found, out)
        else:
            take_back_all(found, out)


def is_clear(worker: WorkerState) -> bool:
    """Whether it executes nothing but tasks that have left its thread pool: these may well wait for the suspect."""
    return len(worker.processing) == len(worker.long_running)


def _begin(state: ClusterState, task: TaskState, worker: WorkerState, out: Outbox) -> None:
    # It leaves the ones that wait, and keeps the worker.
    state.suspects[task] = None
    assign(state, task, worker, out)


def _clear_worker(state: ClusterState, task: TaskState) -> WorkerState | None:
    candidates = find_candidates(state, task)
    pool = state.idle if candidates is None else candidates.running
    for looked, worker in enumerate(pool):
        if is_clear(worker) and worker in state.running:
            return worker
        if looked == MOST_LOOKED_AT:
            break
    return None


def least_busy(state: ClusterState, task: TaskState, avoided: WorkerState | None) -> WorkerState | None:
    """Of the running workers that may run it, and some of these at most, the one with the least work; but not ``avoided``."""
    candidates = find_candidates(state, task)
    pool = state.running if candidates is None else candidates.running
    best: WorkerState | None = None
    for looked, worker in enumerate(pool):
        if worker is not avoided and (best is None or worker.occupancy < best.occupancy):
            best = worker
        if looked == MOST_LOOKED_AT:
            break
    if best is not None:
        # To the end of the line, so that the next look finds others.
        del pool[best]
        pool[best] = None
    return best


def take_back_all(worker: WorkerState, out: Outbox) -> None:
    """What it has not begun can begin elsewhere, or comes again."""
    tasks: list[TaskState] = []
    for task in worker.processing:
        if task not in worker.executing and task not in worker.long_running and task not in worker.taking_back and not task.actor:
            tasks.append(task)
            if len(tasks) == MOST_TAKEN_BACK:
                break
    if len(tasks) > 0:
        for task in tasks:
            worker.taking_back[task] = None
        out.take_back(worker, tasks)
