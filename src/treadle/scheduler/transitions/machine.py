"""The scheduler's core: ``Transitions.handle(events, now) -> Outbox``. Rules recommend; recommendations go to a fixed point.

A pure machine: no socket, clock, thread, logger or randomness. The same events give the same outbox under any hash seed.
"""

from __future__ import annotations

from typing import Any

from treadle.exceptions import InvariantError, NoValidWorkerError, NoWorkerError, PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ClientHeartbeat,
    ConfirmKeys,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysScattered,
    LeaveClient,
    PublishData,
    ReattachKeys,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
    UnpublishData,
)
from treadle.messages.scheduler_local import (
    ConnectionLost,
    DropReplicas,
    Forget,
    FramesDurable,
    JournalRead,
    ReplicateKeys,
    Retire,
    Tick,
    WorkerDeath,
)
from treadle.messages.worker_scheduler import (
    LeaveWorker,
    RegisterWorker,
    ReplicasAdded,
    ReplicasDropped,
    ReplicasMissing,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksSeceded,
    TasksStarted,
    TasksTakenBack,
    WorkerHeartbeat,
    WorkerStatus,
)
from treadle.scheduler.transitions import graph, membership, publishing, replicas, reports, wants
from treadle.scheduler.transitions.candidates import is_restricted
from treadle.scheduler.transitions.invariants import validate
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placement import fill
from treadle.scheduler.transitions.recorder import Recorder
from treadle.scheduler.transitions.records import (
    ERRED,
    FORGOTTEN,
    PROCESSING,
    RELEASED,
    STATE_NAMES,
    WAITING,
    ClientState,
    TaskState,
    WorkerState,
)
from treadle.scheduler.transitions.recovery import reconcile, reconnect, restore
from treadle.scheduler.transitions.recovery.orphans import Leftovers
from treadle.scheduler.transitions.rules.erred import own_error, to_erred
from treadle.scheduler.transitions.rules.forgotten import to_forgotten
from treadle.scheduler.transitions.rules.processing import to_processing
from treadle.scheduler.transitions.rules.quarantine import place_suspects
from treadle.scheduler.transitions.rules.released import to_released
from treadle.scheduler.transitions.rules.waiting import to_waiting
from treadle.scheduler.transitions.state import HOLDING, RESTORING, ClusterState, Limits
from treadle.scheduler.transitions.stealing import balance
from treadle.utils.keys import group_of, key_from_wire


class Event:
    """One thing that happened: a message of the party with that session number, or a local event (number 0 where nobody is meant)."""

    def __init__(self, session: int, message: object, frames: list[Any] | None = None, record: Any = None) -> None:
        self.session: int = session
        self.message: object = message
        #: Buffers that came beside the message.
        self.frames: list[Any] = [] if frames is None else frames
        #: What the journal is to keep of it; goes among the records where its turn comes.
        self.record: Any = record


class TurnResult:
    """What one turn asks the shell to do, in this order: send, then close."""

    def __init__(self) -> None:
        #: (session number, messages, frames that ride beside).
        self.sends: list[tuple[int, list[Message], list[Any]]] = []
        #: (session number, why): parties that broke the protocol, or were refused, or said goodbye.
        self.closes: list[tuple[int, str]] = []
        #: Those of ``closes`` that broke the protocol; they are told so.
        self.offenders: list[tuple[int, str]] = []
        #: What must outlive the scheduler, in order: messages of ``messages.journal``, and records of events. Empty without a journal.
        self.records: list[object] = []
        #: (number of a worker, id): values to be dropped when these records are durable, see ``is_dropped``.
        self.late_drops: list[tuple[int, int]] = []


class Transitions:
    """The state of the cluster, and the only one who changes it.

    ``first_attempt``: attempts at tasks are numbered above this. Workers may bring those of an earlier scheduler, which are others.
    """

    def __init__(self, limits: Limits, scheduler_id: str, first_attempt: int = 0) -> None:
        self.scheduler_id: str = scheduler_id
        #: Which of the turn's events is being handled; -1: none of them.
        self.at: int = -1
        self.state: ClusterState = ClusterState(limits)
        self.reset(first_attempt)

    def reset(self, first_attempt: int) -> None:
        """Know nothing any more: what was known contradicts itself."""
        self.state = ClusterState(self.state.limits)
        self.state.first_attempt = first_attempt
        self.state.recovery = Leftovers()

    def begin_restoring(self) -> None:
        """Records of another scheduler follow, until ``JournalRead``."""
        self.state.phase = RESTORING

    def start_recording(self) -> None:
        """From here on there is a journal: each turn tells what it is to hold."""
        self.state.recorder = Recorder()

    # --------------------------------------------------------------------------------- what it knows, readable

    def is_dropped(self, number: int, id: int) -> bool:
        """Whether the worker with that number is still not to have the value with that id."""
        task = self.state.by_id.get(id)
        worker = self.state.by_number.get(number)
        if task is None or worker is None:
            return True
        return worker not in task.who_has and task.processing_on is not worker and worker not in self.state.replicating.get(task, [])

    @property
    def tasks(self) -> dict[Any, TaskState]:
        return self.state.tasks

    @property
    def unrunnable(self) -> dict[TaskState, float]:
        return self.state.unrunnable

    @property
    def workers(self) -> dict[str, WorkerState]:
        return self.state.workers

    @property
    def idle(self) -> dict[str, WorkerState]:
        return {worker.address: worker for worker in self.state.idle}

    @property
    def saturated(self) -> dict[str, WorkerState]:
        return {worker.address: worker for worker in self.state.saturated}

    @property
    def running(self) -> dict[str, WorkerState]:
        return {worker.address: worker for worker in self.state.running}

    @property
    def clients(self) -> dict[str, ClientState]:
        return self.state.clients

    @property
    def task_duration(self) -> dict[str, float]:
        """Learned seconds by key prefix, e.g. ``{"sum": 0.25}``."""
        return {name: prefix.duration_s for name, prefix in self.state.prefixes.items() if prefix.duration_s >= 0}

    def story(self, *keys: Any) -> list[tuple[Any, str, str, str, float]]:
        """The known transitions of these keys: (key, start, finish, cause, time)."""
        return self.state.story.of(list(keys))

    def validate(self) -> None:
        """Raises InvariantError unless every invariant holds."""
        validate(self.state)

    def statistics(self) -> dict[str, Any]:
        """Totals, as plain data: constant time."""
        state = self.state
        return {
            "tasks": {STATE_NAMES[number]: state.counts[number] for number in range(FORGOTTEN)},
            "forgotten": state.counts[FORGOTTEN],
            "submitted": state.total_submitted,
            "finished": state.total_finished,
            "erred": state.total_erred,
            "workers": len(state.workers),
            "running": len(state.running),
            "idle": len(state.idle),
            "saturated": len(state.saturated),
            "clients": len(state.clients),
            "nthreads": state.total_nthreads,
            "nbytes": state.total_nbytes,
            "transitions": state.story.count,
        }

    # ------------------------------------------------------------------------------------------------ one turn

    def handle(self, events: list[Event], now: float) -> TurnResult:
        """Take in what happened since the last turn, in order. ``now`` is in seconds and never goes back.

        Linear in the size of the events. A party that breaks the protocol is removed; its event changes nothing.
        """
        state = self.state
        if now > state.now:
            state.now = now
        if state.started_at < 0:
            state.started_at = now
        out = Outbox()
        result = TurnResult()
        self.at = -1
        for event in events:
            self.at += 1
            state.story.begin(type(event.message).__name__, state.now)
            if event.record is not None and state.recorder is not None:
                state.recorder.add(event.record)
            try:
                self._take(event, out, result)
            except PeerProtocolError as error:
                result.closes.append((event.session, str(error)))
                result.offenders.append((event.session, str(error)))
                self._lose(event.session, True, out)
            self._settle_recommendations(out)
        self.at = -1
        if state.phase == HOLDING and restore.is_hold_over(state):
            restore.end_hold(state)
            self._settle_recommendations(out)
        if state.suspects:
            place_suspects(state, out)
        fill(state, out)
        self._settle_recommendations(out)
        if state.limits.work_stealing:
            balance(state, out)
        if state.limits.validate and state.phase != RESTORING:
            validate(state)
        if state.recorder is not None:
            result.records = state.recorder.take()
            result.late_drops = state.recorder.take_late_drops()
        state.shrink()
        result.sends = out.flush()
        return result

    def _settle_recommendations(self, out: Outbox) -> None:
        """Apply rules until none recommends anything more."""
        state = self.state
        at = 0
        while at < len(state.todo_tasks) or state.todo_last:
            if at == len(state.todo_tasks):
                for task in state.todo_last:
                    state.recommend(task, RELEASED)
                state.todo_last.clear()
            task = state.todo_tasks[at]
            finish = state.todo_finish[at]
            at += 1
            if task.state == finish:
                if finish == RELEASED:
                    to_released(state, task, out)
                continue
            if finish == PROCESSING:
                to_processing(state, task, out)
            elif finish == WAITING:
                to_waiting(state, task, out)
            elif finish == RELEASED:
                to_released(state, task, out)
            elif finish == FORGOTTEN:
                to_forgotten(state, task, out)
            elif finish == ERRED:
                to_erred(state, task, out)
            else:
                raise InvariantError(f"{task!r} cannot be recommended {STATE_NAMES[finish]}")
            if at > 65536:
                del state.todo_tasks[:at]
                del state.todo_finish[:at]
                at = 0
        state.todo_tasks.clear()
        state.todo_finish.clear()

    def _take(self, event: Event, out: Outbox, result: TurnResult) -> None:
        number = event.session
        worker = self.state.by_number.get(number)
        if worker is not None:
            worker.last_seen = self.state.now
            self._from_worker(worker, event, out, result)
            return
        client = self.state.clients_by_number.get(number)
        if client is not None:
            client.last_seen = self.state.now
            self._from_client(client, event, out, result)
            client.shrink()
            return
        self._from_nobody(event, out, result)

    def _from_worker(self, worker: WorkerState, event: Event, out: Outbox, result: TurnResult) -> None:
        state, message = self.state, event.message
        if type(message) is TasksFinished:
            reports.tasks_finished(state, worker, message, out)
        elif type(message) is ReplicasAdded:
            reports.replicas_added(state, worker, message.ids, out)
        elif type(message) is TasksStarted:
            reports.tasks_started(state, worker, message)
        elif type(message) is WorkerHeartbeat:
            worker.metrics = message.metrics
        elif type(message) is TasksErred:
            reports.tasks_erred(state, worker, message, out)
        elif type(message) is TasksTakenBack:
            reports.tasks_returned(state, worker, message)
            reports.take_back_refused(state, worker, message.kept)
            if message.ids:
                membership.go_on_emptying(state, worker, out)
        elif type(message) is TasksRescheduled:
            reports.tasks_rescheduled(state, worker, message)
        elif type(message) is TasksSeceded:
            reports.tasks_seceded(state, worker, message)
        elif type(message) is ReplicasMissing:
            reports.replicas_missing(state, worker, message, out)
        elif type(message) is ReplicasDropped:
            reports.replicas_dropped(state, worker, message.ids, out)
        elif type(message) is WorkerStatus:
            membership.set_worker_status(state, worker, message.status, out)
        elif type(message) is LeaveWorker:
            membership.remove_worker(state, worker, False, out)
            result.closes.append((worker.number, message.reason))
        elif type(message) is WorkerDeath:
            membership.remove_worker(state, worker, not message.planned, out, message)
        elif type(message) is ConnectionLost:
            reconnect.lose_worker(state, worker, message.blame, out)
        elif type(message) is RegisterWorker:
            reconnect.come_back(state, worker, message, self.scheduler_id, out)
        else:
            raise PeerProtocolError(f"a registered worker does not send {type(message).__name__}")

    def _from_client(self, client: ClientState, event: Event, out: Outbox, result: TurnResult) -> None:
        state, message = self.state, event.message
        if type(message) is SubmitTasks:
            graph.submit_tasks(state, client, message, event.frames, out)
        elif type(message) is Sent:
            reconnect.frame_came(client, message.sequence, message.urgent, out)
            if state.recorder is None:
                client.durable = message.sequence
                state.unacknowledged[client] = None
        elif type(message) is ReleaseKeys:
            wants.release_keys(state, client, message.ids)
        elif type(message) is DefineFunctions:
            graph.define_functions(state, client, message)
        elif type(message) is ForgetFunctions:
            membership.forget_functions(state, client, message.ids, out)
        elif type(message) is AttachKeys:
            wants.attach_keys(state, client, message, out)
        elif type(message) is CancelKeys:
            wants.cancel_keys(state, client, message, out)
        elif type(message) is RetryKeys:
            wants.retry_keys(state, client, message.ids, out)
        elif type(message) is KeysScattered:
            self._scatter(client, message, out)
        elif type(message) is PublishData:
            publishing.publish(state, client, message, out)
        elif type(message) is UnpublishData:
            publishing.unpublish(state, client, message, out)
        elif type(message) is FireAndForget:
            wants.fire_and_forget(state, client, message.ids, out)
        elif type(message) is ClientHeartbeat:
            pass
        elif type(message) is ConnectionLost:
            reconnect.lose_client(state, client, message.blame, out)
        elif type(message) is RegisterClient:
            reconnect.return_client(state, client, message, self.scheduler_id, out)
        elif type(message) is ConfirmKeys:
            reconnect.confirm_keys(state, client, message.ids, message.erred, out)
        elif type(message) is ReattachKeys:
            reconcile.reattach_keys(state, client, message, out)
        elif type(message) is LeaveClient:
            membership.remove_client(state, client, out)
            result.closes.append((client.number, "the client left"))
        else:
            raise PeerProtocolError(f"a registered client does not send {type(message).__name__}")

    def _from_nobody(self, event: Event, out: Outbox, result: TurnResult) -> None:
        state, message = self.state, event.message
        if type(message) is RegisterWorker:
            if not reconnect.arrive(state, event.session, message, self.scheduler_id, out):
                result.closes.append((event.session, "refused"))
        elif type(message) is RegisterClient:
            membership.add_client(state, event.session, message, self.scheduler_id, out)
        elif type(message) is Tick:
            reconnect.look_at_clock(state, out)
            if state.under_replicated and len(state.running) > 1:
                replicas.keep_more(state, out)
            self._tick()
        elif type(message) is Forget:
            membership.clear(state, message.reason, out)
        elif type(message) is ReplicateKeys:
            worker = state.by_number.get(message.recipient)
            if worker is not None:
                replicas.order_replicas(state, worker, self._still_known(message.ids), out)
        elif type(message) is DropReplicas:
            worker = state.by_number.get(message.holder)
            if worker is not None:
                replicas.drop_replicas_at(state, worker, self._still_known(message.ids), out)
        elif type(message) is Retire:
            self._retire(message, out)
        elif type(message) is FramesDurable:
            reconnect.frames_durable(state, message.clients, message.sequences, self.scheduler_id, out)
        elif type(message) is JournalRead:
            restore.end_of_restoring(state, message.first_attempt)
        elif state.phase == RESTORING and restore.restore(state, message, event.frames, out):
            pass
        elif type(message) is ConnectionLost or type(message) is Sent:
            # A client's farewell is behind it in the same frame.
            pass
        elif any([number == event.session for number, _reason in result.closes]):
            # What it had said behind its registration, which was refused.
            pass
        else:
            raise PeerProtocolError(f"{type(message).__name__} came from a party that has not registered, or has left")

    def _lose(self, number: int, blame: bool, out: Outbox) -> None:
        worker = self.state.by_number.get(number)
        if worker is not None:
            membership.remove_worker(self.state, worker, blame, out)
        client = self.state.clients_by_number.get(number)
        if client is not None:
            membership.remove_client(self.state, client, out)

    def _scatter(self, client: ClientState, message: KeysScattered, out: Outbox) -> None:
        state = self.state
        wants.check_scatter(state, client, message)
        tasks: list[TaskState] = []
        for id, wire in zip(message.ids, message.keys, strict=True):
            key = key_from_wire(wire)
            task = state.tasks.get(key)
            if task is None:
                group = graph.get_group(state, group_of(key), key)
                task = TaskState(id, key, group, (0.0, state.generation, 0))
                graph.add_task(state, task)
            tasks.append(task)
        wants.scatter_keys(state, client, message, tasks, out)
        for task in tasks:
            if not task.has_recipe:
                replicas.keep_enough(state, task, out)

    def _retire(self, message: Retire, out: Outbox) -> None:
        state = self.state
        for number in message.numbers:
            worker = state.by_number.get(number)
            if worker is not None and message.retiring:
                membership.retire(state, worker, out)
            elif worker is not None:
                membership.stay(state, worker)

    def _still_known(self, ids: list[int]) -> list[TaskState]:
        """The tasks of an order of the shell, without those that are gone meanwhile."""
        tasks: list[TaskState] = []
        for id in ids:
            task = self.state.by_id.get(id)
            if task is not None:
                tasks.append(task)
        return tasks

    def _tick(self) -> None:
        """Time has passed: tasks that waited too long for a worker fail."""
        state = self.state
        limit = state.limits.no_workers_timeout_s
        if limit is None:
            return
        # Oldest first: the look stops at the first that has time left. They leave when the recommendation is followed.
        for task, since in state.placeable.since.items():
            waited = state.now - since
            if waited < limit:
                break
            if is_restricted(task) and state.running:
                options = task.options
                assert options is not None
                wish = f"workers {options.workers}, resources {options.resources}"
                task.error = own_error(NoValidWorkerError(task.key, wish, round(waited, 3)))
            else:
                task.error = own_error(NoWorkerError(task.key, round(waited, 3)))
            task.blame = task
            state.recommend(task, ERRED)
