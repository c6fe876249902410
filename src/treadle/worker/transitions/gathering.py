"""Which values are requested from which peer, when, and how many at once. No I/O: ``now`` is an argument.

A needed value stands in the queues of several peers that have it. At most one request to a peer is under way; a free peer is
asked for the most urgent values of its queue, up to a number of bytes. All requests together ask for no more bytes than a
budget: otherwise arriving values could fill the memory before anything can be done about it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from treadle.messages.local import Fetch
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import FETCH, FLIGHT, PeerState, WorkerTask
from treadle.worker.transitions.state import LocalState, move

#: A value stands in the queues of at most this many peers; when all of them have failed, others follow.
MAX_QUEUES: Final = 8
MAX_IDS: Final = 10_000
FIRST_BACKOFF_S: Final = 0.01
MAX_BACKOFF_S: Final = 3.0


def enqueue(state: LocalState, task: WorkerTask) -> None:
    """Put a task in FETCH into the queues of peers that have its value. Which peers these are differs between workers."""
    remote = task.remote
    if remote is None:
        return
    holders = remote.holders
    count = len(holders)
    # Workers that need the same value begin with different holders; each one always begins with the same.
    first = (task.id + state.number) % count if count else 0
    for turn in range(min(count, MAX_QUEUES)):
        peer = state.peers.get(holders[(first + turn) % count])
        if peer is None:
            continue
        heappush(peer.queue, (remote.priority, task.id))
        heappush(state.offers, (remote.priority, peer.host != state.host, turn, task.id, peer.number))


def offer_peer(state: LocalState, peer: PeerState) -> None:
    """The peer is free again: offer the head of its queue as the next request."""
    queue = peer.queue
    while queue and not _counts(state, peer, queue[0][1]):
        heappop(queue)
    if queue:
        heappush(state.offers, (queue[0][0], peer.host != state.host, 0, queue[0][1], peer.number))


def back_off(state: LocalState, peer: PeerState) -> None:
    """Send the peer no requests for a while, twice as long each time until it answers."""
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
            # The peer is gone, or will be offered when it becomes free.
            continue
        if not _request(state, peer, out):
            # Less urgent values must wait, too, or large values would wait for ever. The end of a request under way calls this again.
            heappush(offers, offer)
            return


def end_request(state: LocalState, number: int) -> PeerState | None:
    """The request to the peer has ended, with an answer or not. Returns the peer if it is still known."""
    state.outgoing -= 1
    state.fetching_bytes -= state.requested_bytes.pop(number, 0)
    peer = state.peers.get(number)
    if peer is not None:
        peer.flying = False
    return peer


def _request(state: LocalState, peer: PeerState, out: WorkerOutbox) -> bool:
    """Request the most urgent values from the peer. False when there are values to request, but the budget has no bytes left."""
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
    """Whether a row of the peer's queue still stands for a value to request from it."""
    task = state.tasks.get(id)
    return task is not None and task.state == FETCH and task.remote is not None and peer.number in task.remote.holders
