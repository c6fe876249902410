"""Where values should go: off workers that retire, onto more workers, from full workers to empty ones. Reads the state, changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heapreplace

from treadle.scheduler.transitions.records import MEMORY, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: (number of a worker, ids of tasks).
Move = tuple[int, list[int]]


class _Recipients:
    """Workers by the bytes that they have, or will have: always the emptiest next."""

    def __init__(self, state: ClusterState, workers: Iterable[WorkerState]) -> None:
        coming: dict[WorkerState, int] = {}
        for task, recipients in state.replicating.items():
            for worker in recipients:
                coming[worker] = coming.get(worker, 0) + task.nbytes
        self._heap = [(worker.nbytes + coming.get(worker, 0), worker.number, worker) for worker in workers]
        heapify(self._heap)
        self.moves: dict[int, list[int]] = {}

    def give(self, task: TaskState, but: Collection[WorkerState]) -> WorkerState | None:
        """Who gets a copy of ``task``: somebody who is not among ``but``, if there is one."""
        heap = self._heap
        if not heap:
            return None
        best = heap[0]
        if best[2] in but:
            others = [entry for entry in heap if entry[2] not in but]
            if not others:
                return None
            best = min(others)
            heap[heap.index(best)] = (best[0] + task.nbytes, best[1], best[2])
            heapify(heap)
        else:
            heapreplace(heap, (best[0] + task.nbytes, best[1], best[2]))
        self.moves.setdefault(best[1], []).append(task.id)
        return best[2]

    def taken(self) -> list[Move]:
        return list(self.moves.items())


def takers(state: ClusterState, but: Collection[WorkerState] = ()) -> list[WorkerState]:
    """Workers that values may go to: running ones, also those that are kept for a suspect."""
    return [worker for worker in [*state.running, *state.reserved] if worker.connected and worker not in but]


def plan_retirement(state: ClusterState, leaving: Collection[WorkerState]) -> tuple[list[Move], dict[WorkerState, str]]:
    """Copies to make of what only those who are ``leaving`` have, and who cannot be emptied, with the reason."""
    recipients = _Recipients(state, takers(state, leaving))
    stuck: dict[WorkerState, str] = {}
    planned: set[TaskState] = set()
    for worker in leaving:
        for task in worker.has_what:
            if task in planned or any(holder not in leaving for holder in task.who_has):
                continue
            planned.add(task)
            if task.actor:
                stuck[worker] = f"it has the actor {task.key!r}, which cannot move"
            elif task not in state.replicating and recipients.give(task, ()) is None:
                stuck[worker] = f"no other worker can take {task.key!r}"
    return recipients.taken(), stuck


def is_empty(worker: WorkerState, leaving: Collection[WorkerState]) -> bool:
    """Whether nothing would be lost with it: it has no tasks, and others have its values."""
    if worker.processing:
        return False
    return all(any(holder not in leaving for holder in task.who_has) for task in worker.has_what)


def plan_replication(
    state: ClusterState, tasks: Iterable[TaskState], count: int, workers: list[WorkerState], branching_factor: int
) -> tuple[list[Move], int]:
    """Copies to order now for ``count`` of each task among ``workers``, and how many are missing in all, those on their way included.

    A holder serves at most ``branching_factor`` at a time.
    """
    recipients = _Recipients(state, workers)
    chosen = set(workers)
    missing = 0
    for task in tasks:
        if task.state != MEMORY or task.actor:
            continue
        coming = state.replicating.get(task, [])
        have = [worker for worker in dict.fromkeys([*task.who_has, *coming]) if worker in chosen]
        wanted = min(count, len(workers)) - len(have)
        missing += max(wanted, 0) + len(coming)
        wanted = min(wanted, branching_factor * len(task.who_has) - len(coming))
        but = [*task.who_has, *coming]
        for _ in range(wanted):
            recipient = recipients.give(task, but)
            if recipient is None:
                break
            but.append(recipient)
    return recipients.taken(), missing


#: (task, from, to).
Shift = tuple[TaskState, WorkerState, WorkerState]


def plan_rebalance(tasks: Iterable[TaskState], workers: list[WorkerState]) -> list[Shift]:
    """Values to move so that ``workers`` have about the same number of bytes: from the fullest to the emptiest, as few as will do."""
    if len(workers) < 2:
        return []
    load = {worker: worker.nbytes for worker in workers}
    mean = sum(load.values()) / len(load)
    movable: dict[WorkerState, list[TaskState]] = {worker: [] for worker in workers}
    for task in tasks:
        if task.state == MEMORY and not task.actor and len(task.who_has) == 1 and task.who_has[0] in movable:
            movable[task.who_has[0]].append(task)
    shifts: list[Shift] = []
    for sender in sorted(workers, key=lambda worker: -load[worker]):
        # Large ones first: few moves do most.
        for task in sorted(movable[sender], key=lambda task: -task.nbytes):
            recipient = min(workers, key=lambda worker: load[worker])
            # Only what brings both nearer to the mean.
            if load[sender] - task.nbytes < mean - task.nbytes / 2 or load[recipient] + task.nbytes > mean + task.nbytes / 2:
                continue
            if recipient is sender:
                break
            load[sender] -= task.nbytes
            load[recipient] += task.nbytes
            shifts.append((task, sender, recipient))
    return shifts


def idle_to_close(state: ClusterState, count: int | None, memory_ratio: float, minimum: int, target: int | None) -> list[WorkerState]:
    """Workers that can go at little cost: those without tasks, with the least data first.

    ``count`` of them, or down to ``target`` workers, or as many as leave ``memory_ratio`` times the memory that is used.
    At least ``minimum`` workers stay.
    """
    workers = list(state.workers.values())
    most = max(len(workers) - minimum, 0)
    if count is None and target is not None:
        count = max(len(workers) - target, 0)
    if count is not None:
        ordered = sorted(workers, key=lambda worker: (len(worker.processing), worker.nbytes))
        return ordered[: min(count, most)]
    if state.queue.live or state.queues or state.suspects:
        return []
    limit = sum(worker.memory_limit for worker in workers)
    used = sum(worker.nbytes for worker in workers)
    chosen: list[WorkerState] = []
    for worker in sorted(workers, key=lambda worker: worker.nbytes):
        if worker.processing or len(chosen) == most:
            continue
        limit -= worker.memory_limit
        if used and limit < memory_ratio * used:
            break
        chosen.append(worker)
    return chosen
