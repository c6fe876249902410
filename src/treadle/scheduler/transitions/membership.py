"""Workers and clients come, pause and go."""

from __future__ import annotations

from typing import Final

from treadle.exceptions import PeerProtocolError
from treadle.messages.base import WorkerIdentity
from treadle.messages.client_scheduler import ClientPeersGone, ClientWelcome, RegisterClient
from treadle.messages.journal import ClientGone, ForgottenRecord, WorkerGone
from treadle.messages.scheduler_local import WorkerDeath
from treadle.messages.worker_scheduler import Inventory, RegisterWorker, WorkerPeersGone, WorkerRefused, WorkerWelcome
from treadle.scheduler.transitions.candidates import strand, worker_joins, worker_leaves, worker_runs, worker_stops
from treadle.scheduler.transitions.deaths import blame_suspects
from treadle.scheduler.transitions.forget import forget_everything
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.quarantine import give_up, is_emptied
from treadle.scheduler.transitions.records import (
    PAUSED,
    RECALLING,
    RELEASED,
    RETIRING,
    RUNNING,
    STRANGER,
    WAITING,
    Account,
    ClientState,
    FunctionState,
    WorkerState,
)
from treadle.scheduler.transitions.replicas import forget_recipient, lost_replica
from treadle.scheduler.transitions.rules.common import remove_replica
from treadle.scheduler.transitions.rules.forgotten import drop_function
from treadle.scheduler.transitions.rules.quarantine import take_back_all
from treadle.scheduler.transitions.state import STEADY, ClusterState

#: More than there ever are of one task, but for those that are retried all the time.
ATTEMPTS_OF_A_TASK: Final = 64


def add_worker(state: ClusterState, number: int, message: RegisterWorker, scheduler_id: str, out: Outbox) -> WorkerState | None:
    """A worker registers, and does not run yet; None when it is refused, and told why."""
    identity = message.identity
    for other in (state.by_name.get(identity.name), state.workers.get(identity.address)):
        if other is not None and not other.connected and other.number in state.by_number:
            # Its successor is here: it will not come back.
            remove_worker(state, other, True, out)
    refusal = _refusal(state, identity)
    worker = WorkerState(number, identity, _former_numbers(message.inventory, number))
    if refusal:
        out.say(worker, WorkerRefused(0, "ValueError", refusal))
        return None
    index_worker(state, worker)
    out.say(worker, WorkerWelcome(number, scheduler_id))
    if state.recorder is not None:
        state.recorder.worker_joined(worker)
    return worker


def _former_numbers(inventory: Inventory | None, number: int) -> list[int]:
    if inventory is None:
        return []
    return [former for former in (*(inventory.former or ()), inventory.number) if former not in (0, number)]


def index_worker(state: ClusterState, worker: WorkerState) -> None:
    """It is known from here on."""
    worker.last_seen = state.now
    state.workers[worker.address] = worker
    state.by_number[worker.number] = worker
    state.by_name[worker.name] = worker
    state.by_worker_id[worker.id] = worker
    for number in worker.former:
        state.former_numbers[number] = worker.number
    state.by_host.setdefault(worker.host, {})[worker] = None
    if worker.nanny is not None:
        state.by_nanny.setdefault(worker.nanny, {})[worker] = None
    for name in worker.resources:
        state.by_resource.setdefault(name, {})[worker] = None
    state.total_nthreads += worker.nthreads
    state.total_memory_limit += worker.memory_limit
    worker_joins(state, worker)


def _refusal(state: ClusterState, identity: WorkerIdentity) -> str:
    if identity.nthreads < 1:
        return f"a worker needs at least one thread, {identity.name!r} has {identity.nthreads}"
    other = state.by_name.get(identity.name)
    if other is not None:
        return f"the name {identity.name!r} is in use by the worker at {other.address}; give this worker another name (--name)"
    other = state.workers.get(identity.address)
    if other is not None:
        return f"the address {identity.address} is in use by the worker {other.name!r}"
    if identity.id in state.by_worker_id:
        return f"a worker with the id {identity.id!r} is here already"
    return ""


def set_running(state: ClusterState, worker: WorkerState) -> None:
    """It takes tasks from here on; those that had no worker are looked at again."""
    if worker in state.reserved:
        # Its suspect is here still.
        return
    state.running[worker] = None
    worker.taking_back.clear()
    worker_runs(state, worker)
    state.touch(worker)
    if state.phase != STEADY:
        return
    if state.placeable.since:
        for task in state.placeable.candidates(worker):
            state.recommend(task, WAITING)


def set_worker_status(state: ClusterState, worker: WorkerState, status: str, out: Outbox) -> None:
    if status not in (RUNNING, PAUSED):
        raise PeerProtocolError(f"a worker cannot be {status!r}")
    if status == worker.status or worker.status == RETIRING:
        return
    worker.status = status
    if status == RUNNING:
        set_running(state, worker)
    else:
        # Others may go on with what it has not begun.
        stop_running(state, worker)
        take_back_all(worker, out)


def retire(state: ClusterState, worker: WorkerState, out: Outbox) -> None:
    """It gets nothing new, and gives back what it has not begun."""
    if worker.status == RETIRING:
        return
    worker.status = RETIRING
    stop_running(state, worker)
    take_back_all(worker, out)


def go_on_emptying(state: ClusterState, worker: WorkerState, out: Outbox) -> None:
    """It gave back some of what it had not begun: if it is to have nothing left, the next ones are asked for."""
    if worker.connected and is_emptied(state, worker):
        take_back_all(worker, out)


def stay(state: ClusterState, worker: WorkerState) -> None:
    """It does not retire after all."""
    if worker.status == RETIRING:
        worker.status = RUNNING
        if worker.connected:
            set_running(state, worker)


def stop_running(state: ClusterState, worker: WorkerState) -> None:
    give_up(state, worker)
    state.running.pop(worker, None)
    state.idle.pop(worker, None)
    state.saturated.pop(worker, None)
    state.has_capacity.pop(worker, None)
    worker_stops(worker)
    strand(state, worker)
    if not state.running and not state.reserved:
        # Nobody is left to whom the queue could go: these tasks have no possible worker now.
        for task in state.queue.tasks():
            state.recommend(task, WAITING)


def remove_worker(state: ClusterState, worker: WorkerState, blame: bool, out: Outbox, report: WorkerDeath | None = None) -> None:
    """``worker`` is gone. ``blame``: it died, and what it was executing may be the reason; ``report``: the event that says how."""
    if state.recorder is not None:
        state.recorder.add(WorkerGone(worker.number))
    state.departures += 1
    del state.workers[worker.address]
    del state.by_number[worker.number]
    del state.by_name[worker.name]
    del state.by_worker_id[worker.id]
    state.absent_workers.pop(worker, None)
    for number in worker.former:
        if state.former_numbers.get(number) == worker.number:
            del state.former_numbers[number]
    del state.by_host[worker.host][worker]
    if not state.by_host[worker.host]:
        del state.by_host[worker.host]
    if worker.nanny is not None:
        del state.by_nanny[worker.nanny][worker]
        if not state.by_nanny[worker.nanny]:
            del state.by_nanny[worker.nanny]
    for name in worker.resources:
        del state.by_resource[name][worker]
        if not state.by_resource[name]:
            del state.by_resource[name]
    state.total_nthreads -= worker.nthreads
    state.total_memory_limit -= worker.memory_limit
    stop_running(state, worker)
    worker_leaves(state, worker)
    out.forget_session(worker.number)
    if blame:
        blame_suspects(state, worker, report)
    if worker.receiving:
        forget_recipient(state, worker, out)
    for task in list(worker.processing):
        state.recommend(task, WAITING)
    for task in list(worker.has_what):
        remove_replica(state, task, worker)
        lost_replica(state, task, out)
    for function in worker.functions:
        function.workers.pop(worker.number, None)
    if worker.orphans:
        state.recovery.worker_gone(state, worker)
    forget_met(state, worker.number, worker.met)
    _tell_acquaintances(state, worker, out)


def forget_met(state: ClusterState, number: int, met: set[int]) -> None:
    """The party with that number, which had met these workers, does not know their addresses any more."""
    for other in met:
        worker = state.by_number.get(other)
        if worker is not None:
            worker.known_to.pop(number, None)
    met.clear()


def _tell_acquaintances(state: ClusterState, gone: WorkerState, out: Outbox) -> None:
    """Who was told the address of ``gone`` hears that it is gone."""
    for number in gone.known_to:
        worker = state.by_number.get(number)
        if worker is not None:
            worker.met.discard(gone.number)
            out.say(worker, WorkerPeersGone([gone.number]))
            continue
        client = state.clients_by_number.get(number)
        if client is not None:
            client.met.discard(gone.number)
            out.to_client(client).add(ClientPeersGone([gone.number]))


def add_client(state: ClusterState, number: int, message: RegisterClient, scheduler_id: str, out: Outbox) -> ClientState:
    if message.id in state.clients:
        raise PeerProtocolError(f"a client with the id {message.id!r} is connected already")
    client = ClientState(number, message.id, dict(message.versions))
    client.account = new_account(state, message.id)
    client.last_seen = state.now
    if message.number != 0:
        client.phase = RECALLING
        client.origin = STRANGER
        # What it submits once more, under ids that it has used, was perhaps forgotten, and is executing still.
        state.first_attempt += ATTEMPTS_OF_A_TASK
    state.clients[client.id] = client
    state.clients_by_number[number] = client
    out.to_client(client).add(ClientWelcome(number, scheduler_id))
    return client


def new_account(state: ClusterState, id: str) -> Account:
    """For a client with that id, ``Client-<name>-<uuid>`` where the user has named it."""
    name = id[7:-37] if id.startswith("Client-") else id
    return Account(id, state.limits.client_weights.get(name, 1.0))


def remove_client(state: ClusterState, client: ClientState, out: Outbox) -> None:
    """The client is gone, and with it all that only it wanted."""
    if state.recorder is not None:
        state.recorder.add(ClientGone(client.number))
    out.forget_session(client.number)
    state.clients.pop(client.id, None)
    state.absent_clients.pop(client, None)
    state.unacknowledged.pop(client, None)
    del state.clients_by_number[client.number]
    forget_met(state, client.number, client.met)
    for expected in client.expecting.values():
        expected.task.later_dependents -= expected.count
        state.recommend(expected.task, RELEASED)
    client.expecting = {}
    for task in list(client.wants_what):
        client.wants_what.pop(task)
        task.who_wants = [other for other in task.who_wants if other is not client]
        state.recommend(task, RELEASED)
    client.aliases = {}
    client.alias_ids = {}
    for function in list(client.functions.values()):
        release_function(state, client, function, out)


def forget_functions(state: ClusterState, client: ClientState, ids: list[int], out: Outbox) -> None:
    for id in ids:
        function = client.functions.get(id)
        if function is not None:
            release_function(state, client, function, out)


def release_function(state: ClusterState, client: ClientState, function: FunctionState, out: Outbox) -> None:
    """Its client will not name it again."""
    client.functions.pop(function.id, None)
    function.held = False
    if function.ntasks == 0:
        drop_function(state, function, out)


def clear(state: ClusterState, reason: str, out: Outbox) -> None:
    """Everything is cancelled for everybody; workers and clients stay."""
    if state.recorder is not None:
        state.recorder.add(ForgottenRecord(reason))
    for client in state.clients.values():
        out.cancelled(client, [task.id for task in client.wants_what], reason, None)
    forget_everything(state, out)
