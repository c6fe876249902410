"""A fresh core takes in what another one wrote down. Workers are known and absent, so nothing is assigned to anybody."""

from __future__ import annotations

from typing import Any

from treadle.messages.journal import (
    ClientGone,
    ErredRecord,
    FailedRecord,
    ForgottenRecord,
    FunctionsRecord,
    HeldRecord,
    KnownClient,
    LostRecord,
    MemoryRecord,
    NamesRecord,
    PublishedRecord,
    ReplicasRecord,
    RetriedRecord,
    StartRecord,
    StateRecord,
    TasksRecord,
    UnwantedRecord,
    WantsRecord,
    WorkerGone,
    WorkerRecord,
)
from treadle.scheduler.transitions import membership
from treadle.scheduler.transitions.graph import add_task, get_group, link
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    AWAY,
    ERRED,
    FIRST_TIME,
    FORGOTTEN,
    MEMORY,
    RELEASED,
    STRANGER,
    WAITING,
    ClientState,
    Expected,
    FunctionState,
    Published,
    TaskState,
    WorkerState,
    is_needed,
)
from treadle.scheduler.transitions.recovery.orphans import await_value
from treadle.scheduler.transitions.rules.common import add_replica, move, remove_replica
from treadle.scheduler.transitions.rules.memory import to_memory
from treadle.scheduler.transitions.state import HOLDING, STEADY, ClusterState
from treadle.scheduler.transitions.wants import alias, unwant, want_quietly
from treadle.utils.buffers import buffers_by_row
from treadle.utils.keys import key_from_wire


def restore(state: ClusterState, record: object, frames: list[Any], out: Outbox) -> bool:
    """Take in one record; ``frames`` are the buffers beside it. False: it is none, but an event, as frames of clients have them."""
    if type(record) is MemoryRecord:
        _memory(state, record, out)
    elif type(record) is ErredRecord:
        _erred(state, record)
    elif type(record) is RetriedRecord:
        _retried(state, record)
    elif type(record) is WorkerRecord:
        _worker(state, record)
    elif type(record) is WorkerGone:
        worker = state.by_number.get(record.number)
        if worker is not None:
            membership.remove_worker(state, worker, False, out)
    elif type(record) is ClientGone:
        client = state.clients_by_number.get(record.number)
        if client is not None:
            membership.remove_client(state, client, out)
    elif type(record) is LostRecord:
        _lost(state, record)
    elif type(record) is ReplicasRecord:
        _replicas(state, record)
    elif type(record) is UnwantedRecord:
        _unwanted(state, record)
    elif type(record) is ForgottenRecord:
        membership.clear(state, record.reason, out)
    elif type(record) is TasksRecord:
        _tasks(state, record, frames)
    elif type(record) is WantsRecord:
        _wants(state, record, out)
    elif type(record) is HeldRecord:
        _held(state, record, out)
    elif type(record) is FailedRecord:
        _failed(state, record, out)
    elif type(record) is StartRecord:
        _start(state, record.idle, out)
    elif type(record) is FunctionsRecord:
        _functions(state, record)
    elif type(record) is KnownClient:
        _client(state, record)
    elif type(record) is NamesRecord:
        for id, present in record.former:
            state.rename(id, state.by_id[present])
    elif type(record) is PublishedRecord:
        dataset = Published(key_from_wire(record.name), record.body)
        for id in record.ids:
            want_quietly(dataset.wants, state.by_id[id])
        state.published[dataset.name] = dataset
    elif type(record) is StateRecord:
        state.generation = record.generation
    else:
        return False
    return True


def end_of_restoring(state: ClusterState, first_attempt: int) -> None:
    """All records are told. Everybody is away from now on, and nothing is assigned until the workers are back, or their time is over."""
    now = state.now
    grace = state.limits.recovery_grace_s
    state.started_at = now
    state.is_successor = len(state.clients) > 0 or len(state.workers) > 0
    if state.is_successor:
        # For what clients submit from here on, too: the scheduler before may have given that to a worker, and not written of it.
        state.first_attempt = max(state.first_attempt, first_attempt)
    for task in state.tasks.values():
        task.attempt = first_attempt
        if task.state == MEMORY and not task.has_recipe:
            # Whether it has copies enough is looked at when workers are back.
            state.under_replicated[task] = None
    for task in state.unrunnable:
        state.unrunnable[task] = now
    state.placeable.touch_all(now)
    for task in state.awaited:
        state.awaited[task] = now + grace
    for client in state.clients.values():
        client.phase = AWAY
        # In any case it has the time that a worker has.
        client.disconnected_at = now + max(0.0, grace - state.limits.client_grace_s)
        client.durable = client.received
        client.acknowledged = client.received
        client.registration = None
        state.absent_clients[client] = None
    for worker in state.workers.values():
        worker.disconnected_at = now + max(0.0, grace - state.limits.worker_grace_s)
    state.phase = HOLDING if state.absent_workers else STEADY
    state.hold_until = now + grace


def is_hold_over(state: ClusterState) -> bool:
    return not state.absent_workers or state.now >= state.hold_until


def end_hold(state: ClusterState) -> None:
    """What nobody came back with is to be run."""
    state.phase = STEADY
    for task in state.unrunnable:
        if task not in state.awaited:
            state.recommend(task, WAITING)
    for worker in state.running:
        state.touch(worker)


def _worker(state: ClusterState, record: WorkerRecord) -> None:
    """It joined the scheduler that is gone: known, and away."""
    worker = WorkerState(record.number, record.identity, record.former)
    worker.connected = False
    membership.index_worker(state, worker)
    state.absent_workers[worker] = None


def _memory(state: ClusterState, record: MemoryRecord, out: Outbox) -> None:
    worker = state.by_number.get(record.worker)
    if worker is None:
        return
    ids: list[int] = record.ids
    for row in range(len(ids)):
        task = state.known(ids[row])
        if task is None or task.state in (FORGOTTEN, ERRED):
            continue
        if task.state == MEMORY:
            # Scattered: the frame that said so has been told.
            add_replica(state, task, worker)
            continue
        state.total_finished += 1
        to_memory(state, task, worker, record.nbytes[row], record.types[row], out)


def _replicas(state: ClusterState, record: ReplicasRecord) -> None:
    worker = state.by_number.get(record.worker)
    for id in record.ids:
        task = state.known(id)
        if worker is not None and task is not None and task.state == MEMORY:
            add_replica(state, task, worker)


def _lost(state: ClusterState, record: LostRecord) -> None:
    task = state.known(record.id)
    if task is not None and task.state == MEMORY:
        for worker in list(task.who_has):
            remove_replica(state, task, worker)
        state.recommend(task, RELEASED)


def _unwanted(state: ClusterState, record: UnwantedRecord) -> None:
    client = state.clients_by_number.get(record.number) if record.number else state.fire_and_forget
    for id in record.ids:
        task = state.known(id)
        if client is not None and task is not None:
            unwant(state, client, task)


def _erred(state: ClusterState, record: ErredRecord) -> None:
    task = state.known(record.id)
    if task is not None and task.state not in (ERRED, FORGOTTEN):
        task.error = record.error
        task.blame = task
        state.recommend(task, ERRED)


def _retried(state: ClusterState, record: RetriedRecord) -> None:
    task = state.known(record.id)
    if task is not None:
        task.retries = record.left


def _client(state: ClusterState, record: KnownClient) -> None:
    client = ClientState(record.number, record.id, record.versions)
    client.account = membership.new_account(state, record.id)
    client.submission = record.submission
    client.generation = record.generation
    client.submitted_at = record.submitted_at
    client.received = record.received
    client.durable = record.received
    client.origin = STRANGER if record.stranger else FIRST_TIME
    client.last_seen = state.now
    state.clients[client.id] = client
    state.clients_by_number[client.number] = client


def _functions(state: ClusterState, record: FunctionsRecord) -> None:
    for id, name, body, number in zip(record.ids, record.names, record.bodies, record.clients, strict=True):
        function = FunctionState(id, name, body)
        client = state.clients_by_number.get(number)
        function.held = client is not None
        if client is not None:
            client.functions[id] = function
        state.functions[id] = function


def _tasks(state: ClusterState, record: TasksRecord, frames: list[Any]) -> None:
    fresh: list[TaskState] = []
    for row, id in enumerate(record.ids):
        key = key_from_wire(record.keys[row])
        group = get_group(state, record.group_names[record.groups[row]], key)
        task = TaskState(id, key, group, record.priorities[row])
        add_task(state, task)
        client = state.clients_by_number.get(id >> 32)
        if client is not None:
            task.account = client.account
        function = state.functions[record.functions[row]] if record.functions[row] else None
        if function is not None:
            task.function = function
            function.ntasks += 1
        task.payload = record.payloads[row]
        task.retries = record.retries[row]
        needs = [state.by_id[need] for need in record.dependencies[row]]
        if needs:
            link(task, needs)
        fresh.append(task)
    for row, digest in record.digests:
        fresh[row].digest = digest
    for row, options in record.row_options:
        fresh[row].options = options
    for row, buffers in buffers_by_row(record.buffers, frames).items():
        fresh[row].buffers = buffers


def _wants(state: ClusterState, record: WantsRecord, out: Outbox) -> None:
    client = state.clients_by_number[record.number] if record.number else state.fire_and_forget
    for id in record.ids:
        want_quietly(client, state.by_id[id])
    for id, canonical in record.aliases:
        alias(client, id, state.by_id[canonical], out)
    for id, canonical, submission, count in record.expecting:
        task = state.by_id[canonical]
        task.later_dependents += count
        client.expecting[id] = Expected(task, submission, count)


def _held(state: ClusterState, record: HeldRecord, out: Outbox) -> None:
    worker = state.by_number[record.worker]
    for row, id in enumerate(record.ids):
        task = state.by_id[id]
        if task.state == RELEASED:
            move(state, task, MEMORY, out)
            task.nbytes = record.nbytes[row]
            task.type_name = record.types[row]
            state.total_finished += 1
        add_replica(state, task, worker)
        if task.actor:
            worker.actors[task] = None


def _failed(state: ClusterState, record: FailedRecord, out: Outbox) -> None:
    for id in record.ids:
        task = state.by_id[id]
        move(state, task, ERRED, out)
        task.error = record.error
        task.blame = state.by_id.get(record.blame, task)
        state.total_erred += 1


def _start(state: ClusterState, idle: list[int], out: Outbox) -> None:
    """What is wanted and neither in memory nor erred waits, and with it what it needs."""
    resting = set(idle)
    for task in state.tasks.values():
        if task.state == RELEASED and is_needed(task) and task.id not in resting:
            if task.has_recipe:
                state.recommend(task, WAITING)
            else:
                # A worker was to bring its value, and may yet.
                await_value(state, task, out)
