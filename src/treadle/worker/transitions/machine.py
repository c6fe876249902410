"""The worker's state machine: events in, ``WorkerOutbox`` out. No I/O, no clock: ``now`` is an argument."""

from __future__ import annotations

from treadle.exceptions import InvariantError
from treadle.messages.local import (
    BuffersCame,
    DataLost,
    DataPut,
    ExecutionFailed,
    ExecutionRescheduled,
    ExecutionsDone,
    ExecutionsSeceded,
    ExecutionsStarted,
    ExecutionUnready,
    FetchBusy,
    FetchDone,
    FetchFailed,
    Paused,
    StoreFailed,
    TakeBackDone,
    Tick,
)
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    DropKeys,
    FetchReplicas,
    HoldersChanged,
    Inventory,
    KeysRenumbered,
    TakeBack,
    WorkerPeers,
    WorkerPeersGone,
    WorkerWelcome,
)
from treadle.worker.transitions.gathering import end_backoffs, start_requests
from treadle.worker.transitions.invariants import validate
from treadle.worker.transitions.outbox import WorkerOutbox
from treadle.worker.transitions.records import MEMORY
from treadle.worker.transitions.rules.arrivals import (
    fetch_busy,
    fetch_done,
    fetch_failed,
    fetch_replicas,
    holders_changed,
    peers_come,
    peers_gone,
)
from treadle.worker.transitions.rules.executing import (
    execution_failed,
    execution_rescheduled,
    execution_unready,
    executions_seceded,
    executions_started,
    take_back_done,
)
from treadle.worker.transitions.rules.fetch import forget_orders
from treadle.worker.transitions.rules.inventory import end_puts, forget_errors, inventory, keys_renumbered, take_number
from treadle.worker.transitions.rules.memory import data_lost, data_put, executions_done, store_failed
from treadle.worker.transitions.rules.ready import release_constrained
from treadle.worker.transitions.rules.released import drop_keys, take_back
from treadle.worker.transitions.rules.waiting import compute_tasks
from treadle.worker.transitions.state import CoreStatistics, LocalState


class WorkerTransitions:
    """What one worker knows of its tasks and decides about them.

    ``host``: this worker's host, on which peers are preferred. ``resources``: abstract counters that tasks may ask for.
    ``fetch_budget_bytes``: the most that all requests under way may ask for; 0: no limit.
    """

    __slots__ = ("_buffers", "state")

    def __init__(
        self,
        host: str,
        resources: dict[str, float],
        max_outgoing: int = 50,
        max_request_bytes: int = 50_000_000,
        validate: bool = False,
        fetch_budget_bytes: int = 0,
    ) -> None:
        self.state: LocalState = LocalState(host, resources, max_outgoing, max_request_bytes, fetch_budget_bytes, validate)
        self._buffers: list[object] = []

    def handle(self, events: list[object], now: float) -> WorkerOutbox:
        """Handle the events of one turn. ``now``: monotonic seconds.

        Raises PeerProtocolError when the scheduler broke the protocol (the event changed nothing, earlier events of the turn did),
        InvariantError when the state contradicts itself.
        """
        state = self.state
        out = WorkerOutbox()
        state.story.now = now
        for event in events:
            self._handle_one(event, out)
        if state.backoffs:
            end_backoffs(state)
        if state.offers:
            start_requests(state, out)
        if state.backoffs:
            out.wake_at = state.backoffs[0][0]
        if state.recent_puts:
            end_puts(state, out)
        if state.recent_errors:
            forget_errors(state)
        if state.validate:
            validate(state)
        return out

    def _handle_one(self, event: object, out: WorkerOutbox) -> None:
        state = self.state
        kind = type(event)
        if kind is ExecutionsDone:
            assert isinstance(event, ExecutionsDone)
            executions_done(state, event, out)
        elif kind is ComputeTasks:
            assert isinstance(event, ComputeTasks)
            buffers = self._buffers
            self._buffers = []
            compute_tasks(state, event, buffers, out)
        elif kind is DropKeys:
            assert isinstance(event, DropKeys)
            drop_keys(state, event.ids, event.unconfirmed, out)
        elif isinstance(event, BuffersCame):
            self._buffers = event.buffers
        elif isinstance(event, (ExecutionFailed, ExecutionRescheduled, ExecutionUnready, ExecutionsStarted, ExecutionsSeceded)):
            self._handle_execution(event, out)
        elif isinstance(event, TakeBackDone):
            take_back_done(state, event, out)
        elif isinstance(event, TakeBack):
            take_back(state, event.ids, event.attempts, out)
        elif isinstance(event, FetchDone):
            fetch_done(state, event, out)
        elif isinstance(event, FetchBusy):
            fetch_busy(state, event, out)
        elif isinstance(event, FetchFailed):
            fetch_failed(state, event, out)
        elif isinstance(event, (HoldersChanged, FetchReplicas, WorkerPeers, WorkerPeersGone, WorkerWelcome, KeysRenumbered)):
            self._handle_cluster(event, out)
        elif isinstance(event, DataPut):
            data_put(state, event, out)
        elif isinstance(event, DataLost):
            data_lost(state, event.ids, out)
        elif isinstance(event, StoreFailed):
            store_failed(state, event.rows, out)
        elif isinstance(event, Paused):
            self._pause(event.paused, out)
        elif not isinstance(event, Tick):
            raise InvariantError(f"the worker's core has no rule for {event!r}")

    def _handle_execution(self, event: object, out: WorkerOutbox) -> None:
        state = self.state
        if isinstance(event, ExecutionFailed):
            execution_failed(state, event, out)
        elif isinstance(event, ExecutionRescheduled):
            execution_rescheduled(state, event.id, out)
        elif isinstance(event, ExecutionUnready):
            execution_unready(state, event.id, out)
        elif isinstance(event, ExecutionsStarted):
            executions_started(state, event.ids, out)
        elif isinstance(event, ExecutionsSeceded):
            executions_seceded(state, event.ids, out)

    def _handle_cluster(self, event: object, out: WorkerOutbox) -> None:
        state = self.state
        if isinstance(event, HoldersChanged):
            holders_changed(state, event.holders, out)
        elif isinstance(event, FetchReplicas):
            fetch_replicas(state, event.holders, out)
        elif isinstance(event, WorkerPeers):
            peers_come(state, event.peers)
        elif isinstance(event, WorkerPeersGone):
            peers_gone(state, event.numbers, out)
        elif isinstance(event, WorkerWelcome):
            take_number(state, event.number)
            forget_orders(state)
        elif isinstance(event, KeysRenumbered):
            drop_keys(state, keys_renumbered(state, event.ids, event.canonical, out), None, out)

    def _pause(self, paused: bool, out: WorkerOutbox) -> None:
        state = self.state
        if paused == state.paused:
            return
        state.paused = paused
        out.paused, out.resumed = paused, not paused
        if not paused:
            release_constrained(state, out)

    # -------------------------------------------------------------------------------------------- reads

    def stored_key(self, id: int) -> tuple[object, int] | None:
        """Key and size in bytes of a value in the store; None when it is not there."""
        task = self.state.tasks.get(id)
        if task is None or task.state != MEMORY:
            return None
        return task.key, task.nbytes

    def inventory(self, now: float) -> Inventory:
        """The inventory to register again with, without the functions, which the shell knows."""
        return inventory(self.state, now)

    def story(self, ids: list[int]) -> list[tuple[float, int, str, str]]:
        return self.state.story.of(ids)

    def statistics(self) -> CoreStatistics:
        return self.state.statistics()
