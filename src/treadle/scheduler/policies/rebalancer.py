"""Values go onto more workers, or from full workers to empty ones. Pure: see ``steps``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heapreplace

from treadle.messages.scheduler_local import DropReplicas, ReplicateKeys
from treadle.scheduler.policies.steps import MOST_LOOKED_AT, MOST_UNDER_WAY, NO_PROGRESS_S, LocalOrder, Recipients, can_take, is_here
from treadle.scheduler.transitions.records import MEMORY, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: (task, from, to).
Shift = tuple[TaskState, WorkerState, WorkerState]


class Replication:
    """Until ``count`` of ``workers`` have each of ``tasks``, or all of them that are here. TimeoutError: copies do not come.

    A holder serves at most ``branching_factor`` at a time.
    """

    def __init__(
        self, state: ClusterState, tasks: Iterable[TaskState], count: int, workers: list[WorkerState], branching_factor: int, now: float
    ) -> None:
        self.done = False
        self._state = state
        #: (task, how many had it when it was looked at last).
        self._left: deque[tuple[TaskState, int]] = deque((task, -1) for task in tasks)
        self._count = count
        self._workers = dict.fromkeys(workers)
        self._branching_factor = branching_factor
        self._moved_at = now
        self._recipients = Recipients(workers)

    def step(self, now: float) -> list[LocalOrder]:
        for worker in [worker for worker in self._workers if not is_here(self._state, worker)]:
            del self._workers[worker]
        for _ in range(min(len(self._left), MOST_LOOKED_AT)):
            task, had = self._left.popleft()
            if task.state != MEMORY or task.actor:
                continue
            if len(task.who_has) != had:
                self._moved_at = now
            if not self._is_everywhere(task):
                self._left.append((task, len(task.who_has)))
        self.done = not self._left
        if not self.done and now - self._moved_at > NO_PROGRESS_S:
            raise TimeoutError(f"copies of {len(self._left)} keys did not come within {NO_PROGRESS_S:g} s")
        return self._recipients.orders()

    def _is_everywhere(self, task: TaskState) -> bool:
        """Whether it has all its copies; else some more are ordered."""
        coming = self._state.replicating.get(task, [])
        have = [worker for worker in dict.fromkeys([*task.who_has, *coming]) if worker in self._workers]
        wanted = min(self._count, len(self._workers)) - len(have)
        if wanted <= 0:
            return not coming
        but = [*task.who_has, *coming]
        for _ in range(min(wanted, self._branching_factor * len(task.who_has) - len(coming))):
            recipient = self._recipients.give(self._state, task, but)
            if recipient is None:
                break
            but.append(recipient)
        return False


class Rebalancing:
    """Move values so that ``workers`` have about the same number of bytes. KeyError: some could not be moved."""

    def __init__(self, state: ClusterState, tasks: Iterable[TaskState], workers: list[WorkerState], now: float) -> None:
        self.done = False
        self._state = state
        self._left = plan_rebalance(tasks, workers)
        self._left.reverse()
        self._under_way: list[Shift] = []
        self._moved_at = now

    def step(self, now: float) -> list[LocalOrder]:
        waiting: list[Shift] = []
        drops: dict[int, list[int]] = {}
        for shift in self._under_way:
            task, sender, recipient = shift
            # What nobody wants any more need not move.
            if task.state != MEMORY:
                continue
            if recipient in task.who_has:
                drops.setdefault(sender.number, []).append(task.id)
            elif is_here(self._state, recipient):
                waiting.append(shift)
        if len(waiting) != len(self._under_way):
            self._moved_at = now
        self._under_way = waiting
        moves: dict[int, list[int]] = {}
        while self._left and len(self._under_way) < MOST_UNDER_WAY:
            task, sender, recipient = self._left.pop()
            self._moved_at = now
            if task.state == MEMORY and sender in task.who_has and is_here(self._state, recipient):
                moves.setdefault(recipient.number, []).append(task.id)
                self._under_way.append((task, sender, recipient))
        self.done = not self._under_way
        if not self.done and now - self._moved_at > NO_PROGRESS_S:
            raise KeyError(f"could not be moved: {[task.key for task, _, _ in self._under_way]}")
        orders: list[LocalOrder] = [DropReplicas(number, ids) for number, ids in drops.items()]
        return orders + [ReplicateKeys(number, ids) for number, ids in moves.items()]


def takers(state: ClusterState) -> list[WorkerState]:
    """Workers that values may go to."""
    return [worker for worker in [*state.running, *state.reserved] if can_take(state, worker)]


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
    emptiest = [(load[worker], at, worker) for at, worker in enumerate(workers)]
    heapify(emptiest)
    shifts: list[Shift] = []
    for sender in sorted(workers, key=lambda worker: -load[worker]):
        # Large ones first: few moves do most.
        for task in sorted(movable[sender], key=lambda task: -task.nbytes):
            while emptiest[0][0] != load[emptiest[0][2]]:
                # It has given something away since.
                _, at, worker = emptiest[0]
                heapreplace(emptiest, (load[worker], at, worker))
            _, at, recipient = emptiest[0]
            # Only what brings both nearer to the mean.
            if load[sender] - task.nbytes < mean - task.nbytes / 2 or load[recipient] + task.nbytes > mean + task.nbytes / 2:
                continue
            if recipient is sender:
                break
            load[sender] -= task.nbytes
            load[recipient] += task.nbytes
            heapreplace(emptiest, (load[recipient], at, recipient))
            shifts.append((task, sender, recipient))
    return shifts
