"""The whole state of a core as records, from which another one can be made. Pure; linear in the state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from treadle.messages.journal import (
    FailedRecord,
    FunctionsRecord,
    HeldRecord,
    KnownClient,
    NamesRecord,
    PublishedRecord,
    StartRecord,
    StateRecord,
    TasksRecord,
    WantsRecord,
)
from treadle.scheduler.transitions.recorder import worker_record
from treadle.scheduler.transitions.records import ERRED, RELEASED, STRANGER, ClientState, TaskState, is_needed
from treadle.scheduler.transitions.state import ClusterState

_CHUNK: Final = 2000


def snapshot(state: ClusterState, highest_number: int) -> Iterator[tuple[Any, list[Any]]]:
    """(record, buffers beside it). ``highest_number``: of all parties there ever were. The state must not change meanwhile."""
    yield StateRecord(state.now, state.generation, highest_number), []
    for worker in state.workers.values():
        yield worker_record(worker), []
    owners: dict[int, int] = {}
    for client in state.clients.values():
        yield (
            KnownClient(
                client.number,
                client.id,
                client.versions,
                client.received,
                client.submission,
                client.generation,
                client.submitted_at,
                client.origin == STRANGER,
            ),
            [],
        )
        for number in client.functions:
            owners[number] = client.number
    for function in state.functions.values():
        yield FunctionsRecord([function.id], [function.name], [function.body], [owners.get(function.id, 0)]), []
    tasks = _in_order(state)
    for start in range(0, len(tasks), _CHUNK):
        yield _tasks_record(tasks[start : start + _CHUNK])
    if state.renamed:
        yield NamesRecord([(id, task.id) for id, task in state.renamed.items()]), []
    for client in [*state.clients.values(), state.fire_and_forget]:
        yield from ((record, []) for record in _wants(client))
    for dataset in state.published.values():
        yield PublishedRecord(dataset.name, dataset.body, [task.id for task in dataset.wants.wants_what]), []
    for worker in state.workers.values():
        held = list(worker.has_what)
        for start in range(0, len(held), _CHUNK):
            some = held[start : start + _CHUNK]
            ids, nbytes, types = [task.id for task in some], [task.nbytes for task in some], [task.type_name for task in some]
            yield HeldRecord(worker.number, ids, nbytes, types), []
    yield from ((record, []) for record in _failures(tasks))
    yield StartRecord([task.id for task in tasks if task.state == RELEASED and is_needed(task)]), []


def _in_order(state: ClusterState) -> list[TaskState]:
    """All tasks, dependencies before dependents."""
    done: dict[TaskState, None] = {}
    for first in state.tasks.values():
        stack = [first]
        while stack:
            task = stack[-1]
            if task in done:
                stack.pop()
                continue
            missing = [need for need in task.dependencies if need not in done]
            if missing:
                stack.extend(missing)
            else:
                done[task] = None
                stack.pop()
    return list(done)


def _tasks_record(tasks: list[TaskState]) -> tuple[TasksRecord, list[Any]]:
    group_numbers: dict[str, int] = {}
    buffers: list[Any] = []
    counts: list[tuple[int, int]] = []
    options = []
    for row, task in enumerate(tasks):
        group_numbers.setdefault(task.group.name, len(group_numbers))
        if task.options is not None:
            options.append((row, task.options))
        if task.buffers is not None:
            counts.append((row, len(task.buffers)))
            buffers += task.buffers
    record = TasksRecord(
        [task.id for task in tasks],
        [task.key for task in tasks],
        list(group_numbers),
        [group_numbers[task.group.name] for task in tasks],
        [task.priority for task in tasks],
        [0 if task.function is None else task.function.id for task in tasks],
        [task.payload for task in tasks],
        [[need.id for need in task.dependencies] for task in tasks],
        [task.retries for task in tasks],
        options,
        counts,
        [(row, task.digest) for row, task in enumerate(tasks) if task.digest],
    )
    return record, buffers


def _wants(client: ClientState) -> Iterator[WantsRecord]:
    ids = [task.id for task in client.wants_what]
    for start in range(0, len(ids), _CHUNK):
        yield WantsRecord(client.number, ids[start : start + _CHUNK], [], [])
    aliases = [(id, task.id) for id, task in client.aliases.items()]
    expecting = [(id, expected.task.id, expected.submission, expected.count) for id, expected in client.expecting.items()]
    if aliases or expecting:
        yield WantsRecord(client.number, [], aliases, expecting)


def _failures(tasks: list[TaskState]) -> list[FailedRecord]:
    """Tasks that failed for the same error share one record, and the error."""
    found: dict[tuple[int, int], FailedRecord] = {}
    for task in tasks:
        if task.state == ERRED and task.error is not None:
            blame = task if task.blame is None else task.blame
            found.setdefault((id(task.error), blame.id), FailedRecord([], task.error, blame.id)).ids.append(task.id)
    return list(found.values())
