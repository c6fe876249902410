"""Tasks that are ready and wait for a place on a worker, in order of priority.

Tasks come nearly in order (a submission's ranks rise), so a queue of runs is cheaper than a heap of a million:
for each (user priority, generation) a list read from the front, and a small heap for those that came out of order.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from treadle.scheduler.transitions.records import QUEUED, TaskState


class _Run:
    """Tasks of one (user priority, generation)."""

    def __init__(self) -> None:
        self.ordered: list[TaskState] = []
        #: Index of the first of ``ordered`` that was not taken yet.
        self.front: int = 0
        #: (rank, id, task) of those that came later than their rank.
        self.late: list[tuple[int, int, TaskState]] = []

    def push(self, task: TaskState) -> None:
        rank = task.priority[2]
        if len(self.ordered) == self.front or self.ordered[-1].priority[2] <= rank:
            self.ordered.append(task)
        else:
            heappush(self.late, (rank, task.id, task))

    def peek(self) -> TaskState | None:
        """The first task that is still queued; drops those in front of it that are not."""
        while self.front < len(self.ordered) and self.ordered[self.front].state != QUEUED:
            self.front += 1
        while self.late and self.late[0][2].state != QUEUED:
            heappop(self.late)
        if self.front > 1024 and self.front * 2 > len(self.ordered):
            del self.ordered[: self.front]
            self.front = 0
        if self.front < len(self.ordered):
            first = self.ordered[self.front]
            if self.late and self.late[0][0] < first.priority[2]:
                return self.late[0][2]
            return first
        return self.late[0][2] if self.late else None


class TaskQueue:
    """All queued tasks. A task that leaves the state QUEUED is dropped when it comes to the front."""

    def __init__(self) -> None:
        self.runs: dict[tuple[float, float], _Run] = {}
        self.order: list[tuple[float, float]] = []
        #: Tasks in state QUEUED.
        self.live: int = 0

    def push(self, task: TaskState) -> None:
        """``task.state`` is QUEUED already."""
        priority = task.priority
        name = (priority[0], priority[1])
        run = self.runs.get(name)
        if run is None:
            run = _Run()
            self.runs[name] = run
            heappush(self.order, name)
        run.push(task)
        self.live += 1

    def discard(self, task: TaskState) -> None:
        """``task`` is about to leave the state QUEUED."""
        self.live -= 1
        if self.live == 0:
            self.runs.clear()
            self.order.clear()

    def peek(self) -> TaskState | None:
        """The task to run next, left in the queue."""
        while self.order:
            name = self.order[0]
            task = self.runs[name].peek()
            if task is not None:
                return task
            heappop(self.order)
            del self.runs[name]
        return None

    def tasks(self) -> list[TaskState]:
        """All of them in order; for people and tests."""
        heapify(self.order)
        found: dict[TaskState, None] = {}
        for name in sorted(self.order):
            run = self.runs[name]
            entries = [(task.priority[2], task.id, task) for task in run.ordered[run.front :]] + run.late
            for _rank, _id, task in sorted(entries, key=_rank_and_id):
                if task.state == QUEUED:
                    found[task] = None
        return list(found)


def is_before(one: TaskState, other: TaskState) -> bool:
    """Whether ``one``, the first of its queue, goes before ``other``, the first of another."""
    return one.priority < other.priority


def _rank_and_id(entry: tuple[int, int, TaskState]) -> tuple[int, int]:
    return (entry[0], entry[1])
