"""A fresh core takes in what another one wrote down. Workers are known and absent, so nothing is assigned to anybody."""

from __future__ import annotations

from typing import Any

from treadle.messages.journal import (
    ClientGone,
    CopiesFact,
    ErredFact,
    FailedFact,
    ForgottenFact,
    FunctionsFact,
    HeldFact,
    KnownClient,
    LostFact,
    MemoryFact,
    NamesFact,
    PublishedFact,
    RetriedFact,
    StartFact,
    StateFact,
    TasksFact,
    UnwantedFact,
    WantsFact,
    WorkerFact,
    WorkerGone,
)
from treadle.scheduler.transitions import membership
from treadle.scheduler.transitions.desires import alias, unwant, want_quietly
from treadle.scheduler.transitions.graph import add_task, get_group, link
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    ERRED,
    FORGOTTEN,
    MEMORY,
    RELEASED,
    WAITING,
    ClientState,
    Expected,
    FunctionState,
    Published,
    TaskState,
    WorkerState,
    is_needed,
)
from treadle.scheduler.transitions.rules.common import add_copy, move, remove_copy
from treadle.scheduler.transitions.rules.memory import to_memory
from treadle.scheduler.transitions.rules.orphans import await_value
from treadle.scheduler.transitions.state import ClusterState
from treadle.utils.keys import key_from_wire


def restore(state: ClusterState, fact: Any, frames: list[Any], out: Outbox) -> bool:
    """Take in one fact; ``frames`` are the buffers beside it. False: it is none, but an event, as frames of clients have them."""
    kind = type(fact)
    if kind is MemoryFact:
        _memory(state, fact, out)
    elif kind is ErredFact:
        _erred(state, fact)
    elif kind is RetriedFact:
        _retried(state, fact)
    elif kind is WorkerFact:
        _worker(state, fact)
    elif kind is WorkerGone:
        worker = state.by_number.get(fact.number)
        if worker is not None:
            membership.remove_worker(state, worker, False, out)
    elif kind is ClientGone:
        client = state.clients_by_number.get(fact.number)
        if client is not None:
            membership.remove_client(state, client, out)
    elif kind is LostFact:
        _lost(state, fact)
    elif kind is CopiesFact:
        _copies(state, fact)
    elif kind is UnwantedFact:
        _unwanted(state, fact)
    elif kind is ForgottenFact:
        membership.clear(state, fact.reason, out)
    elif kind is TasksFact:
        _tasks(state, fact, frames)
    elif kind is WantsFact:
        _wants(state, fact, out)
    elif kind is HeldFact:
        _held(state, fact, out)
    elif kind is FailedFact:
        _failed(state, fact, out)
    elif kind is StartFact:
        _start(state, fact.idle, out)
    elif kind is FunctionsFact:
        _functions(state, fact)
    elif kind is KnownClient:
        _client(state, fact)
    elif kind is NamesFact:
        for id, present in fact.former:
            state.renamed[id] = state.by_id[present]
    elif kind is PublishedFact:
        dataset = Published(key_from_wire(fact.name), fact.body)
        for id in fact.ids:
            want_quietly(dataset.wants, state.by_id[id])
        state.published[dataset.name] = dataset
    elif kind is StateFact:
        state.generation = fact.generation
    else:
        return False
    return True


def end_of_restoring(state: ClusterState, first_attempt: int) -> None:
    """All facts are told. Everybody is away from now on, and nothing is assigned until the workers are back, or their time is over."""
    now = state.now
    grace = state.limits.recovery_grace_s
    state.restoring = False
    state.started_at = now
    state.is_successor = len(state.clients) > 0 or len(state.workers) > 0
    if state.is_successor:
        # For what clients submit from here on, too: the scheduler before may have given that to a worker, and not written of it.
        state.first_attempt = max(state.first_attempt, first_attempt)
    for task in state.tasks.values():
        task.attempt = first_attempt
        if task.state == MEMORY and not task.has_recipe:
            # Whether it has copies enough is looked at when workers are back.
            state.scarce[task] = None
    for task in state.unrunnable:
        state.unrunnable[task] = now
    for task in state.awaited:
        state.awaited[task] = now + grace
    for client in state.clients.values():
        client.connected = False
        # In any case it has the time that a worker has.
        client.disconnected_at = now + max(0.0, grace - state.limits.client_grace_s)
        client.durable = client.received
        client.acknowledged = client.received
        client.returning = None
        state.absent_clients[client] = None
    for worker in state.workers.values():
        worker.disconnected_at = now + max(0.0, grace - state.limits.worker_grace_s)
    state.holding = len(state.absent_workers) > 0
    state.hold_until = now + grace


def is_hold_over(state: ClusterState) -> bool:
    return not state.absent_workers or state.now >= state.hold_until


def end_hold(state: ClusterState) -> None:
    """What nobody came back with is to be run."""
    state.holding = False
    for task in state.unrunnable:
        if task not in state.awaited:
            state.recommend(task, WAITING)
    for worker in state.running:
        state.touch(worker)


def _worker(state: ClusterState, fact: Any) -> None:
    """It joined the scheduler that is gone: known, and away."""
    worker = WorkerState(
        fact.number,
        fact.id,
        fact.address,
        fact.name,
        fact.host,
        fact.nthreads,
        fact.memory_limit,
        fact.resources,
        fact.pid,
        fact.nanny,
        fact.local_directory,
        fact.versions,
        fact.former,
    )
    worker.connected = False
    membership.index_worker(state, worker)
    state.absent_workers[worker] = None


def _memory(state: ClusterState, fact: Any, out: Outbox) -> None:
    worker = state.by_number.get(fact.worker)
    if worker is None:
        return
    ids: list[int] = fact.ids
    for row in range(len(ids)):
        task = state.known(ids[row])
        if task is None or task.state in (FORGOTTEN, ERRED):
            continue
        if task.state == MEMORY:
            # Scattered: the frame that said so has been told.
            add_copy(state, task, worker)
            continue
        state.total_finished += 1
        to_memory(state, task, worker, fact.nbytes[row], fact.types[row], out)


def _copies(state: ClusterState, fact: Any) -> None:
    worker = state.by_number.get(fact.worker)
    for id in fact.ids:
        task = state.known(id)
        if worker is not None and task is not None and task.state == MEMORY:
            add_copy(state, task, worker)


def _lost(state: ClusterState, fact: Any) -> None:
    task = state.known(fact.id)
    if task is not None and task.state == MEMORY:
        for worker in list(task.who_has):
            remove_copy(state, task, worker)
        state.recommend(task, RELEASED)


def _unwanted(state: ClusterState, fact: Any) -> None:
    client = state.clients_by_number.get(fact.number) if fact.number else state.fire_and_forget
    for id in fact.ids:
        task = state.known(id)
        if client is not None and task is not None:
            unwant(state, client, task)


def _erred(state: ClusterState, fact: Any) -> None:
    task = state.known(fact.id)
    if task is not None and task.state not in (ERRED, FORGOTTEN):
        task.error = fact.error
        task.blame = task
        state.recommend(task, ERRED)


def _retried(state: ClusterState, fact: Any) -> None:
    task = state.known(fact.id)
    if task is not None:
        task.retries = fact.left


def _client(state: ClusterState, fact: Any) -> None:
    client = ClientState(fact.number, fact.id, fact.versions)
    client.submission = fact.submission
    client.generation = fact.generation
    client.submitted_at = fact.submitted_at
    client.received = fact.received
    client.durable = fact.received
    client.stranger = fact.stranger
    client.last_seen = state.now
    state.clients[client.id] = client
    state.clients_by_number[client.number] = client


def _functions(state: ClusterState, fact: Any) -> None:
    for id, name, body, number in zip(fact.ids, fact.names, fact.bodies, fact.clients, strict=True):
        function = FunctionState(id, name, body)
        client = state.clients_by_number.get(number)
        function.held = client is not None
        if client is not None:
            client.functions[id] = function
        state.functions[id] = function


def _tasks(state: ClusterState, fact: Any, frames: list[Any]) -> None:
    fresh: list[TaskState] = []
    for row, id in enumerate(fact.ids):
        key = key_from_wire(fact.keys[row])
        group = get_group(state, fact.group_names[fact.groups[row]], key)
        task = TaskState(id, key, group, fact.priorities[row])
        add_task(state, task)
        function = state.functions[fact.functions[row]] if fact.functions[row] else None
        if function is not None:
            task.function = function
            function.ntasks += 1
        task.payload = fact.payloads[row]
        task.retries = fact.retries[row]
        needs = [state.by_id[need] for need in fact.dependencies[row]]
        if needs:
            link(task, needs)
        fresh.append(task)
    for row, options in fact.row_options:
        fresh[row].options = options
    at = 0
    for row, count in fact.buffers:
        fresh[row].buffers = frames[at : at + count]
        at += count


def _wants(state: ClusterState, fact: Any, out: Outbox) -> None:
    client = state.clients_by_number[fact.number] if fact.number else state.fire_and_forget
    for id in fact.ids:
        want_quietly(client, state.by_id[id])
    for id, canonical in fact.aliases:
        alias(client, id, state.by_id[canonical], out)
    for id, canonical, submission, count in fact.expecting:
        task = state.by_id[canonical]
        task.later_dependents += count
        client.expecting[id] = Expected(task, submission, count)


def _held(state: ClusterState, fact: Any, out: Outbox) -> None:
    worker = state.by_number[fact.worker]
    for row, id in enumerate(fact.ids):
        task = state.by_id[id]
        if task.state == RELEASED:
            move(state, task, MEMORY, out)
            task.nbytes = fact.nbytes[row]
            task.type_name = fact.types[row]
            state.total_finished += 1
        add_copy(state, task, worker)
        if task.actor:
            worker.actors[task] = None


def _failed(state: ClusterState, fact: Any, out: Outbox) -> None:
    for id in fact.ids:
        task = state.by_id[id]
        move(state, task, ERRED, out)
        task.error = fact.error
        task.blame = state.by_id.get(fact.blame, task)
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
