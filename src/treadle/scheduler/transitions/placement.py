"""Which worker: restrictions and resources say which may, data and load say which should."""

from __future__ import annotations

from math import sqrt
from typing import Final

from treadle.scheduler.transitions.candidates import FEW, resource_pressure
from treadle.scheduler.transitions.durations import expected_duration, place, room_for, settle
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.queue import is_before
from treadle.scheduler.transitions.records import PROCESSING, Candidates, TaskState, WorkerState
from treadle.scheduler.transitions.rules.common import move
from treadle.scheduler.transitions.state import ClusterState

#: What fetching anything costs, however small, seconds.
TRANSFER_LATENCY_S: Final = 0.001
#: Holders of one dependency that are looked at; a value that is everywhere says nothing about where to go.
MOST_HOLDERS: Final = 8
#: What it costs all parties to give one more worker a share of the queue, and to hear of its end, seconds.
SHARE_COST_S: Final = 0.0001
#: For a task that is shorter than ``SHARE_COST_S``, workers that could start it within this time of each other are equally good, seconds.
SAME_START_S: Final = 0.001


def is_rootish(state: ClusterState, task: TaskState) -> bool:
    """Whether it is one of many that produce data from (nearly) nothing: such tasks wait on the scheduler for a place."""
    if not task.dependencies:
        return True
    group = task.group
    if group.alive <= 2 * state.total_nthreads or len(group.dependencies) >= 5:
        return False
    for dependency in task.dependencies:
        if dependency.group is group:
            # A chain, a stencil, a tree of one function: it needs what its many siblings make.
            return False
    needs = 0
    for other in group.dependencies:
        needs += other.alive
        if needs >= 5:
            return False
    return True


def _bytes_here(task: TaskState) -> tuple[dict[WorkerState, int], int]:
    """For the workers that hold some of what ``task`` needs: how many bytes of it; and the bytes of all of it."""
    local: dict[WorkerState, int] = {}
    total = 0
    for dependency in task.dependencies:
        nbytes = dependency.nbytes
        total += nbytes
        for seen, holder in enumerate(dependency.who_has):
            if seen == MOST_HOLDERS:
                break
            local[holder] = local.get(holder, 0) + nbytes
    return local, total


def _only_holder(task: TaskState) -> WorkerState | None:
    """The one worker that holds each of the values that ``task`` needs; None when there are more, or none."""
    found: WorkerState | None = None
    for dependency in task.dependencies:
        if len(dependency.who_has) != 1:
            return None
        holder = dependency.who_has[0]
        if found is None:
            found = holder
        elif found is not holder:
            return None
    return found


def _moved_start(state: ClusterState, task: TaskState, worker: WorkerState) -> float:
    """When ``task`` could start on a worker that holds nothing of what it needs, seconds from now."""
    nbytes = 0
    for dependency in task.dependencies:
        nbytes += dependency.nbytes
    return worker.occupancy / worker.nthreads + _fetching_s(state, nbytes)


def _fetching_s(state: ClusterState, nbytes: int) -> float:
    """How long it takes to fetch values of so many bytes, seconds."""
    return TRANSFER_LATENCY_S + nbytes / state.limits.bandwidth_bytes_per_s


def choose_worker(state: ClusterState, task: TaskState) -> WorkerState | None:
    """Where ``task``, which any worker may run, would start first: bytes to move against the work that is queued there.

    None: no worker runs.
    """
    if not state.running:
        return None
    holder = _only_holder(task)
    if holder is not None and holder in state.running:
        # The commonest case, without a dict: where all the data is, unless somebody else would be sooner.
        if len(holder.processing) < holder.nthreads:
            return holder
        other = next_worker(state)
        if other is None or other is holder:
            return holder
        return other if _moved_start(state, task, other) < holder.occupancy / holder.nthreads else holder
    local, total = _bytes_here(task)
    candidates = [worker for worker in local if worker in state.running]
    short = expected_duration(state, task) < SHARE_COST_S
    other = state.gathering_at if short else None
    if other is None or other not in state.running:
        other = next_worker(state)
    if other is not None and other not in local:
        candidates.append(other)
    if not candidates:
        return None
    if short:
        return _where_others_are(state, task, candidates, local, total)
    return _first_to_start(state, task, candidates, local, total)


def choose_candidate(state: ClusterState, candidates: Candidates, task: TaskState) -> WorkerState | None:
    """The same among those who may run it. None: those who were looked at have no room, or others wait for it already.

    An actor goes to one of them at once.
    """
    local, total = _bytes_here(task)
    pool = candidates.has_room if candidates.is_large else candidates.running
    looked_at = [worker for worker in local if worker in candidates.running]
    for looked, worker in enumerate(pool):
        if looked == FEW:
            break
        if worker not in local:
            looked_at.append(worker)
    if task.actor:
        if not looked_at:
            looked_at = [next(iter(candidates.running))] if candidates.running else []
    else:
        if candidates.live > 0:
            first = state.queues[candidates].peek()
            if first is not None and is_before(first, task):
                return None
        looked_at = [worker for worker in looked_at if has_room(state, worker, task)]
    if not looked_at:
        return None
    best = _first_to_start(state, task, looked_at, local, total)
    if best in pool:
        # To the end of the line.
        del pool[best]
        pool[best] = None
    return best


def has_room(state: ClusterState, worker: WorkerState, task: TaskState) -> bool:
    """Whether a restricted task may be sent there ahead of need. Of what waits for a resource there only a moment's work."""
    duration = expected_duration(state, task)
    if not room_for(state, worker, duration):
        return False
    pressure = resource_pressure(task, worker)
    return pressure <= 1.0 or pressure * duration <= state.limits.prefetch_time_s


def _first_to_start(
    state: ClusterState, task: TaskState, candidates: list[WorkerState], local: dict[WorkerState, int], total: int
) -> WorkerState:
    best = candidates[0]
    best_start = -1.0
    best_load = 0
    for worker in candidates:
        start = _start(state, task, worker, total - local.get(worker, 0))
        load = len(worker.processing)
        if best_start < 0 or start < best_start or (start == best_start and load < best_load):
            best, best_start, best_load = worker, start, load
    return best


def _start(state: ClusterState, task: TaskState, worker: WorkerState, missing: int) -> float:
    """When ``task`` could start there if so many bytes have to be moved, seconds from now."""
    start = worker.occupancy / worker.nthreads
    if missing > 0:
        start += _fetching_s(state, missing)
    pressure = resource_pressure(task, worker)
    if pressure > 1.0:
        start += pressure * expected_duration(state, task)
    return start


def _where_others_are(
    state: ClusterState, task: TaskState, candidates: list[WorkerState], local: dict[WorkerState, int], total: int
) -> WorkerState:
    """Where a very short task goes: of those that could start it soon, to the one that has most to do.

    A message for it alone would cost more than the task, and so would fetching what it makes. So such tasks gather, a millisecond's
    worth at a time, instead of going wherever the first ones of their graph happened to be.
    """
    starts = [_start(state, task, worker, total - local.get(worker, 0)) for worker in candidates]
    latest = min(starts) + SAME_START_S
    best = candidates[0]
    best_load = -1
    for at, worker in enumerate(candidates):
        load = len(worker.processing)
        if starts[at] < latest and load > best_load:
            best, best_load = worker, load
    state.gathering_at = best
    return best


def next_worker(state: ClusterState) -> WorkerState | None:
    """Some worker with little to do; another one each time, so that work spreads without looking at all of them."""
    for pool in (state.idle, state.has_capacity, state.running):
        for worker in pool:
            if worker in state.running:
                # To the end of the line.
                del pool[worker]
                pool[worker] = None
                return worker
    return None


def assign(state: ClusterState, task: TaskState, worker: WorkerState, out: Outbox) -> None:
    """``task`` goes to ``worker``."""
    move(state, task, PROCESSING, out)
    task.attempt += 1
    place(state, task, worker)
    out.compute(task, worker)


def serve(state: ClusterState, out: Outbox) -> None:
    """Send restricted tasks to those of their candidates that have room, an equal share for each, and what is more urgent before them."""
    while state.to_serve:
        candidates = next(iter(state.to_serve))
        pool = candidates.has_room
        if not candidates.is_large:
            pool = dict(candidates.running)
        left = share = 0
        while candidates.live > 0 and pool:
            if left == 0:
                left = len(pool)
                share = -(-candidates.live // left)
            left -= 1
            worker = next(iter(pool))
            del pool[worker]
            if _serve_worker(state, candidates, worker, share, out):
                pool[worker] = None
        state.to_serve.pop(candidates, None)


def _serve_worker(state: ClusterState, candidates: Candidates, worker: WorkerState, share: int, out: Outbox) -> bool:
    """Give it up to ``share`` of the tasks that wait for these candidates; whether it may have room for more."""
    given = 0
    while given < share and candidates.live > 0:
        first = state.queues[candidates].peek()
        if first is None or not has_room(state, worker, first):
            return False
        urgent = _more_urgent(state, worker, first)
        assign(state, urgent, worker, out)
        if urgent.candidates is candidates:
            given += 1
    return True


def _more_urgent(state: ClusterState, worker: WorkerState, task: TaskState) -> TaskState:
    """Of all that waits for a place on ``worker``: what comes before ``task``, or that itself."""
    best = task
    if state.queue.live:
        first = state.queue.peek()
        if first is not None and is_before(first, best) and room_for(state, worker, expected_duration(state, first)):
            best = first
    for other in worker.waiting_lines:
        best = _first_of(state, other, worker, best)
    for other in worker.pooled:
        if other.live > 0:
            best = _first_of(state, other, worker, best)
    return best


def _first_of(state: ClusterState, candidates: Candidates, worker: WorkerState, best: TaskState) -> TaskState:
    if candidates is not best.candidates:
        first = state.queues[candidates].peek()
        if first is not None and is_before(first, best) and has_room(state, worker, first):
            return first
    return best


def fill(state: ClusterState, out: Outbox) -> None:
    """Send queued tasks to the workers that have room, in runs of neighbours, an equal share for each.

    Very short tasks go to fewer workers than have room, so that time to work off a share and time to hand out all shares are
    about the same: smaller ones would take longer to hand out than they save.
    """
    settle(state)
    if state.to_serve:
        serve(state, out)
        settle(state)
    #: Of the workers that had room when the round began, how many are still to be looked at; tasks for each of them.
    left = share = 0
    lone = False
    while state.queue.live and state.has_capacity:
        if left == 0:
            left = len(state.has_capacity)
            share = -(-state.queue.live // left)
            first = state.queue.peek()
            if first is not None:
                duration = expected_duration(state, first)
                share = max(share, int(sqrt(state.queue.live * SHARE_COST_S / duration)))
                lone = state.queue.live == 1 and duration < SHARE_COST_S
        left -= 1
        worker = next(iter(state.has_capacity))
        if worker.processing and state.idle:
            # One that has nothing to do comes first: else it would be given what the others have not begun, a round trip later.
            empty = next(iter(state.idle))
            if not empty.processing and empty in state.has_capacity:
                worker = empty
        if lone:
            # Short tasks that come one after the other go to the same worker as long as it is idle: what it made before is mostly to
            # be dropped at the same time, and one process that wakes up is enough.
            before = state.gathering_at
            if before is not None and before in state.idle and before in state.has_capacity:
                worker = before
            state.gathering_at = worker
        given = 0
        full = False
        while given < share:
            task = state.queue.peek()
            if task is None:
                break
            if not room_for(state, worker, expected_duration(state, task)):
                full = True
                break
            assign(state, task, worker, out)
            given += 1
        del state.has_capacity[worker]
        if not full:
            state.has_capacity[worker] = None
    settle(state)
