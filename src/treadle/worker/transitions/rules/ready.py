"""Rules that hand an assigned, complete task to the executor, or hold it back. No I/O, no clock."""

from __future__ import annotations

from heapq import heappop, heappush

from treadle.exceptions import InvariantError
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import CONSTRAINED, EXECUTING, LONG_RUNNING, READY, WorkerTask
from treadle.worker.transitions.state import LocalState, move

#: Amounts are floats, so sums are inexact.
_TOLERANCE = 1e-9


def to_ready(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """All values that the task needs are here: hand it to the executor ahead of time, unless something holds it back."""
    if state.paused or (task.needs is not None and not fits(state, task.needs)):
        spec = task.spec
        if spec is None:
            raise InvariantError(f"{task!r} is assigned and has no specification")
        move(state, task, CONSTRAINED)
        needs = task.needs if task.needs is not None else ()
        heap = state.constrained.get(needs)
        if heap is None:
            heap = state.constrained[needs] = []
        heappush(heap, (spec.priority, task.id, task.attempt))
        return
    hand_out(state, task, out)


def hand_out(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    spec = task.spec
    if spec is None:
        raise InvariantError(f"{task!r} is assigned and has no specification")
    if task.needs is not None:
        for name, amount in task.needs:
            state.available[name] -= amount
        task.holds = task.needs
    task.in_executor = True
    task.reached = READY
    move(state, task, READY)
    out.execute.append(spec)


def fits(state: LocalState, needs: tuple[tuple[str, float], ...]) -> bool:
    for name, amount in needs:
        if state.available.get(name, 0.0) + _TOLERANCE < amount:
            return False
    return True


def leave_executor(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """The executor is done with the task, or gave it back: free its resources."""
    task.in_executor = False
    holds = task.holds
    if holds is None:
        return
    task.holds = None
    for name, amount in holds:
        state.available[name] += amount
    release_constrained(state, out)


def release_constrained(state: LocalState, out: WorkerOutbox) -> None:
    """Hand tasks that were held back to the executor, most urgent first, as far as resources allow. Each one costs a loop over the
    kinds of needs."""
    while not state.paused:
        best: WorkerTask | None = None
        best_needs: tuple[tuple[str, float], ...] = ()
        best_row = ((0.0, 0.0, 0), 0, 0)
        for needs in list(state.constrained):
            if needs and not fits(state, needs):
                continue
            heap = state.constrained[needs]
            while heap:
                row = heap[0]
                task = state.tasks.get(row[1])
                if task is not None and task.state == CONSTRAINED and task.attempt == row[2]:
                    if best is None or row < best_row:
                        best, best_needs, best_row = task, needs, row
                    break
                heappop(heap)
            if not heap:
                del state.constrained[needs]
        if best is None:
            return
        heappop(state.constrained[best_needs])
        hand_out(state, best, out)


def to_started(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """The task has been executing for a moment. For a task that nobody wants any more, this is only noted."""
    if task.reached == READY:
        task.reached = EXECUTING
    if task.state == READY:
        move(state, task, EXECUTING)
        out.started(task.id, task.attempt)


def to_long_running(state: LocalState, task: WorkerTask, out: WorkerOutbox) -> None:
    """The task left the thread pool."""
    task.reached = LONG_RUNNING
    if task.state == READY or task.state == EXECUTING:
        if task.state == READY:
            out.started(task.id, task.attempt)
        move(state, task, LONG_RUNNING)
        out.seceded(task.id, task.attempt)
