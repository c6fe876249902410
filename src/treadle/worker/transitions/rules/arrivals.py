"""Rules for the results of requests to peers, and for peers that come and go. No I/O, no clock."""

from __future__ import annotations

from treadle.messages.base import Holders, Peer
from treadle.messages.local import FetchBusy, FetchDone, FetchFailed
from treadle.utils.keys import key_from_wire
from treadle.worker.transitions.gathering import back_off, end_request, enqueue, offer_peer
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import (
    FETCH,
    FLIGHT,
    LEAST_URGENT,
    MEMORY,
    MISSING,
    NO_PEER,
    PeerState,
    WorkerTask,
)
from treadle.worker.transitions.rules.fetch import (
    lost_holder,
    need,
    prune_holders,
    remote_of,
    report_missing,
    settle,
    to_fetch,
    to_missing,
)
from treadle.worker.transitions.rules.inventory import announce_again
from treadle.worker.transitions.rules.memory import to_memory
from treadle.worker.transitions.rules.released import fail_dependents
from treadle.worker.transitions.state import LocalState, add_task


def fetch_done(state: LocalState, done: FetchDone, out: WorkerOutbox) -> None:
    peer = end_request(state, done.peer)
    if peer is not None and done.ids:
        peer.failures = 0
    for row in range(len(done.ids)):
        task = _end_flight(state, done.ids[row], done.peer, out)
        if task is not None:
            to_memory(state, task, done.values[row], done.nbytes[row], done.types[row], out)
            out.replica_added(task.id)
    for id, error in done.failed:
        task = _end_flight(state, id, done.peer, out)
        if task is not None:
            lost_holder(task, done.peer)
            fail_dependents(state, task, error, out)
    wrong = False
    for id in done.missing:
        task = _end_flight(state, id, done.peer, out)
        if task is not None:
            remote = remote_of(task)
            remote.misses += 1
            # The scheduler named the peer again after the peer had denied having the value. Once may be a race; twice the
            # scheduler is wrong, and the peer need not be asked again soon.
            wrong = wrong or remote.misses > 1
            lost_holder(task, done.peer)
            to_fetch(state, task, out)
    for id in done.asked:
        task = _end_flight(state, id, done.peer, out)
        if task is not None:
            to_fetch(state, task, out)
    if peer is not None:
        if wrong:
            back_off(state, peer)
        else:
            offer_peer(state, peer)


def fetch_busy(state: LocalState, busy: FetchBusy, out: WorkerOutbox) -> None:
    """Ask the peer again later, and other holders of the values now."""
    peer = end_request(state, busy.peer)
    if peer is not None:
        back_off(state, peer)
    for id in busy.asked:
        task = _end_flight(state, id, busy.peer, out)
        if task is not None:
            to_fetch(state, task, out)


def fetch_failed(state: LocalState, failed: FetchFailed, out: WorkerOutbox) -> None:
    peer = end_request(state, failed.peer)
    if peer is not None:
        back_off(state, peer)
    for id in failed.asked:
        task = _end_flight(state, id, failed.peer, out)
        if task is not None:
            lost_holder(task, failed.peer)
            to_fetch(state, task, out)


def _end_flight(state: LocalState, id: int, number: int, out: WorkerOutbox) -> WorkerTask | None:
    """The request is over. Returns the task if it still waits for the value; None means that the value is to be discarded."""
    task = state.tasks.get(id)
    if task is None or task.remote is None or task.remote.peer != number:
        return None
    task.remote.peer = NO_PEER
    if task.state == FLIGHT:
        return task
    settle(state, task, out)
    return None


def holders_changed(state: LocalState, holders: list[Holders], out: WorkerOutbox) -> None:
    for named in holders:
        task = state.tasks.get(named.id)
        if task is None or task.remote is None or (task.state != MISSING and task.state != FETCH and task.state != FLIGHT):
            continue
        was_missing = task.state == MISSING
        need(state, task, named, task.remote.priority, out)
        if was_missing and task.state == MISSING:
            # The scheduler named only workers that are gone, or this one; or none, and then there is nothing to report.
            report_missing(state, task, out)


def fetch_replicas(state: LocalState, holders: list[Holders], out: WorkerOutbox) -> None:
    for named in holders:
        task = state.tasks.get(named.id)
        if task is None:
            task = add_task(state, named.id, key_from_wire(named.key))
        if task.state == MEMORY:
            announce_again(state, task.id, out)
            continue
        remote_of(task).wanted = True
        need(state, task, named, LEAST_URGENT, out)


def peers_come(state: LocalState, peers: list[Peer]) -> None:
    for peer in peers:
        known = state.peers.get(peer.number)
        if known is not None and known.address == peer.address:
            # Announced again after a reconnection.
            continue
        state.peers[peer.number] = PeerState(peer.number, peer.address, host_of(peer.address))


def peers_gone(state: LocalState, numbers: list[int], out: WorkerOutbox) -> None:
    """These peers left: values are requested from others instead. Requests under way to them end by themselves."""
    for number in numbers:
        peer = state.peers.pop(number, None)
        if peer is None:
            continue
        out.closed_peers.append(peer.address)
        for _, id in peer.queue:
            task = state.tasks.get(id)
            if task is None or task.state != FETCH or task.remote is None:
                continue
            prune_holders(state, task.remote)
            if task.remote.holders:
                enqueue(state, task)
            else:
                to_missing(state, task, out)


def host_of(address: str) -> str:
    """``"10.0.0.3"`` of ``"tcp://10.0.0.3:4000"``; for comparison only."""
    rest = address.partition("://")[2] or address
    if rest.startswith("["):
        return rest.partition("]")[0][1:]
    return rest.partition("/")[0].partition(":")[0]
