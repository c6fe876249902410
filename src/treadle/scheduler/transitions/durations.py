"""Learned durations, and the load that they make on a worker. Seconds; ``now`` is an argument."""

from __future__ import annotations

from math import ceil, inf
from typing import Final

from treadle.scheduler.transitions.candidates import room_has_come
from treadle.scheduler.transitions.quarantine import release
from treadle.scheduler.transitions.records import RUNNING, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: No task counts for less: what it costs a worker to run anything at all.
SHORTEST_S: Final = 20e-6
#: A task that was reported as executing counts for at least this, whatever its siblings took: it may go on for long.
STARTED_S: Final = 0.05


def expected_duration(state: ClusterState, task: TaskState) -> float:
    """By what tasks of its name took; by what its function took where each task has a name of its own."""
    duration = task.group.prefix.duration_s
    if duration < 0:
        function = task.function
        if function is not None:
            duration = function.duration_s
        if duration < 0:
            return state.limits.unknown_task_duration_s
    return duration if duration > SHORTEST_S else SHORTEST_S


def learn_duration(task: TaskState, seconds: float) -> None:
    """``task`` took so long: moving averages that forget quickly."""
    if seconds < 0:
        seconds = 0.0
    prefix = task.group.prefix
    if not prefix.is_shared:
        old = prefix.duration_s
        prefix.duration_s = seconds if old < 0 else 0.5 * (old + seconds)
    function = task.function
    if function is not None:
        before = function.duration_s
        function.duration_s = seconds if before < 0 else 0.5 * (before + seconds)
    task.account.used_s += seconds * task.account.rate


def place(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """``task`` counts as work of ``worker`` from here on."""
    estimate = expected_duration(state, task)
    task.estimate_s = estimate
    task.processing_on = worker
    worker.processing[task] = None
    worker.occupancy += estimate
    task.account.used_s += estimate * task.account.rate
    options = task.options
    if options is not None:
        if options.resources:
            for name, amount in options.resources.items():
                worker.used_resources[name] = worker.used_resources.get(name, 0.0) + amount
        if options.actor:
            worker.actors[task] = None
    state.touch(worker)


def unplace(state: ClusterState, task: TaskState) -> None:
    """``task`` is no longer work of the worker it was assigned to."""
    worker = task.processing_on
    assert worker is not None
    task.processing_on = None
    # What it took is booked when that is known.
    task.account.used_s -= task.estimate_s * task.account.rate
    del worker.processing[task]
    if worker.executing:
        worker.executing.pop(task, None)
    if worker.taking_back:
        worker.taking_back.pop(task, None)
    if worker.long_running and task in worker.long_running:
        del worker.long_running[task]
    else:
        worker.occupancy -= task.estimate_s
    if len(worker.processing) == len(worker.long_running):
        # Also throws away what rounding has left.
        worker.occupancy = 0.0
    options = task.options
    if options is not None:
        if options.resources:
            for name, amount in options.resources.items():
                worker.used_resources[name] -= amount
        if options.actor:
            worker.actors.pop(task, None)
    state.touch(worker)
    if state.reserved and state.reserved.get(worker) is task:
        release(state, worker)


def set_long_running(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """It left the thread pool: it no longer stands in anybody's way."""
    if task not in worker.long_running:
        worker.long_running[task] = None
        worker.occupancy -= task.estimate_s
        if len(worker.processing) == len(worker.long_running):
            worker.occupancy = 0.0
        state.touch(worker)
        if state.reserved and state.reserved.get(worker) is task:
            # It may wait for others now, also for such as only this worker can run.
            release(state, worker)


def raise_estimate(state: ClusterState, task: TaskState, worker: WorkerState) -> None:
    """It is executing, and takes longer than a moment: what stands behind it may be better off elsewhere.

    Perhaps more is known by now of what such tasks take than when it was assigned.
    """
    estimate = max(STARTED_S, expected_duration(state, task))
    more = estimate - task.estimate_s
    if more > 0:
        if task not in worker.long_running:
            worker.occupancy += more
        task.account.used_s += more * task.account.rate
        task.estimate_s = estimate
        state.touch(worker)


def fewest_tasks(state: ClusterState, worker: WorkerState) -> float:
    """Tasks that a worker is given however long they take."""
    saturation = state.limits.worker_saturation
    return inf if saturation == inf else max(1, ceil(saturation * worker.nthreads))


def room_for(state: ClusterState, worker: WorkerState, duration: float) -> bool:
    """Whether one more queued task of that duration may be sent ahead of need: prefetch goes by time, not by count."""
    if worker.status != RUNNING:
        return False
    count = len(worker.processing) - len(worker.long_running)
    limits = state.limits
    if count < limits.prefetch_limit * worker.nthreads and worker.occupancy + duration <= limits.prefetch_time_s * worker.nthreads:
        return True
    return count < fewest_tasks(state, worker)


def settle(state: ClusterState) -> None:
    """Put the workers whose load has changed into idle, saturated and has_capacity, or out of them."""
    touched = state.touched
    if not touched:
        return
    state.touched = []
    for worker in touched:
        worker.touched = False
        worker.shrink()
        if worker not in state.running:
            state.idle.pop(worker, None)
            state.saturated.pop(worker, None)
            state.has_capacity.pop(worker, None)
            continue
        count = len(worker.processing) - len(worker.long_running)
        if count < worker.nthreads:
            state.idle[worker] = None
            state.saturated.pop(worker, None)
        else:
            state.idle.pop(worker, None)
            if count > worker.nthreads and worker.occupancy > 2 * state.limits.prefetch_time_s * worker.nthreads:
                state.saturated[worker] = None
            else:
                state.saturated.pop(worker, None)
        if room_for(state, worker, SHORTEST_S):
            state.has_capacity[worker] = None
            if worker.candidates:
                room_has_come(state, worker)
        else:
            state.has_capacity.pop(worker, None)
