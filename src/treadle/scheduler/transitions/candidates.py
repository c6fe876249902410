"""Which workers may run restricted tasks: one record for all tasks with the same wishes, kept up to date as workers come and go. Pure.

So a task costs the same among ten candidates and among ten thousand.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.scheduler.transitions.queue import TaskQueue
from treadle.scheduler.transitions.records import WAITING, Candidates, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: Sets of so many workers at most are looked at as a whole; for larger ones it is known which of them may have room.
FEW: Final = 8
#: Records that are kept although no task waits for them.
MOST_KEPT: Final = 1000
#: Records that are looked at to find one that can go.
MOST_LOOKED_AT: Final = 8


def is_restricted(task: TaskState) -> bool:
    """Whether not just any worker may run it."""
    options = task.options
    return options is not None and (options.workers is not None or bool(options.resources))


def find_candidates(state: ClusterState, task: TaskState) -> Candidates | None:
    """The workers that may run ``task`` now; None: any. A preference for workers none of which is here is no restriction."""
    options = task.options
    if options is None:
        return None
    resources: Any = tuple(sorted(options.resources.items())) if options.resources else ()
    if options.workers is not None:
        found = _get(state, tuple(options.workers), resources)
        if not options.allow_other_workers or found.running or found.reserved > 0:
            return found
    return _get(state, None, resources) if resources else None


def is_possible(state: ClusterState, candidates: Candidates | None) -> bool:
    """Whether there is a worker for what these may run, now or when suspects have had their turn."""
    if candidates is None:
        return len(state.running) > 0 or len(state.reserved) > 0
    return len(candidates.running) > 0 or candidates.reserved > 0


def _get(state: ClusterState, workers: Any, resources: Any) -> Candidates:
    name = (workers, resources)
    found = state.candidates.get(name)
    if found is not None:
        return found
    if len(state.candidates) >= MOST_KEPT:
        _make_place(state)
    found = Candidates(name, workers, resources)
    state.candidates[name] = found
    for index, what in _places(found):
        state.candidates_by_wish.setdefault((index, what), {})[found] = None
    for worker in _matching(state, found):
        _join(state, found, worker)
    return found


def _places(candidates: Candidates) -> list[tuple[str, str]]:
    """Under what a worker that comes will find it."""
    if candidates.workers is not None:
        return [("worker", name) for name in dict.fromkeys(candidates.workers)]
    return [("resource", candidates.resources[0][0])]


def _make_place(state: ClusterState) -> None:
    for looked, candidates in enumerate(state.candidates.values()):
        if candidates.live == 0:
            break
        if looked == MOST_LOOKED_AT:
            return
    else:
        return
    _drop(state, candidates)


def _drop(state: ClusterState, candidates: Candidates) -> None:
    """No task is queued for these."""
    del state.candidates[candidates.name]
    state.queues.pop(candidates, None)
    state.to_serve.pop(candidates, None)
    for place in _places(candidates):
        del state.candidates_by_wish[place][candidates]
        if not state.candidates_by_wish[place]:
            del state.candidates_by_wish[place]
    for worker in candidates.members:
        worker.candidates.pop(candidates, None)
        worker.pooled.pop(candidates, None)


def _matching(state: ClusterState, candidates: Candidates) -> list[WorkerState]:
    found: dict[WorkerState, None] = {}
    if candidates.workers is not None:
        for name in candidates.workers:
            worker = state.workers.get(name) or state.by_name.get(name)
            if worker is not None:
                found[worker] = None
            elif name in state.by_host:
                found.update(state.by_host[name])
    else:
        found.update(state.by_resource.get(candidates.resources[0][0], {}))
    return [worker for worker in found if _has_enough(candidates, worker)]


def _has_enough(candidates: Candidates, worker: WorkerState) -> bool:
    for name, amount in candidates.resources:
        if worker.resources.get(name, 0.0) < amount:
            return False
    return True


def _join(state: ClusterState, candidates: Candidates, worker: WorkerState) -> None:
    candidates.members[worker] = None
    worker.candidates[candidates] = None
    if not candidates.is_large and len(candidates.members) > FEW:
        candidates.is_large = True
        for member in candidates.members:
            member.waiting_lines.pop(candidates, None)
            member.pooled[candidates] = None
            if member in candidates.running:
                candidates.has_room[member] = None
    elif candidates.is_large:
        worker.pooled[candidates] = None
    if worker in state.reserved:
        candidates.reserved += 1
    elif worker in state.running:
        _run(candidates, worker)


def _run(candidates: Candidates, worker: WorkerState) -> None:
    candidates.running[worker] = None
    if candidates.is_large:
        candidates.has_room[worker] = None
    elif candidates.live > 0:
        worker.waiting_lines[candidates] = None


def worker_joins(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` is indexed, and does not run yet."""
    found: dict[Candidates, None] = {}
    for name in (worker.address, worker.name, worker.host):
        found.update(state.candidates_by_wish.get(("worker", name), {}))
    for name in worker.resources:
        found.update(state.candidates_by_wish.get(("resource", name), {}))
    for candidates in found:
        if _has_enough(candidates, worker):
            _join(state, candidates, worker)


def worker_leaves(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` is gone; it has stopped running before."""
    for candidates in worker.candidates:
        del candidates.members[worker]
        if worker in state.reserved:
            candidates.reserved -= 1
    strand(state, worker)
    for candidates in worker.candidates:
        if not candidates.members and candidates.live == 0:
            _drop(state, candidates)
    worker.candidates = {}
    worker.pooled = {}


def worker_runs(state: ClusterState, worker: WorkerState) -> None:
    """It is among the running ones from here on."""
    for candidates in worker.candidates:
        _run(candidates, worker)


def worker_stops(worker: WorkerState) -> None:
    """It is no longer among the running ones."""
    for candidates in worker.candidates:
        candidates.running.pop(worker, None)
        candidates.has_room.pop(worker, None)
    worker.waiting_lines = {}


def strand(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` takes nothing any more: what waits for workers of which none is left is looked at anew."""
    for candidates in worker.candidates:
        if candidates.live > 0 and not candidates.running and candidates.reserved == 0:
            for task in state.queues[candidates].tasks():
                state.recommend(task, WAITING)


def reserve_candidate(worker: WorkerState) -> None:
    for candidates in worker.candidates:
        candidates.reserved += 1


def release_candidate(worker: WorkerState) -> None:
    for candidates in worker.candidates:
        candidates.reserved -= 1


def room_has_come(state: ClusterState, worker: WorkerState) -> None:
    """``worker`` has, perhaps, room for another task: who waits for that is served in this turn."""
    for candidates in worker.waiting_lines:
        state.to_serve[candidates] = None
    for candidates in worker.pooled:
        candidates.has_room[worker] = None
        if candidates.live > 0:
            state.to_serve[candidates] = None


def push(state: ClusterState, candidates: Candidates, task: TaskState) -> None:
    """``task`` is QUEUED and waits for one of these."""
    task.candidates = candidates
    queue = state.queues.get(candidates)
    if queue is None:
        queue = TaskQueue(state.turn_clock)
        state.queues[candidates] = queue
    queue.push(task)
    if candidates.live == 0 and not candidates.is_large:
        for worker in candidates.running:
            worker.waiting_lines[candidates] = None
    candidates.live += 1
    state.to_serve[candidates] = None


def discard(state: ClusterState, candidates: Candidates, task: TaskState) -> None:
    """``task`` is about to leave the state QUEUED."""
    state.queues[candidates].discard(task)
    candidates.live -= 1
    if candidates.live == 0:
        del state.queues[candidates]
        state.to_serve.pop(candidates, None)
        if not candidates.members:
            _drop(state, candidates)
        elif not candidates.is_large:
            for worker in candidates.running:
                worker.waiting_lines.pop(candidates, None)


def resource_pressure(task: TaskState, worker: WorkerState) -> float:
    """How full the scarcest resource that ``task`` asks for would be, as a multiple of what is there; 0 when it asks for none."""
    options = task.options
    worst = 0.0
    if options is not None and options.resources:
        for name, amount in options.resources.items():
            supply = worker.resources.get(name, 0.0)
            if supply > 0:
                worst = max(worst, (worker.used_resources.get(name, 0.0) + amount) / supply)
    return worst


def idle_candidate(state: ClusterState, candidates: Candidates, task: TaskState) -> bool:
    """Whether one of some of these that have room is idle, and has the resources free."""
    pool = candidates.has_room if candidates.is_large else candidates.running
    for looked, worker in enumerate(pool):
        if worker in state.idle and resource_pressure(task, worker) <= 1.0:
            return True
        if looked == FEW:
            break
    return False
