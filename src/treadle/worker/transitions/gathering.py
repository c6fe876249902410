"""Which values are requested from which peer, when, and how many at once. No I/O: ``now`` is an argument.

A value that is needed stands in the queue of each of some peers that have it. A peer has at most one request under
way; when it becomes free it is asked for the most urgent ones of its queue, up to a number of bytes. What all requests ask for
together stays within a budget: else what arrives could fill the memory before anything can be done about it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from treadle.messages.local import Fetch
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import FETCH, FLIGHT, PeerState, WorkerTask
from treadle.worker.transitions.state import LocalState, move

#: In how many peers' queues a value stands at once; when all of them failed, others follow.
MAX_QUEUES: Final = 8
MAX_IDS: Final = 10_000
FIRST_BACKOFF_S: Final = 0.01
MAX_BACKOFF_S: Final = 3.0


def enqueue(state: LocalState, task: WorkerTask) -> None:
    """Put a task in FETCH into the queues of peers that have it: those on this host, and a share that differs between workers."""
    remote = task.remote
    if remote is None:
        return
    holders = remote.holders
    count = len(holders)
    # Workers that need the same value of the same holders start at different ones, and always at the same.
    first = (task.id + state.number) % count if count else 0
    for turn in range(min(count, MAX_QUEUES)):
        peer = state.peers.get(holders[(first + turn) % count])
        if peer is None:
            continue
        heappush(peer.queue, (remote.priority, task.id))
        heappush(state.offers, (remote.priority, peer.host != state.host, turn, task.id, peer.number))


def offer_peer(state: LocalState, peer: PeerState) -> None:
    """The peer is free again: it takes part in the choice with the head of its queue."""
    queue = peer.queue
    while queue and not _counts(state, peer, queue[0][1]):
        heappop(queue)
    if queue:
        heappush(state.offers, (queue[0][0], peer.host != state.host, 0, queue[0][1], peer.number))


def back_off(state: LocalState, peer: PeerState) -> None:
    """Leave the peer alone for a while, twice as long each time until it answers."""
    delay = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * float(1 << min(peer.failures, 16)))
    peer.failures += 1
    peer.not_before = state.story.now + delay
    heappush(state.backoffs, (peer.not_before, peer.number))


def end_backoffs(state: LocalState) -> None:
    now = state.story.now
    while state.backoffs and state.backoffs[0][0] <= now:
        peer = state.peers.get(heappop(state.backoffs)[1])
        if peer is not None and not peer.flying:
            offer_peer(state, peer)


def start_requests(state: LocalState, out: WorkerOutbox) -> None:
    """Ask free peers, the most urgent values first, while connections and bytes are left."""
    offers = state.offers
    while offers and state.outgoing < state.max_outgoing:
        offer = heappop(offers)
        peer = state.peers.get(offer[4])
        if peer is None or peer.flying or peer.not_before > state.story.now:
            # Gone, or it will offer itself when it becomes free.
            continue
        if not _request(state, peer, out):
            # Nor for anybody less urgent, or large values would wait for ever. What is under way ends, and then it is looked at again.
            heappush(offers, offer)
            return


def end_request(state: LocalState, number: int) -> PeerState | None:
    """The peer has answered, or will not. Returns it, if it is still there."""
    state.outgoing -= 1
    state.fetching_bytes -= state.requested_bytes.pop(number, 0)
    peer = state.peers.get(number)
    if peer is not None:
        peer.flying = False
    return peer


def _request(state: LocalState, peer: PeerState, out: WorkerOutbox) -> bool:
    """False: there are values to ask for, and no bytes left in the budget."""
    ids: list[int] = []
    budget = state.fetch_budget_bytes
    total = 0
    queue = peer.queue
    while queue and len(ids) < MAX_IDS:
        id = queue[0][1]
        if not _counts(state, peer, id):
            heappop(queue)
            continue
        task = state.tasks[id]
        if ids and total + task.nbytes > state.max_request_bytes:
            break
        wanted = state.fetching_bytes + total
        if budget and wanted and wanted + task.nbytes > budget:
            if not ids:
                return False
            break
        heappop(queue)
        total += task.nbytes
        ids.append(id)
        move(state, task, FLIGHT)
        if task.remote is not None:
            task.remote.peer = peer.number
    if ids:
        peer.flying = True
        state.outgoing += 1
        # There may be another one, to a peer of that number that has moved since.
        state.requested_bytes[peer.number] = state.requested_bytes.get(peer.number, 0) + total
        state.fetching_bytes += total
        out.fetch.append(Fetch(peer.number, peer.address, ids))
    return True


def _counts(state: LocalState, peer: PeerState, id: int) -> bool:
    """Whether a row of the peer's queue still stands for something to be asked of it."""
    task = state.tasks.get(id)
    return task is not None and task.state == FETCH and task.remote is not None and peer.number in task.remote.holders
