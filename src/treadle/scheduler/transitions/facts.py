"""What of a turn must outlive the scheduler, in order. Written down by the rules only where there is a journal."""

from __future__ import annotations

from typing import Any

from treadle.messages.journal import CopiesFact, ErredFact, LostFact, MemoryFact, RetriedFact, UnwantedFact, WorkerFact
from treadle.scheduler.transitions.records import ClientState, TaskState, WorkerState


def worker_fact(worker: WorkerState) -> WorkerFact:
    """All that another scheduler is to know of it before it comes back."""
    return WorkerFact(
        worker.number,
        worker.id,
        worker.address,
        worker.name,
        worker.host,
        worker.nthreads,
        worker.memory_limit,
        worker.resources,
        worker.pid,
        worker.local_directory,
        worker.versions,
        worker.nanny,
        worker.former,
    )


class Facts:
    """The durable facts since they were last taken: messages of ``messages.journal``, and the records of frames as the shell gave them."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        #: (number of a worker, id): values that it is to drop when all facts so far are on disk.
        self.late_drops: list[tuple[int, int]] = []
        #: The last item, as long as it is a MemoryFact of that worker.
        self._worker: int = 0
        self._ids: list[int] = []
        self._nbytes: list[int] = []
        self._types: list[str] = []

    def add(self, fact: Any) -> None:
        self.items.append(fact)
        self._worker = 0

    def in_memory(self, task: TaskState, worker: WorkerState) -> None:
        if worker.number != self._worker:
            self._ids = []
            self._nbytes = []
            self._types = []
            self.items.append(MemoryFact(worker.number, self._ids, self._nbytes, self._types))
            self._worker = worker.number
        self._ids.append(task.id)
        self._nbytes.append(task.nbytes)
        self._types.append(task.type_name)

    def worker_joined(self, worker: WorkerState) -> None:
        self.add(worker_fact(worker))

    def copied(self, task: TaskState, worker: WorkerState) -> None:
        self.add(CopiesFact(worker.number, [task.id]))

    def lost(self, task: TaskState) -> None:
        self.add(LostFact(task.id))

    def unwanted(self, client: ClientState, id: int) -> None:
        self.add(UnwantedFact(client.number, [id]))

    def retried(self, task: TaskState) -> None:
        self.add(RetriedFact(task.id, task.retries))

    def erred(self, task: TaskState) -> None:
        error = task.error
        assert error is not None
        self.add(ErredFact(task.id, error))

    def drop_later(self, id: int, worker: WorkerState) -> None:
        self.late_drops.append((worker.number, id))

    def take_late_drops(self) -> list[tuple[int, int]]:
        drops = self.late_drops
        if drops:
            self.late_drops = []
        return drops

    def take(self) -> list[Any]:
        items = self.items
        self.items = []
        self._worker = 0
        return items
