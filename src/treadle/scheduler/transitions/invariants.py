"""What always holds between two events. For tests and for ``distributed.scheduler.validate``; takes time linear in the whole state."""

from __future__ import annotations

from math import isclose

from treadle.exceptions import InvariantError
from treadle.scheduler.transitions.candidates import resource_pressure
from treadle.scheduler.transitions.durations import fewest_tasks
from treadle.scheduler.transitions.records import (
    ERRED,
    FORGOTTEN,
    MEMORY,
    NO_WORKER,
    PROCESSING,
    QUEUED,
    STATE_NAMES,
    WAITING,
    TaskState,
    WorkerState,
    is_active,
    is_needed,
)
from treadle.scheduler.transitions.state import ClusterState


def _check(state: ClusterState, holds: bool, task: TaskState, law: str) -> None:
    if not holds:
        story = state.story.of([task.key])
        raise InvariantError(f"{law}: {task!r}, id {task.id}; its story: {story}")


def validate(state: ClusterState) -> None:
    """Raises InvariantError with the story of what is wrong."""
    if state.todo_tasks:
        raise InvariantError(f"recommendations are left: {state.todo_tasks}")
    counts = [0, 0, 0, 0, 0, 0, 0, 0]
    for key, task in state.tasks.items():
        _check(state, task.key == key and state.by_id.get(task.id) is task, task, "found by its key and by its id")
        counts[task.state] += 1
        _validate_task(state, task)
    if counts[:FORGOTTEN] != state.counts[:FORGOTTEN]:
        raise InvariantError(f"counted {counts}, booked {state.counts}")
    if len(state.by_id) != len(state.tasks):
        raise InvariantError("more ids than tasks")
    restricted = sum(candidates.live for candidates in state.queues)
    if state.queue.live + restricted + len(state.suspects) != counts[QUEUED]:
        raise InvariantError(f"{counts[QUEUED]} tasks are queued, the queue has {state.queue.live}, others {restricted}")
    _validate_candidates(state)
    _validate_reservations(state)
    _validate_workers(state)
    _validate_clients(state)
    _validate_reverses(state)


def _validate_task(state: ClusterState, task: TaskState) -> None:
    now = task.state
    _check(state, now != FORGOTTEN, task, "forgotten tasks are gone")
    dependents = [dependent for dependent in task.dependents if dependent.state != FORGOTTEN]
    _check(state, len(dependents) == task.live_dependents, task, "live_dependents counts those that are not forgotten")
    _check(state, all(task in dependent.dependencies for dependent in dependents), task, "dependents depend")
    waiters = sum(is_active(dependent.state) for dependent in dependents)
    _check(state, waiters == task.waiters, task, f"waiters are the active dependents, {waiters} not {task.waiters}")
    for dependency in task.dependencies:
        _check(state, dependency.state != FORGOTTEN, task, "dependencies are not forgotten")
        _check(state, task in dependency.dependents, task, "dependencies know their dependents")
    _check(state, bool(task.who_has) == (now == MEMORY), task, "who_has is non-empty iff in memory")
    _check(state, (task.processing_on is not None) == (now == PROCESSING), task, "processing_on is set iff processing")
    _check(state, (task in state.unrunnable) == (now == NO_WORKER), task, "unrunnable iff no-worker")
    _check(state, (task.error is not None) == (now == ERRED), task, "error is set iff erred")
    if now in (WAITING, NO_WORKER, QUEUED, PROCESSING, MEMORY, ERRED):
        _check(state, is_needed(task), task, f"{STATE_NAMES[now]} only while needed")
    if now == WAITING:
        missing = sum(dependency.state != MEMORY for dependency in task.dependencies)
        _check(state, missing == task.waiting_on and missing > 0, task, "waiting_on counts what is not in memory")
        for dependency in task.dependencies:
            _check(state, dependency.state in (WAITING, NO_WORKER, QUEUED, PROCESSING, MEMORY), task, "what it waits for is on its way")
    if now in (NO_WORKER, QUEUED, PROCESSING):
        _check(state, all(dependency.state == MEMORY for dependency in task.dependencies), task, "ready means that all is in memory")
    if now == QUEUED:
        candidates = task.candidates
        possible = state.running or state.reserved if candidates is None else candidates.running or candidates.reserved
        _check(state, task in state.suspects or bool(possible), task, "queued only while there are workers that may run it")
    for worker in task.who_has:
        _check(state, state.by_number.get(worker.number) is worker and task in worker.has_what, task, "holders hold")
    if task.processing_on is not None:
        _check(state, task in task.processing_on.processing, task, "its worker processes it")
        _check(state, state.by_number.get(task.processing_on.number) is task.processing_on, task, "its worker is there")
    for client in task.who_wants:
        _check(state, task in client.wants_what, task, "who wants it wants it")


def _validate_reservations(state: ClusterState) -> None:
    for worker, task in state.reserved.items():
        coming = task.state == QUEUED and state.suspects.get(task) is worker
        _check(state, coming or task.processing_on is worker, task, f"{worker!r} is reserved for what comes, or is there")
        if worker in state.running:
            raise InvariantError(f"{worker!r} is reserved for {task!r} and takes other tasks")
    for task, wanted in state.suspects.items():
        _check(state, task.state == QUEUED and task.suspicious > 0, task, "suspects wait in the state queued")
        _check(state, wanted is None or state.reserved.get(wanted) is task, task, "what has a worker for itself has it reserved")
    for task in [*state.replicating, *state.under_replicated]:
        _check(state, task.state == MEMORY and state.by_id.get(task.id) is task, task, "copies are made of what is in memory")
    for task in state.deaths:
        _check(state, task.suspicious > 0 and state.by_id.get(task.id) is task, task, "deaths are kept of suspicious tasks")


def _validate_candidates(state: ClusterState) -> None:
    for candidates in state.candidates.values():
        named = None if candidates.workers is None else set(candidates.workers)
        members: list[WorkerState] = []
        for worker in state.workers.values():
            able = all(worker.resources.get(name, 0.0) >= amount for name, amount in candidates.resources)
            if able and (named is None or named & {worker.address, worker.name, worker.host}):
                members.append(worker)
        running = [worker for worker in members if worker in state.running]
        reserved = [worker for worker in members if worker in state.reserved]
        if set(members) != set(candidates.members) or set(running) != set(candidates.running) or len(reserved) != candidates.reserved:
            raise InvariantError(f"{candidates!r}: {members} may run its tasks, {running} do, {reserved} are reserved")
        queued = state.queues[candidates].tasks() if candidates in state.queues else []
        if len(queued) != candidates.live or any(task.candidates is not candidates for task in queued):
            raise InvariantError(f"{candidates!r}: {candidates.live} tasks are booked, in its queue are {queued}")
        first = queued[0] if queued else None
        for worker in running:
            if candidates.live and not candidates.is_large and candidates not in worker.waiting_lines:
                raise InvariantError(f"{worker!r} does not know that tasks wait for {candidates!r}")
            spare = len(worker.processing) - len(worker.long_running) < fewest_tasks(state, worker)
            if first is not None and spare and resource_pressure(first, worker) <= 1:
                raise InvariantError(f"{candidates.live} tasks are queued for {candidates!r} while {worker!r} has too little to do")


def _validate_workers(state: ClusterState) -> None:
    if not len(state.workers) == len(state.by_number) == len(state.by_name):
        raise InvariantError("workers are found by address, number and name")
    total = 0
    for worker in state.workers.values():
        nbytes = 0
        for task in worker.has_what:
            _check(state, worker in task.who_has and state.by_id.get(task.id) is task, task, f"{worker!r} holds what holds it")
            nbytes += task.nbytes
        if nbytes != worker.nbytes:
            raise InvariantError(f"{worker!r} holds {nbytes} bytes, booked are {worker.nbytes}")
        total += nbytes
        load = 0.0
        for task in worker.processing:
            _check(state, task.processing_on is worker, task, f"{worker!r} processes what is assigned to it")
            if task not in worker.long_running:
                load += task.estimate_s
        if not isclose(load, worker.occupancy, rel_tol=1e-6, abs_tol=1e-6):
            raise InvariantError(f"{worker!r} has work for {load} s, booked are {worker.occupancy}")
        for subset in (worker.executing, worker.long_running, worker.taking_back):
            for task in subset:
                _check(state, task in worker.processing, task, f"{worker!r} processes what it executes")
    if total != state.total_nbytes:
        raise InvariantError(f"workers hold {total} bytes, booked are {state.total_nbytes}")
    for pool in (state.running, state.idle, state.saturated, state.has_capacity):
        for worker in pool:
            if state.by_number.get(worker.number) is not worker or worker not in state.running:
                raise InvariantError(f"{worker!r} is gone, or does not run, and is still listed")
    if state.queue.live:
        # Prefetch beyond that depends on how long the first task in the queue takes.
        idle = [worker for worker in state.running if len(worker.processing) - len(worker.long_running) < fewest_tasks(state, worker)]
        if idle:
            raise InvariantError(f"{state.queue.live} tasks are queued while {idle} have too little to do")


def _validate_clients(state: ClusterState) -> None:
    later: dict[TaskState, int] = {}
    for client in [*state.clients.values(), state.fire_and_forget, *[dataset.wants for dataset in state.published.values()]]:
        for task in client.wants_what:
            _check(state, client in task.who_wants and state.by_id.get(task.id) is task, task, f"{client!r} is known to want it")
        for id, expected in client.expecting.items():
            task = expected.task
            _check(state, state.by_id.get(task.id) is task, task, f"{client!r} expects dependents of what is known")
            _check(state, client.aliases.get(id, task) is task, task, f"{client!r} can name what will have dependents")
            _check(state, expected.count > 0, task, f"{client!r} expects dependents of it")
            later[task] = later.get(task, 0) + expected.count
        for id, task in client.aliases.items():
            _check(state, id in client.alias_ids[task], task, f"{client!r} has a name for it both ways")
            _check(state, task in client.wants_what or id in client.expecting, task, f"{client!r} needs what it has a name for")
    for task in state.tasks.values():
        _check(state, later.get(task, 0) == task.later_dependents, task, "clients will bring its later dependents")


def _validate_reverses(state: ClusterState) -> None:
    """What is found from both sides, so that no event looks for it, is the same from both."""
    placeable = [task for task in state.unrunnable if task not in state.awaited]
    if placeable != list(state.placeable.since):
        raise InvariantError(f"{placeable} wait for a worker, listed are {list(state.placeable.since)}")
    orphans = {orphan for rows in state.orphans.values() for orphan in rows}
    if orphans != {orphan for worker in state.workers.values() for orphan in worker.orphans.values()}:
        raise InvariantError("orphans are found by their key and by their worker")
    receiving = {(worker, task) for worker in state.workers.values() for task in worker.receiving}
    if receiving != {(worker, task) for task, workers in state.replicating.items() for worker in workers}:
        raise InvariantError("copies under way are found by their task and by their worker")
    learned = {(worker.number, function) for worker in state.workers.values() for function in worker.functions}
    if learned != {(number, function) for function in state.functions.values() for number in function.workers}:
        raise InvariantError("functions are found at the workers that know them, and the reverse")
    met = {(worker.number, number) for worker in state.workers.values() for number in worker.met if number in state.by_number}
    met |= {(client.number, number) for client in state.clients.values() for number in client.met if number in state.by_number}
    if met != {(number, worker.number) for worker in state.workers.values() for number in worker.known_to}:
        raise InvariantError("workers know who was told their addresses")
    if state.renamed != {id: task for task, ids in state.former_ids.items() for id in ids}:
        raise InvariantError("former ids are found by their task, and the reverse")
    for group in state.groups.values():
        if group.alive < 1 or not all(group in other.dependents for other in group.dependencies):
            raise InvariantError(f"{group!r} has {group.alive} tasks, or is not known to a group that it depends on")
