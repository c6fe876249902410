"""Questions about the current state, and their answers as plain data. Reads the core, changes nothing.

Keys travel as they do in messages; mappings whose keys may be tuples are lists of pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from treadle.scheduler.explaining import explain
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import STATE_NAMES, TaskState, WorkerState
from treadle.utils.keys import key_from_wire, prefix_of


def _chosen_tasks(core: Transitions, options: dict[str, Any]) -> list[TaskState]:
    keys = options.get("keys")
    if keys is None:
        return list(core.tasks.values())
    return [task for key in keys if (task := core.tasks.get(key_from_wire(key))) is not None]


def _chosen_workers(core: Transitions, options: dict[str, Any]) -> list[WorkerState]:
    names = options.get("workers")
    if names is None:
        return list(core.workers.values())
    return [worker for name in names if (worker := find_worker(core, name)) is not None]


def find_worker(core: Transitions, name: str) -> WorkerState | None:
    """By address or name."""
    return core.workers.get(name) or core.state.by_name.get(str(name))


def who_has(core: Transitions, options: dict[str, Any]) -> Any:
    keys = options.get("keys")
    if keys is None:
        return [[task.key, [worker.address for worker in task.who_has]] for task in core.tasks.values() if task.who_has]
    found = []
    for wire in keys:
        task = core.tasks.get(key_from_wire(wire))
        found.append([wire, [] if task is None else [worker.address for worker in task.who_has]])
    return found


def has_what(core: Transitions, options: dict[str, Any]) -> Any:
    return [[worker.address, _keys(worker.has_what)] for worker in _chosen_workers(core, options)]


def processing(core: Transitions, options: dict[str, Any]) -> Any:
    return [[worker.address, _keys(worker.processing)] for worker in _chosen_workers(core, options)]


def _keys(tasks: Iterable[TaskState]) -> list[Any]:
    return [task.key for task in tasks]


def running_workers(core: Transitions, options: dict[str, Any]) -> Any:
    """Number, address and threads of those that take new work, for clients that bring data."""
    return [[worker.number, worker.address, worker.nthreads] for worker in _chosen_workers(core, options) if worker.status == "running"]


def nthreads(core: Transitions, options: dict[str, Any]) -> Any:
    return {worker.address: worker.nthreads for worker in _chosen_workers(core, options)}


def nbytes(core: Transitions, options: dict[str, Any]) -> Any:
    """Sizes in bytes, by key or (``summary``) by key prefix."""
    tasks = [task for task in _chosen_tasks(core, options) if task.nbytes >= 0 and task.who_has]
    if not options.get("summary", True):
        return [[task.key, task.nbytes] for task in tasks]
    sums: dict[str, int] = {}
    for task in tasks:
        name = prefix_of(task.key)
        sums[name] = sums.get(name, 0) + task.nbytes
    return [[name, total] for name, total in sums.items()]


def scheduler_info(core: Transitions, options: dict[str, Any]) -> Any:
    """Everything but the address and the start time of the scheduler, which its shell adds."""
    most = int(options.get("n_workers", -1))
    shown = islice(core.workers.values(), None if most < 0 else most)
    return {
        "type": "Scheduler",
        "id": core.scheduler_id,
        "n_workers": len(core.workers),
        "total_threads": core.state.total_nthreads,
        "total_memory": core.state.total_memory_limit,
        "workers": {worker.address: worker_info(core, worker) for worker in shown},
        "tasks": core.statistics()["tasks"],
    }


def worker_info(core: Transitions, worker: WorkerState) -> dict[str, Any]:
    return {
        "type": "Worker",
        "id": worker.name,
        "name": worker.name,
        "host": worker.host,
        "nthreads": worker.nthreads,
        "memory_limit": worker.memory_limit,
        "resources": worker.resources,
        "local_directory": worker.identity.local_directory,
        # The core counts on a clock of its own; users want the time of day.
        "last_seen": time.time() - (core.state.now - worker.last_seen),
        "services": {},
        "metrics": worker.metrics,
        "status": worker.status,
        "nanny": worker.nanny,
        "pid": worker.pid,
    }


def datasets(core: Transitions, options: dict[str, Any]) -> Any:
    """The names of the published datasets, oldest first."""
    return list(core.state.published)


def dataset(core: Transitions, options: dict[str, Any]) -> Any:
    """The published object of that name, pickled, in a list; an empty one when there is none."""
    found = core.state.published.get(key_from_wire(options["name"]))
    return [] if found is None else [found.body]


def key_states(core: Transitions, options: dict[str, Any]) -> Any:
    return [[task.key, STATE_NAMES[task.state]] for task in _chosen_tasks(core, options)]


def task_counts(core: Transitions, options: dict[str, Any]) -> Any:
    """Number of tasks in each state."""
    return core.statistics()["tasks"]


def story(core: Transitions, options: dict[str, Any]) -> Any:
    return [list(entry) for entry in core.story(*[key_from_wire(key) for key in options.get("keys", ())])]


def statistics(core: Transitions, options: dict[str, Any]) -> Any:
    return core.statistics()


SUBJECTS: dict[str, Callable[[Transitions, dict[str, Any]], Any]] = {
    "who_has": who_has,
    "has_what": has_what,
    "processing": processing,
    "nthreads": nthreads,
    "running_workers": running_workers,
    "nbytes": nbytes,
    "scheduler_info": scheduler_info,
    "key_states": key_states,
    "datasets": datasets,
    "dataset": dataset,
    "task_counts": task_counts,
    "story": story,
    "statistics": statistics,
    "why": explain,
}


def answer(core: Transitions, subject: str, options: dict[str, Any]) -> Any:
    """Raises ValueError that lists the subjects for one that is unknown."""
    query = SUBJECTS.get(subject)
    if query is None:
        raise ValueError(f"the scheduler cannot be asked about {subject!r}; it knows {', '.join(SUBJECTS)}")
    return query(core, options)
