"""Explain in words why a task of this worker is in its state. Reads the core and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from treadle.messages.worker_scheduler import TaskExplained
from treadle.worker.execution import RunningTask
from treadle.worker.transitions.records import (
    CONSTRAINED,
    FETCH,
    FLIGHT,
    LONG_RUNNING,
    MEMORY,
    MISSING,
    NO_ATTEMPT,
    READY,
    STATE_NAMES,
    WAITING,
    WorkerTask,
)
from treadle.worker.transitions.state import LocalState

#: Up to this many values are named; of further ones only the number is told.
_MOST_NAMED = 5


def explain(
    state: LocalState, request: int, id: int, running: Iterable[RunningTask], queued: int, now: float, time_of_day: float
) -> TaskExplained:
    """The answer to ``request`` about the task ``id``. ``now`` is on the loop's clock."""
    for place in running:
        if place.id == id:
            # The clock may have been set back meanwhile.
            seconds = max(0.0, time_of_day - place.start_time)
            return TaskExplained(request, "executing", place.attempt, seconds, [f"it has been executing for {seconds:.3g} s"])
    task = state.tasks.get(id)
    if task is None or (task.attempt == NO_ATTEMPT and task.state not in (MEMORY, FETCH, FLIGHT, MISSING)):
        return TaskExplained(request, "unknown", None, None, ["the worker was not given it"])
    attempt = None if task.attempt == NO_ATTEMPT else task.attempt
    return TaskExplained(request, STATE_NAMES[task.state], attempt, None, _reasons(state, task, queued, now))


def _reasons(state: LocalState, task: WorkerTask, queued: int, now: float) -> list[str]:
    if task.state == WAITING:
        missing = [need for need in task.dependencies or () if need.state != MEMORY]
        words = [_value(state, need, now) for need in missing[:_MOST_NAMED]]
        more = len(missing) - len(words)
        return words + ([f"and for {more} more values"] if more else [])
    if task.state == CONSTRAINED:
        if state.paused:
            return ["the worker is paused"]
        needs = ", ".join(f"{name}: {amount:g} of which {state.available.get(name, 0):g} are free" for name, amount in task.needs or ())
        return [f"it waits for resources ({needs})"]
    if task.state == READY:
        return [f"it is ready, and one of {queued} tasks that wait for a free thread"]
    if task.state == LONG_RUNNING:
        return ["it has left the thread pool and goes on"]
    if task.state in (FETCH, FLIGHT, MISSING):
        return [_value(state, task, now)]
    return [f"it is {STATE_NAMES[task.state]}"]


def _value(state: LocalState, need: WorkerTask, now: float) -> str:
    """Where a needed value comes from."""
    remote = need.remote
    if need.state == FLIGHT and remote is not None:
        return f"it waits for {need.key!r}, which is being fetched from {_address(state, remote.peer)}"
    if need.state == FETCH and remote is not None:
        parts = []
        for number in remote.holders[:_MOST_NAMED]:
            peer = state.peers.get(number)
            pause = f" (left alone for {peer.not_before - now:.2g} s)" if peer is not None and peer.not_before > now else ""
            parts.append(_address(state, number) + pause)
        return f"it waits for {need.key!r}, to be fetched from {' or '.join(parts) or 'nobody'}; {state.outgoing} requests are under way"
    if need.state == MISSING:
        return f"it waits for {need.key!r}, which no worker had when asked; the scheduler knows"
    return f"it waits for {need.key!r}, which is {STATE_NAMES[need.state]} here"


def _address(state: LocalState, number: int) -> str:
    peer = state.peers.get(number)
    return f"worker {number}, which is not known here" if peer is None else peer.address
