"""Tasks that wait for a worker to come, by what they ask for: one that comes is compared with these wishes, not with each task. Pure."""

from __future__ import annotations

from typing import Final

from treadle.scheduler.transitions.records import TaskState, WorkerState

#: Amounts of resources, sorted by name.
Needs = tuple[tuple[str, float], ...]
_NOTHING: Final[Needs] = ()


class Placeable:
    """Tasks in state NO_WORKER that run as soon as there is a worker that may run them."""

    def __init__(self) -> None:
        #: Since when each is here, oldest first.
        self.since: dict[TaskState, float] = {}
        #: By the name, address or host of a worker that they ask for. One that asks for several stands under each.
        self._by_name: dict[str, dict[Needs, dict[TaskState, None]]] = {}
        #: The others, by the first resource that they ask for, "" when they ask for none.
        self._by_resource: dict[str, dict[Needs, dict[TaskState, None]]] = {}

    def add(self, task: TaskState, now: float) -> None:
        self.since[task] = now
        needs = _needs(task)
        names = _names(task)
        if names is None:
            self._by_resource.setdefault(needs[0][0] if needs else "", {}).setdefault(needs, {})[task] = None
        else:
            for name in names:
                self._by_name.setdefault(name, {}).setdefault(needs, {})[task] = None

    def discard(self, task: TaskState) -> None:
        if task not in self.since:
            return
        del self.since[task]
        needs = _needs(task)
        names = _names(task)
        if names is None:
            _discard(self._by_resource, needs[0][0] if needs else "", needs, task)
        else:
            for name in names:
                _discard(self._by_name, name, needs, task)

    def clear(self) -> None:
        self.since.clear()
        self._by_name.clear()
        self._by_resource.clear()

    def touch_all(self, now: float) -> None:
        """All of them are here since now."""
        for task in self.since:
            self.since[task] = now

    def candidates(self, worker: WorkerState) -> list[TaskState]:
        """Those that ``worker`` may run."""
        found: dict[TaskState, None] = {}
        _collect(self._by_resource, "", worker, found)
        for name in worker.resources:
            _collect(self._by_resource, name, worker, found)
        if self._by_name:
            for wish in (worker.address, worker.name, worker.host):
                _collect(self._by_name, wish, worker, found)
        return list(found)


def _needs(task: TaskState) -> Needs:
    options = task.options
    if options is None or not options.resources:
        return _NOTHING
    return tuple(sorted(options.resources.items()))


def _names(task: TaskState) -> list[str] | None:
    """Names, addresses and hosts of the workers that may run it; None: any may."""
    options = task.options
    if options is None or options.workers is None or options.allow_other_workers:
        return None
    return list(options.workers)


def _discard(table: dict[str, dict[Needs, dict[TaskState, None]]], wish: str, needs: Needs, task: TaskState) -> None:
    rows = table.get(wish)
    tasks = None if rows is None else rows.get(needs)
    if rows is None or tasks is None:
        # It asks for the same worker twice.
        return
    tasks.pop(task, None)
    if not tasks:
        del rows[needs]
        if not rows:
            del table[wish]


def _collect(table: dict[str, dict[Needs, dict[TaskState, None]]], wish: str, worker: WorkerState, found: dict[TaskState, None]) -> None:
    rows = table.get(wish)
    if rows is None:
        return
    for needs, tasks in rows.items():
        if _has(worker, needs):
            found.update(tasks)


def _has(worker: WorkerState, needs: Needs) -> bool:
    for name, amount in needs:
        if worker.resources.get(name, 0.0) < amount:
            return False
    return True
