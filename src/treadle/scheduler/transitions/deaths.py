"""Who is to blame when a worker dies: the tasks that were executing. After too many deaths a task fails. Pure."""

from __future__ import annotations

from treadle.exceptions import Death, KilledWorker
from treadle.messages.scheduler_local import WorkerDeath
from treadle.scheduler.transitions.records import ERRED, TaskState, WorkerState
from treadle.scheduler.transitions.rules.erred import own_error
from treadle.scheduler.transitions.state import ClusterState


def blame_suspects(state: ClusterState, worker: WorkerState, report: WorkerDeath | None) -> None:
    """``worker`` has died. ``report``: the event WorkerDeath, or None when nobody has seen how."""
    suspects = _executing(state, worker, report) if report is not None and report.exact else _most_likely(worker)
    if not suspects:
        return
    death = _death(state, worker, report)
    limit = state.limits.allowed_failures
    for task in suspects:
        task.suspicious += 1
        deaths = state.deaths.setdefault(task, [])
        deaths.append(death)
        if task.suspicious > limit:
            task.error = own_error(KilledWorker(task.key, worker.address, limit, deaths))
            task.blame = task
            state.recommend(task, ERRED)


def _executing(state: ClusterState, worker: WorkerState, report: WorkerDeath) -> list[TaskState]:
    """What its nanny has read in the memory that they shared. What was given to others since has nothing to do with it."""
    found: list[TaskState] = []
    for id, attempt in zip(report.executing, report.attempts, strict=False):
        task = state.by_id.get(id)
        if task is not None and task.processing_on is worker and task.attempt == attempt:
            found.append(task)
    return found


def _most_likely(worker: WorkerState) -> list[TaskState]:
    """Without a nanny: what it said to be executing, and what its other threads had most likely begun."""
    found = [task for task in worker.executing]
    free = worker.nthreads - len(found)
    if free > 0:
        rest = [task for task in worker.processing if task not in worker.executing and task not in worker.long_running]
        rest.sort(key=_by_priority)
        found.extend(rest[:free])
    return found


def _by_priority(task: TaskState) -> tuple[float, float, int]:
    return task.priority


def _death(state: ClusterState, worker: WorkerState, report: WorkerDeath | None) -> Death:
    if report is None:
        return Death(worker.address, worker.name, worker.host, worker.pid, state.now + state.clock_offset_s)
    return Death(
        worker.address,
        worker.name,
        worker.host,
        worker.pid,
        report.died_at or state.now + state.clock_offset_s,
        report.exitcode,
        report.out_of_memory,
        report.reason,
        report.stderr,
    )
