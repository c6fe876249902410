"""Long operations on values, one short step at a time: each looks at a bounded number of values, and others have the loop between. Pure.

Whoever drives one tells the core what a step says, and takes the next step a moment later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Protocol

from treadle.messages.scheduler_local import DropReplicas, ReplicateKeys, Retire
from treadle.scheduler.transitions.records import TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: Between two steps, seconds.
LOOK_S: Final = 0.02
#: Copies that do not come for so long are given up.
NO_PROGRESS_S: Final = 30.0
#: Values that are looked at in one step, and copies that one operation has under way.
MOST_LOOKED_AT: Final = 2000
MOST_UNDER_WAY: Final = 2000

#: What the core is to be told.
LocalOrder = ReplicateKeys | DropReplicas | Retire


class Operation(Protocol):
    """Something that takes steps until it is done."""

    done: bool

    def step(self, now: float) -> list[LocalOrder]:
        """What the core is to be told now; ``now`` is in seconds and never goes back. Raises TimeoutError, KeyError."""


def is_here(state: ClusterState, worker: WorkerState) -> bool:
    """Whether it was not removed meanwhile."""
    return state.by_number.get(worker.number) is worker


def can_take(state: ClusterState, worker: WorkerState) -> bool:
    """Whether values may go to it: it runs, or is kept for a suspect."""
    return worker.connected and (worker in state.running or worker in state.reserved)


class Recipients:
    """Workers by the bytes that they have, or will have: always the emptiest next. ``give`` counts; ``orders`` says what was given."""

    def __init__(self, workers: Iterable[WorkerState]) -> None:
        self._heap = [(worker.nbytes + sum(task.nbytes for task in worker.receiving), worker.number, worker) for worker in workers]
        heapify(self._heap)
        self._moves: dict[int, list[int]] = {}

    def give(self, state: ClusterState, task: TaskState, but: Collection[WorkerState]) -> WorkerState | None:
        """Who gets a copy of ``task``: somebody who can take it and is not among ``but``, if there is one."""
        heap = self._heap
        aside = []
        found: WorkerState | None = None
        while heap:
            nbytes, number, worker = heap[0]
            if not can_take(state, worker) or not is_here(state, worker):
                heappop(heap)
            elif worker in but:
                aside.append(heappop(heap))
            else:
                heapreplace(heap, (nbytes + task.nbytes, number, worker))
                self._moves.setdefault(number, []).append(task.id)
                found = worker
                break
        for entry in aside:
            heappush(heap, entry)
        return found

    def orders(self) -> list[LocalOrder]:
        """What was given since this was asked last."""
        moves, self._moves = self._moves, {}
        return [ReplicateKeys(number, ids) for number, ids in moves.items()]
