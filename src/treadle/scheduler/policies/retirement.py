"""Workers that retire hand their values to others. Pure: see ``steps``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from treadle.scheduler.policies.steps import MOST_LOOKED_AT, MOST_UNDER_WAY, NO_PROGRESS_S, LocalOrder, Recipients, can_take, is_here
from treadle.scheduler.transitions.records import MEMORY, TaskState, WorkerState
from treadle.scheduler.transitions.state import ClusterState

#: Passes that are made once more because a copy was lost somewhere: in a busy cluster that happens all the time.
MOST_CONFIRMATIONS: Final = 3


class _Leaving:
    """One of the workers, and how far the look at its values is."""

    def __init__(self, worker: WorkerState) -> None:
        self.worker = worker
        #: Its values that are still to be looked at in this pass, in reverse order.
        self.left: list[TaskState] = []
        #: When the pass began: the count of changes, and how many values there were, and the last of them.
        self.began: tuple[int, int, TaskState | None] | None = None
        #: Nothing was found in this pass that only workers that leave have.
        self.clean = False

    def mark(self, changes: int) -> tuple[int, int, TaskState | None]:
        """Differs from the one before if there may be values that were not looked at: new ones come last."""
        values = self.worker.has_what
        return changes, len(values), next(reversed(values), None)


class Retirement:
    """Until ``workers`` have nothing that would be lost, or ``kept`` says why they stay. They take no tasks already (``Retire``).

    After ``timeout_s`` they need not finish what they execute.
    """

    def __init__(self, state: ClusterState, workers: Collection[WorkerState], timeout_s: float | None, now: float) -> None:
        self.done = False
        #: Those that cannot be emptied, and why.
        self.kept: dict[WorkerState, str] = {}
        self._state = state
        self._leaving = {worker: _Leaving(worker) for worker in workers}
        self._timeout_s = timeout_s
        self._started = self._moved_at = now
        #: Copies that were ordered here and have not come.
        self._under_way: dict[TaskState, None] = {}
        #: Grows when something has happened that may make another pass necessary.
        self._changes = 0
        self._departures = state.departures
        self._lost = state.replicas_lost
        self._confirmations = MOST_CONFIRMATIONS
        self._recipients: Recipients | None = None

    def step(self, now: float) -> list[LocalOrder]:
        for worker in [worker for worker in self._leaving if not is_here(self._state, worker)]:
            del self._leaving[worker]
        self._look_at_copies(now)
        looked = 0
        for entry in list(self._leaving.values()):
            looked = self._look(entry, looked)
        orders: list[LocalOrder] = []
        if self._recipients is not None:
            orders = self._recipients.orders()
            if not any(entry.left for entry in self._leaving.values()):
                # Others may have come and their loads have changed when the next pass begins.
                self._recipients = None
        overdue = self._timeout_s is not None and now - self._started > self._timeout_s
        self.done = all(self._is_done(entry, overdue) for entry in self._leaving.values())
        if self.done and self._state.replicas_lost != self._lost and self._confirmations:
            # One of the copies may be gone again.
            self._lost = self._state.replicas_lost
            self._confirmations -= 1
            self._changes += 1
            self.done = False
        if not self.done:
            if orders or looked or (not overdue and any(worker.processing for worker in self._leaving)):
                self._moved_at = now
            elif now - self._moved_at > NO_PROGRESS_S:
                for entry in [entry for entry in self._leaving.values() if not self._is_stripped(entry)]:
                    self._keep(entry.worker, "its values could not be copied")
        return orders

    def _keep(self, worker: WorkerState, why: str) -> None:
        """It stays: what it has is safe."""
        self.kept[worker] = why
        del self._leaving[worker]
        self._changes += 1

    def _look_at_copies(self, now: float) -> None:
        state = self._state
        if state.departures != self._departures:
            # Copies that were made may have gone.
            self._departures = state.departures
            self._changes += 1
        came = [task for task in self._under_way if task not in state.replicating]
        if came:
            self._changes += 1
            self._moved_at = now
            for task in came:
                del self._under_way[task]

    def _look(self, entry: _Leaving, looked: int) -> int:
        """Order copies of some of its values, as far as ``looked`` in this step allows; returns how many were looked at in all."""
        if not entry.left:
            mark = entry.mark(self._changes)
            if entry.began == mark and (entry.clean or self._under_way):
                return looked
            entry.began, entry.clean = mark, True
            entry.left = list(reversed(entry.worker.has_what))
        while entry.left and looked < MOST_LOOKED_AT and len(self._under_way) < MOST_UNDER_WAY:
            looked += 1
            task = entry.left.pop()
            if task.state != MEMORY or entry.worker not in task.who_has or self._is_elsewhere(task):
                continue
            entry.clean = False
            if task in self._state.replicating:
                self._under_way[task] = None
                continue
            if task.actor:
                self._keep(entry.worker, f"it has the actor {task.key!r}, which cannot move")
                return looked
            if self._give(task) is None:
                self._keep(entry.worker, f"no other worker can take {task.key!r}")
                return looked
            self._under_way[task] = None
        return looked

    def _give(self, task: TaskState) -> WorkerState | None:
        state = self._state
        if self._recipients is None:
            workers = [*state.running, *state.reserved]
            self._recipients = Recipients([worker for worker in workers if can_take(state, worker) and worker not in self._leaving])
        return self._recipients.give(state, task, self._leaving)

    def _is_elsewhere(self, task: TaskState) -> bool:
        return any(holder not in self._leaving for holder in task.who_has)

    def _is_stripped(self, entry: _Leaving) -> bool:
        """Whether others have its values, whatever it still executes."""
        return entry.clean and not entry.left and entry.began == entry.mark(self._changes)

    def _is_done(self, entry: _Leaving, overdue: bool) -> bool:
        return self._is_stripped(entry) and (overdue or not entry.worker.processing)
