"""Which workers can go. Reads the state, changes nothing."""

from __future__ import annotations

from treadle.scheduler.transitions.records import WorkerState
from treadle.scheduler.transitions.state import ClusterState


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
