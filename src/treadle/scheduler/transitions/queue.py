"""Tasks that are ready and wait for a place on a worker: by the user's priority; within one, clients take turns; then in order.

Tasks of a client come nearly in order (a submission's ranks rise), so a queue of runs is cheaper than a heap of a million:
for each generation a list read from the front, and a small heap for those that came out of order.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from treadle.scheduler.transitions.records import Account, TaskState

#: Seconds of work that one client is given more than the others before it is another one's turn. Each change looks at all of them.
TURN_S: Final = 0.01


class _Run:
    """Tasks of one generation of an account."""

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

    def peek(self, queue: TaskQueue) -> TaskState | None:
        """The first task that is still in ``queue``; drops those in front of it that are not."""
        while self.front < len(self.ordered) and self.ordered[self.front].queue is not queue:
            self.front += 1
        while self.late and self.late[0][2].queue is not queue:
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


class _Line:
    """Tasks of one account, by generation."""

    def __init__(self, account: Account) -> None:
        self.account: Account = account
        self.runs: dict[float, _Run] = {}
        self.order: list[float] = []

    def push(self, task: TaskState) -> None:
        generation = task.priority[1]
        run = self.runs.get(generation)
        if run is None:
            run = _Run()
            self.runs[generation] = run
            heappush(self.order, generation)
        run.push(task)

    def peek(self, queue: TaskQueue) -> TaskState | None:
        while self.order:
            task = self.runs[self.order[0]].peek(queue)
            if task is not None:
                return task
            del self.runs[heappop(self.order)]
        return None


class _Level:
    """Tasks of one user priority, by account."""

    def __init__(self) -> None:
        self.lines: dict[Account, _Line] = {}
        #: Whose turn it is, until it has used so much.
        self.current: _Line | None = None
        self.until_s: float = inf


class TurnClock:
    """What the accounts that had tasks in a queue have used: who comes later begins there, and has no claim to what it did not use."""

    def __init__(self) -> None:
        self.used_s: float = 0.0


class TaskQueue:
    """Tasks that wait for the same workers. A task that left is dropped when it comes to the front. ``clock`` is shared by all queues."""

    def __init__(self, clock: TurnClock) -> None:
        self.levels: dict[float, _Level] = {}
        self.order: list[float] = []
        self.clock: TurnClock = clock
        #: Tasks whose ``queue`` this is.
        self.live: int = 0

    def push(self, task: TaskState) -> None:
        """``task.state`` is QUEUED already."""
        task.queue = self
        level = self.levels.get(task.priority[0])
        if level is None:
            level = _Level()
            self.levels[task.priority[0]] = level
            heappush(self.order, task.priority[0])
        line = level.lines.get(task.account)
        if line is None:
            line = self._begin(level, task.account)
        line.push(task)
        self.live += 1

    def _begin(self, level: _Level, account: Account) -> _Line:
        """``account`` had no task there: it is no worse off than the others, and has not saved anything up."""
        least = inf
        for other in level.lines:
            if other.used_s < least:
                least = other.used_s
        if least == inf:
            least = self.clock.used_s
        if account.used_s < least:
            account.used_s = least
        line = _Line(account)
        level.lines[account] = line
        level.current = None
        return line

    def discard(self, task: TaskState) -> None:
        """``task`` is about to leave the state QUEUED."""
        task.queue = None
        self.live -= 1
        if self.live == 0:
            for level in self.levels.values():
                for account in level.lines:
                    self._end(account)
            self.levels.clear()
            self.order.clear()

    def _end(self, account: Account) -> None:
        if account.used_s > self.clock.used_s:
            self.clock.used_s = account.used_s

    def peek(self) -> TaskState | None:
        """The task to run next, left in the queue."""
        while self.order:
            level = self.levels[self.order[0]]
            while level.lines:
                line = level.current
                if line is None or line.account.used_s >= level.until_s:
                    line = _next_line(level)
                task = line.peek(self)
                if task is not None:
                    return task
                del level.lines[line.account]
                level.current = None
                self._end(line.account)
            del self.levels[heappop(self.order)]
        return None

    def tasks(self) -> list[TaskState]:
        """All of them, by priority; for people and tests."""
        heapify(self.order)
        found: list[tuple[float, float, int, int, TaskState]] = []
        for priority in sorted(self.order):
            for line in self.levels[priority].lines.values():
                for generation, run in line.runs.items():
                    for task in run.ordered[run.front :]:
                        found.append((priority, generation, task.priority[2], task.id, task))
                    for rank, id, task in run.late:
                        found.append((priority, generation, rank, id, task))
        found.sort(key=_place)
        return list(dict.fromkeys([row[4] for row in found if row[4].queue is self]))


def _next_line(level: _Level) -> _Line:
    """That of the account which has used least, until it has used a turn more than the one after it."""
    best: _Line | None = None
    second = inf
    for line in level.lines.values():
        used_s = line.account.used_s
        if best is None or used_s < best.account.used_s:
            if best is not None:
                second = best.account.used_s
            best = line
        elif used_s < second:
            second = used_s
    assert best is not None
    level.current = best
    level.until_s = second + TURN_S
    return best


def is_before(one: TaskState, other: TaskState) -> bool:
    """Whether ``one``, the first of its queue, goes before ``other``, the first of another."""
    if one.priority[0] != other.priority[0] or one.account is other.account:
        return one.priority < other.priority
    return one.account.used_s < other.account.used_s


def _place(row: tuple[float, float, int, int, TaskState]) -> tuple[float, float, int, int]:
    return (row[0], row[1], row[2], row[3])
