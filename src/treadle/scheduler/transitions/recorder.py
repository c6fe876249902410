"""What of a turn must outlive the scheduler, in order. Written down by the rules only where there is a journal."""

from __future__ import annotations

from treadle.messages.journal import ErredRecord, LostRecord, MemoryRecord, ReplicasRecord, RetriedRecord, UnwantedRecord, WorkerRecord
from treadle.scheduler.transitions.records import ClientState, TaskState, WorkerState


def worker_record(worker: WorkerState) -> WorkerRecord:
    """All that another scheduler is to know of it before it comes back."""
    return WorkerRecord(worker.number, worker.identity, worker.former)


class Recorder:
    """The durable records since they were last taken: ``messages.journal``, and frames of clients as the shell gave them."""

    def __init__(self) -> None:
        self.items: list[object] = []
        #: (number of a worker, id): values that it is to drop when all records so far are on disk.
        self.late_drops: list[tuple[int, int]] = []
        #: The last item, as long as it is a MemoryRecord of that worker.
        self._worker: int = 0
        self._ids: list[int] = []
        self._nbytes: list[int] = []
        self._types: list[str] = []

    def add(self, record: object) -> None:
        self.items.append(record)
        self._worker = 0

    def in_memory(self, task: TaskState, worker: WorkerState) -> None:
        if worker.number != self._worker:
            self._ids = []
            self._nbytes = []
            self._types = []
            self.items.append(MemoryRecord(worker.number, self._ids, self._nbytes, self._types))
            self._worker = worker.number
        self._ids.append(task.id)
        self._nbytes.append(task.nbytes)
        self._types.append(task.type_name)

    def worker_joined(self, worker: WorkerState) -> None:
        self.add(worker_record(worker))

    def copied(self, task: TaskState, worker: WorkerState) -> None:
        self.add(ReplicasRecord(worker.number, [task.id]))

    def lost(self, task: TaskState) -> None:
        self.add(LostRecord(task.id))

    def unwanted(self, client: ClientState, id: int) -> None:
        self.add(UnwantedRecord(client.number, [id]))

    def retried(self, task: TaskState) -> None:
        self.add(RetriedRecord(task.id, task.retries))

    def erred(self, task: TaskState) -> None:
        error = task.error
        assert error is not None
        self.add(ErredRecord(task.id, error))

    def drop_later(self, id: int, worker: WorkerState) -> None:
        self.late_drops.append((worker.number, id))

    def take_late_drops(self) -> list[tuple[int, int]]:
        drops = self.late_drops
        if drops:
            self.late_drops = []
        return drops

    def take(self) -> list[object]:
        items = self.items
        self.items = []
        self._worker = 0
        return items
