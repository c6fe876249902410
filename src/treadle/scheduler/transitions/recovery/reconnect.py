"""Parties whose streams broke: they are away for a while, come back and go on, or are given up. ``now`` is an argument."""

from __future__ import annotations

from typing import Final

from treadle.exceptions import PeerProtocolError
from treadle.messages.client_scheduler import ClientWelcome, KeysAliased, KeysPending, RegisterClient
from treadle.messages.worker_scheduler import Inventory, RegisterWorker, WorkerWelcome
from treadle.scheduler.transitions import membership
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.records import (
    AWAY,
    ERRED,
    FIRST_TIME,
    HERE,
    MEMORY,
    PAUSED,
    RECALLING,
    RELEASED,
    RETURNED,
    RUNNING,
    STRANGER,
    ClientState,
    TaskState,
    WorkerState,
)
from treadle.scheduler.transitions.recovery.orphans import expire_orphans, give_up_awaited
from treadle.scheduler.transitions.recovery.reconcile import Reconciliation, check_inventory
from treadle.scheduler.transitions.replicas import forget_recipient
from treadle.scheduler.transitions.state import RESTORING, ClusterState
from treadle.scheduler.transitions.wants import end_announcements, find_task, unwant, want_quietly

#: Frames of a client that are acknowledged at the latest together.
MOST_UNACKNOWLEDGED: Final = 16
#: Orphans that are given up in one look.
MOST_EXPIRED: Final = 10_000
#: For a nanny to say that its worker has died, and how, seconds.
NANNY_WORD_S: Final = 2.0
#: What a client is told of keys that went away while it did not listen.
FORGOTTEN_MEANWHILE: Final = "already forgotten"


def lose_worker(state: ClusterState, worker: WorkerState, blame: bool, out: Outbox) -> None:
    """Its stream ended without goodbye. ``blame`` False: that was on purpose."""
    if not blame or _grace_s(state, worker) <= 0:
        membership.remove_worker(state, worker, blame, out)
        return
    if not worker.connected:
        return
    worker.connected = False
    worker.disconnected_at = state.now
    state.absent_workers[worker] = None
    membership.stop_running(state, worker)
    out.forget_session(worker.number)


def _grace_s(state: ClusterState, worker: WorkerState) -> float:
    """How long it may stay away. One with a nanny at least until that could say what has become of it."""
    grace_s = state.limits.worker_grace_s
    return grace_s if worker.nanny is None else max(grace_s, NANNY_WORD_S)


def lose_client(state: ClusterState, client: ClientState, blame: bool, out: Outbox) -> None:
    """Its stream ended without goodbye. ``blame`` False: that was on purpose."""
    if not blame or (state.limits.client_grace_s <= 0 and state.phase != RESTORING):
        # Of a client that was given up before there is a record of its own.
        membership.remove_client(state, client, out)
        return
    client.registration = None
    if client.phase == AWAY:
        return
    client.phase = AWAY
    client.disconnected_at = state.now
    state.absent_clients[client] = None
    out.forget_session(client.number)


def come_back(state: ClusterState, worker: WorkerState, message: RegisterWorker, scheduler_id: str, out: Outbox) -> None:
    """It is here again, and says what it has."""
    inventory = message.inventory
    if worker.connected:
        raise PeerProtocolError("a worker registers once on each connection")
    if inventory is None:
        raise PeerProtocolError(f"the worker {message.identity.name!r} is here already, and came back without an inventory")
    check_inventory(inventory)
    out.forget_session(worker.number)
    worker.connected = True
    state.absent_workers.pop(worker, None)
    if worker.receiving:
        # It may not have heard that it was to have them.
        forget_recipient(state, worker, out)
    out.say(worker, WorkerWelcome(worker.number, scheduler_id, True))
    _reconcile(state, worker, inventory, True, out)


def arrive(state: ClusterState, number: int, message: RegisterWorker, scheduler_id: str, out: Outbox) -> bool:
    """A worker registers that is not known; it may have served an earlier scheduler. Whether it is taken."""
    if message.inventory is not None:
        check_inventory(message.inventory)
    worker = membership.add_worker(state, number, message, scheduler_id, out)
    if worker is None:
        return False
    if message.inventory is None:
        membership.set_running(state, worker)
    else:
        _reconcile(state, worker, message.inventory, False, out)
    return True


def _reconcile(state: ClusterState, worker: WorkerState, inventory: Inventory, known: bool, out: Outbox) -> None:
    if worker.status in (RUNNING, PAUSED):
        worker.status = inventory.status
    worker.came_back = True
    Reconciliation(state, worker, inventory, known, out).run()
    # Only now: what it goes on with is not to be given to it, or to another one, anew.
    if worker.status == RUNNING:
        membership.set_running(state, worker)


def return_client(state: ClusterState, client: ClientState, message: RegisterClient, scheduler_id: str, out: Outbox) -> None:
    """It is here again, and hears which of its frames arrived. Where its keys stand it asks when it has sent the others."""
    if client.durable != client.received:
        # It would not send those again that are not on disk yet, and may be lost: it is welcomed when they are.
        client.registration = message
        return
    client.registration = None
    if client.phase != AWAY:
        raise PeerProtocolError("a client registers once on each connection")
    out.forget_session(client.number)
    client.phase = RECALLING
    if client.origin == FIRST_TIME:
        client.origin = RETURNED
    state.absent_clients.pop(client, None)
    client.versions = dict(message.versions)
    membership.forget_met(state, client.number, client.met)
    client.acknowledged = client.durable
    queue = out.to_client(client)
    # One that was given up, and whose welcome got lost, has not said yet what it knows.
    known = client.received > 0 or client.origin != STRANGER
    queue.add(ClientWelcome(client.number, scheduler_id, known, client.received))
    if client.aliases:
        queue.add(KeysAliased(list(client.aliases), [task.id for task in client.aliases.values()]))


def confirm_keys(state: ClusterState, client: ClientState, ids: list[int], erred: list[int], out: Outbox) -> None:
    """Tell the client where everything stands that it wants; ``ids`` and ``erred`` are what it believes that to be."""
    gone: list[int] = []
    meant: set[TaskState] = set()
    for id in ids:
        task = find_task(state, client, id)
        if task is None or task not in client.wants_what:
            gone.append(id)
        else:
            meant.add(task)
    for id in erred:
        task = find_task(state, client, id)
        if task is not None and (task.state != RELEASED or task in client.wants_what):
            meant.add(task)
            # One that was given up has not named it among what it wants.
            want_quietly(client, task)
        elif id in client.cancelled_quietly:
            # It has failed there, was made once more here, and cancelled with something that it needs: the client may believe any of that.
            gone.append(id)
    client.phase = HERE
    client.cancelled_quietly.clear()
    out.cancelled(client, gone, FORGOTTEN_MEANWHILE, None)
    for task in list(client.wants_what):
        if task not in meant:
            # It was told that this is cancelled, by a scheduler that has not lived to write that down.
            if state.recorder is not None:
                state.recorder.unwanted(client, task.id)
            unwant(state, client, task)
    queue = out.to_client(client)
    pending: list[int] = []
    for task in client.wants_what:
        if task.state == MEMORY:
            queue.in_memory(task, task.who_has[0])
        elif task.state == ERRED:
            out.erred_for(client, task)
        else:
            pending.append(task.id)
    if pending:
        queue.add(KeysPending(pending))


def frame_came(client: ClientState, sequence: int, urgent: bool, out: Outbox) -> None:
    """All of the client's frame of that number is here. That is said with what is said anyway, or when much has come."""
    client.received = sequence
    if urgent or sequence - client.acknowledged >= MOST_UNACKNOWLEDGED:
        out.to_client(client).acknowledge = True


def frames_durable(state: ClusterState, numbers: list[int], sequences: list[int], scheduler_id: str, out: Outbox) -> None:
    """The journal answers for these frames: their clients need not keep them."""
    for number, sequence in zip(numbers, sequences, strict=True):
        client = state.clients_by_number.get(number)
        if client is not None:
            client.durable = sequence
            state.unacknowledged[client] = None
            if client.registration is not None:
                return_client(state, client, client.registration, scheduler_id, out)
            out.to_client(client).acknowledge = True


def look_at_clock(state: ClusterState, out: Outbox) -> None:
    """Give up who was away too long and what nobody has claimed; tell clients what came from them."""
    if state.unacknowledged:
        for client in state.unacknowledged:
            if client.durable != client.acknowledged and client.phase != AWAY:
                out.to_client(client).acknowledge = True
        state.unacknowledged = {}
    now = state.now
    if state.announcements:
        end_announcements(state)
    if state.absent_workers:
        for worker in _overdue_workers(state):
            membership.remove_worker(state, worker, True, out)
    if state.absent_clients:
        for client in _overdue_clients(state):
            membership.remove_client(state, client, out)
    if state.orphans and now >= state.orphans_until:
        expire_orphans(state, out, MOST_EXPIRED)
    if state.awaited:
        late: list[TaskState] = []
        for task, until in state.awaited.items():
            if until > now:
                break
            late.append(task)
        for task in late:
            for client in give_up_awaited(state, task, out):
                unwant(state, client, task)


def _overdue_workers(state: ClusterState) -> list[WorkerState]:
    """Those that are away longer than they may. The one away longest is first; how long that is depends on whether it has a nanny."""
    late: list[WorkerState] = []
    for worker in state.absent_workers:
        away_s = state.now - worker.disconnected_at
        if away_s < state.limits.worker_grace_s:
            break
        if away_s >= _grace_s(state, worker):
            late.append(worker)
    return late


def _overdue_clients(state: ClusterState) -> list[ClientState]:
    late: list[ClientState] = []
    for client in state.absent_clients:
        if state.now - client.disconnected_at < state.limits.client_grace_s:
            break
        if client.registration is None:
            # Else it is here, and waits for the disk.
            late.append(client)
    return late
