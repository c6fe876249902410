"""Who wants what: clients attach to keys, release, cancel and retry them, and bring data of their own."""

from __future__ import annotations

from typing import Any, Final

from treadle.exceptions import PeerProtocolError
from treadle.messages.client_scheduler import AttachKeys, CancelKeys, KeysScattered, ReattachKeys, SubmitTasks
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    ERRED,
    FIRST_TIME,
    FORGOTTEN,
    HERE,
    MEMORY,
    NO_CLIENTS,
    PROCESSING,
    RECALLING,
    RELEASED,
    WAITING,
    ClientState,
    TaskState,
    WorkerState,
)
from treadle.scheduler.transitions.replicas import order_replicas
from treadle.scheduler.transitions.rules.common import add_replica, confirm_replica, drop_when_written, move
from treadle.scheduler.transitions.rules.memory import to_memory
from treadle.scheduler.transitions.state import ClusterState
from treadle.utils.keys import is_key, key_from_wire

#: For so long the news of a client and the inventory of a worker may pass each other, seconds.
RECENTLY_S: Final = 60.0


def alias(client: ClientState, id: int, task: TaskState, out: Outbox) -> None:
    """The client calls ``task`` also ``id``."""
    if id == task.id:
        return
    before = client.aliases.get(id)
    if before is not task:
        if before is not None:
            # It says once more what was written down in part: the key was forgotten, and submitted anew.
            names = client.alias_ids[before]
            names.remove(id)
            if not names:
                del client.alias_ids[before]
        client.aliases[id] = task
        client.alias_ids.setdefault(task, []).append(id)
    out.aliased(client, [id], [task.id])


def find_task(state: ClusterState, client: ClientState, id: int) -> TaskState | None:
    """The task that the client calls ``id``."""
    task = state.known(id)
    if task is None and client.aliases:
        task = client.aliases.get(id)
    return task


def forget_aliases(client: ClientState, task: TaskState) -> None:
    """Unless the client wants the task, or has dependents of it still to send, it will not name it again."""
    if task not in client.alias_ids or task in client.wants_what:
        return
    kept: list[int] = []
    for id in client.alias_ids.pop(task):
        if id in client.expecting:
            kept.append(id)
        else:
            del client.aliases[id]
    if kept:
        client.alias_ids[task] = kept


def want(state: ClusterState, client: ClientState, task: TaskState, out: Outbox) -> None:
    """The client wants the task, and is told at once where it stands, if there is anything to tell."""
    if task in client.wants_what:
        return
    client.wants_what[task] = None
    add_wish(task, client)
    if task.state == MEMORY:
        if client.number:
            out.to_client(client).in_memory(task, task.who_has[0])
    elif task.state == ERRED:
        if client.number:
            out.erred_for(client, task)
    elif task.state == RELEASED:
        state.recommend(task, WAITING)


def add_wish(task: TaskState, client: ClientState) -> None:
    """``client`` is one more of those who want the task."""
    if not task.who_wants:
        task.who_wants = client.only_it
    elif len(task.who_wants) == 1:
        task.who_wants = [task.who_wants[0], client]
    else:
        task.who_wants.append(client)


def unwant(state: ClusterState, client: ClientState, task: TaskState) -> None:
    """The client no longer wants the task."""
    if task not in client.wants_what:
        return
    del client.wants_what[task]
    forget_aliases(client, task)
    if len(task.who_wants) == 1:
        task.who_wants = NO_CLIENTS
        state.recommend(task, RELEASED)
    else:
        task.who_wants.remove(client)


def attach_keys(state: ClusterState, client: ClientState, message: AttachKeys, out: Outbox) -> None:
    if len(message.ids) != len(message.keys):
        raise PeerProtocolError("AttachKeys: columns of different lengths")
    check_keys(message)
    check_own_ids(state, client, message)
    unknown: list[int] = []
    for id, wire in zip(message.ids, message.keys, strict=True):
        task = state.tasks.get(key_from_wire(wire))
        if task is None:
            unknown.append(id)
        else:
            alias(client, id, task, out)
            want(state, client, task, out)
    out.cancelled(client, unknown, "already forgotten", None)


def release_keys(state: ClusterState, client: ClientState, ids: list[int]) -> None:
    for id in ids:
        task = find_task(state, client, id)
        if task is not None:
            unwant(state, client, task)


def cancel_keys(state: ClusterState, client: ClientState, message: CancelKeys, out: Outbox) -> None:
    """The client gives these up (or everybody does), and with them what depends on them and nobody else wants."""
    reason = message.reason or "unknown"
    lost: dict[ClientState, list[int]] = {}
    seen: dict[TaskState, None] = {}
    stack: list[TaskState] = []
    for id in message.ids:
        task = find_task(state, client, id)
        if task is not None:
            stack.append(task)
    while stack:
        task = stack.pop()
        if task in seen:
            continue
        seen[task] = None
        losers = list(task.who_wants) if message.force else [client]
        for loser in losers:
            if task in loser.wants_what:
                if loser.phase != HERE:
                    loser.cancelled_quietly.add(task.id)
                    loser.cancelled_quietly.update(loser.alias_ids.get(task, ()))
                lost.setdefault(loser, []).append(task.id)
                unwant(state, loser, task)
        if not task.who_wants:
            for dependent in task.dependents:
                if dependent.state != FORGOTTEN:
                    stack.append(dependent)
    for loser, ids in lost.items():
        # One that says anew what it had said may have submitted the key once more since, under the very id that others have kept.
        if loser.phase == HERE:
            out.cancelled(loser, ids, reason, message.msg)


def retry_keys(state: ClusterState, client: ClientState, ids: list[int], out: Outbox) -> None:
    """Erred tasks, the erred ones that they depend on, and the erred ones that depend on those, start anew."""
    stack: list[TaskState] = []
    gone: list[int] = []
    for id in ids:
        task = find_task(state, client, id)
        if task is None:
            gone.append(id)
            continue
        if task not in client.wants_what:
            if client.phase != RECALLING:
                # It was cancelled together with something that it needs; the news of that may be on its way.
                gone.append(id)
                continue
            if task.state == ERRED:
                want_quietly(client, task)
            else:
                want(state, client, task, out)
        stack.append(task)
    out.cancelled(client, gone, "already forgotten", None)
    roots: dict[TaskState, None] = {}
    while stack:
        task = stack.pop()
        if task.state != ERRED or task in roots:
            continue
        roots[task] = None
        stack.extend(task.dependencies)
        for dependent in task.dependents:
            stack.append(dependent)
    for task in roots:
        task.error = None
        task.blame = None
        task.suspicious = 0
        state.deaths.pop(task, None)
        if task.options is not None:
            task.retries = task.options.retries
        state.recommend(task, RELEASED)


def scatter_keys(state: ClusterState, client: ClientState, message: KeysScattered, tasks: list[TaskState], out: Outbox) -> None:
    """``tasks`` (one for each row, new or known) have their values on the workers that the client put them on.

    Workers keep a value under the id that the client gave it: a task that is known under another id takes that one, unless
    its value is there already.
    """
    for row, task in enumerate(tasks):
        id = message.ids[row]
        holders: list[WorkerState] = []
        for number in message.workers[row]:
            worker = state.by_number.get(number)
            if worker is None and number in state.former_numbers:
                worker = state.by_number.get(state.former_numbers[number])
            if worker is not None:
                holders.append(worker)
        if task.state == MEMORY and id != task.id:
            for worker in holders:
                # For a scheduler that does not know who came first it may be the only one.
                drop_when_written(state, id, worker, out)
                if len(holders) > 1:
                    # Copies there are what the client wants: of the value that the key has already, be it equal or not.
                    order_replicas(state, worker, [task], out)
            alias(client, id, task, out)
            want_quietly(client, task)
            out.to_client(client).in_memory(task, task.who_has[0])
        elif task.state == MEMORY:
            # Of a client that was given up: heard before, and kept for others.
            for worker in holders:
                add_replica(state, task, worker)
                confirm_replica(state, worker, [task], out)
            want_quietly(client, task)
            out.to_client(client).in_memory(task, task.who_has[0])
        elif not holders:
            alias(client, id, task, out)
            want_quietly(client, task)
            # The client takes it for finished.
            if task.state == ERRED:
                out.erred_for(client, task)
            elif state.orphans and state.recovery.claim(state, task, False, out):
                pass
            elif state.recovery.may_come(state, client, task, out):
                out.pending(task)
            else:
                if task.has_recipe:
                    out.pending(task)
                else:
                    out.lost(task)
                state.recommend(task, WAITING)
        else:
            want_quietly(client, task)
            if task.state == PROCESSING:
                # Whoever computes it meanwhile may stop.
                move(state, task, WAITING, out)
            elif task.state == ERRED:
                move(state, task, RELEASED, out)
                task.error = None
                task.blame = None
            if id != task.id:
                take_id(state, task, id, out)
            to_memory(state, task, holders[0], message.nbytes[row], message.types[row], out)
            for worker in holders[1:]:
                add_replica(state, task, worker)
            for worker in holders:
                worker.announced[task] = state.now
                state.announcements.append((state.now, worker, task))
                if client.origin != FIRST_TIME or worker.came_back:
                    # It may have put it there long ago, and it was dropped again: by a scheduler that had heard of it, or by one
                    # that heard of it from the worker alone.
                    confirm_replica(state, worker, [task], out)


def end_announcements(state: ClusterState) -> None:
    """Time has passed: what clients said long ago is not newer than what a worker says of itself."""
    announcements = state.announcements
    while announcements and announcements[0][0] <= state.now - RECENTLY_S:
        when, worker, task = announcements.popleft()
        if worker.announced.get(task) == when:
            del worker.announced[task]


def take_id(state: ClusterState, task: TaskState, id: int, out: Outbox) -> None:
    """``task`` is called ``id`` from here on. No worker has it under the old one, or was told to drop it; clients may go on to use that."""
    old = task.id
    del state.by_id[old]
    state.rename(old, task)
    task.id = id
    state.by_id[id] = task
    for client in task.who_wants:
        if client.number in state.clients_by_number:
            alias(client, old, task, out)
    # Only who gave the id can have announced dependents of it.
    giver = state.clients_by_number.get(old >> 32)
    if giver is not None and old in giver.expecting and giver not in task.who_wants:
        alias(giver, old, task, out)


def want_quietly(client: ClientState, task: TaskState) -> None:
    """As ``want``, for a task whose state is about to be told anyway."""
    if task not in client.wants_what:
        client.wants_what[task] = None
        add_wish(task, client)


def fire_and_forget(state: ClusterState, client: ClientState, ids: list[int], out: Outbox) -> None:
    for id in ids:
        task = find_task(state, client, id)
        if task is not None and task.state not in (MEMORY, ERRED):
            want(state, state.fire_and_forget, task, out)


def check_keys(message: SubmitTasks | AttachKeys | KeysScattered | ReattachKeys) -> None:
    """Raises PeerProtocolError when something among the keys of a message cannot be one."""
    for key in message.keys:
        if not is_key(key):
            raise PeerProtocolError(f"{type(message).__name__}: {key!r} cannot be a key")


def is_of_before(state: ClusterState, client: ClientState, id: int, wire: Any) -> bool:
    """Whether the client, whose id that is, gave it to that key before it was given up, or believed so; others have kept the task."""
    return bool(state.by_id[id].key == key_from_wire(wire))


def check_own_ids(state: ClusterState, client: ClientState, message: SubmitTasks | AttachKeys | KeysScattered | ReattachKeys) -> None:
    """Raises PeerProtocolError unless the client may give these ids to these keys."""
    name = type(message).__name__
    for row, id in enumerate(message.ids):
        if id >> 32 != client.number or (id in state.by_id and not is_of_before(state, client, id, message.keys[row])):
            raise PeerProtocolError(f"{name}: id {id} is not this client's to give")
    if len(set(message.ids)) != len(message.ids):
        raise PeerProtocolError(f"{name}: an id stands twice")


def check_scatter(state: ClusterState, client: ClientState, message: KeysScattered) -> None:
    """Raises PeerProtocolError before anything was changed."""
    length = len(message.ids)
    for column in (message.keys, message.workers, message.nbytes, message.types):
        if len(column) != length:
            raise PeerProtocolError("KeysScattered: columns of different lengths")
    check_keys(message)
    check_own_ids(state, client, message)
