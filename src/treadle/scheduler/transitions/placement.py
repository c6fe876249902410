"""Which worker: restrictions and resources say which may, data and load say which should."""

from __future__ import annotations

from math import sqrt
from typing import Final

from treadle.scheduler.transitions.durations import expected_duration, place, room_for, settle
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import PROCESSING, TaskState, WorkerState
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


def is_restricted(task: TaskState) -> bool:
    """Whether not just any worker may run it."""
    options = task.options
    return options is not None and (options.workers is not None or bool(options.resources))


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


def valid_workers(state: ClusterState, task: TaskState) -> list[WorkerState]:
    """The running workers that may run ``task``; for restricted tasks only."""
    options = task.options
    assert options is not None
    found: dict[WorkerState, None] | None = None
    if options.workers is not None:
        found = {}
        for name in options.workers:
            worker = state.workers.get(name) or state.by_name.get(name)
            if worker is not None:
                found[worker] = None
            elif name in state.by_host:
                found.update(state.by_host[name])
        if options.allow_other_workers and not any(worker in state.running for worker in found):
            found = None
    if options.resources:
        able: dict[WorkerState, None] | None = None
        for name, amount in options.resources.items():
            having = state.by_resource.get(name)
            if having is None:
                return []
            kept = {worker: None for worker in (able or having) if worker in having and worker.resources[name] >= amount}
            able = kept
            if not kept:
                return []
        if able is not None:
            found = able if found is None else {worker: None for worker in found if worker in able}
    if found is None:
        return list(state.running)
    return [worker for worker in found if worker in state.running]


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


def _resource_pressure(task: TaskState, worker: WorkerState) -> float:
    """How full the scarcest resource that ``task`` asks for would be; 0 when it asks for none."""
    options = task.options
    worst = 0.0
    if options is not None and options.resources:
        for name, amount in options.resources.items():
            supply = worker.resources.get(name, 0.0)
            if supply > 0:
                worst = max(worst, (worker.used_resources.get(name, 0.0) + amount) / supply)
    return worst if worst > 1.0 else 0.0


def choose_worker(state: ClusterState, task: TaskState) -> WorkerState | None:
    """Where ``task`` would start first: bytes to move against the work that is queued there. None: no worker may run it."""
    if is_restricted(task):
        candidates = valid_workers(state, task)
        if not candidates:
            return None
        local, total = _bytes_here(task)
    else:
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
        short = expected_duration(state, task.group.prefix) < SHARE_COST_S
        other = state.gathering_at if short else None
        if other is None or other not in state.running:
            other = next_worker(state)
        if other is not None and other not in local:
            candidates.append(other)
        if not candidates:
            return None
        if short:
            return _where_others_are(state, task, candidates, local, total)
    best: WorkerState | None = None
    best_start = 0.0
    best_load = 0
    for worker in candidates:
        start = _start(state, task, worker, total - local.get(worker, 0))
        load = len(worker.processing)
        if best is None or start < best_start or (start == best_start and load < best_load):
            best, best_start, best_load = worker, start, load
    return best


def _start(state: ClusterState, task: TaskState, worker: WorkerState, missing: int) -> float:
    """When ``task`` could start there if so many bytes have to be moved, seconds from now."""
    start = worker.occupancy / worker.nthreads
    if missing > 0:
        start += _fetching_s(state, missing)
    pressure = _resource_pressure(task, worker)
    if pressure > 0:
        start += pressure * expected_duration(state, task.group.prefix)
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


def fill(state: ClusterState, out: Outbox) -> None:
    """Send queued tasks to the workers that have room, in runs of neighbours, an equal share for each.

    Very short tasks go to fewer workers than have room, so that time to work off a share and time to hand out all shares are
    about the same: smaller ones would take longer to hand out than they save.
    """
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
                duration = expected_duration(state, first.group.prefix)
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
            if not room_for(state, worker, expected_duration(state, task.group.prefix)):
                full = True
                break
            assign(state, task, worker, out)
            given += 1
        del state.has_capacity[worker]
        if not full:
            state.has_capacity[worker] = None
    settle(state)
