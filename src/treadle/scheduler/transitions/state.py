"""What the scheduler knows: indices and totals of the cluster. Data only; rules change it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from treadle.exceptions import Death
from treadle.scheduler.transitions.outbox import Outbox
from treadle.scheduler.transitions.placeable import Placeable
from treadle.scheduler.transitions.queue import TaskQueue, TurnClock
from treadle.scheduler.transitions.recorder import Recorder
from treadle.scheduler.transitions.records import (
    Account,
    Candidates,
    ClientState,
    FunctionState,
    Orphan,
    Published,
    TaskGroup,
    TaskPrefix,
    TaskState,
    WorkerState,
)
from treadle.scheduler.transitions.shrinking import HighWater
from treadle.scheduler.transitions.story import Story

#: Keeps tasks alive that no client wants: see the message FireAndForget.
FIRE_AND_FORGET = "fire-and-forget"

#: Phases of a scheduler. RESTORING: records of another one are being told, and invariants need not hold between them.
#: HOLDING: workers of another one are still to come back; until then, at the latest, nothing is assigned.
STEADY: Final = 0
RESTORING: Final = 1
HOLDING: Final = 2


class Limits:
    """What the core goes by; see the config keys of the same names. Seconds and bytes."""

    def __init__(
        self,
        *,
        allowed_failures: int = 3,
        bandwidth_bytes_per_s: float = 100e6,
        no_workers_timeout_s: float | None = None,
        work_stealing: bool = True,
        worker_saturation: float = 1.1,
        prefetch_time_s: float = 0.01,
        prefetch_limit: int = 500,
        unknown_task_duration_s: float = 0.5,
        default_task_durations_s: dict[str, float] | None = None,
        client_weights: dict[str, float] | None = None,
        validate: bool = False,
        scatter_replicas: int = 1,
        scatter_replica_limit_bytes: int = 2**26,
        worker_grace_s: float = 0.0,
        client_grace_s: float = 0.0,
        recovery_grace_s: float = 0.0,
    ) -> None:
        self.allowed_failures: int = allowed_failures
        self.bandwidth_bytes_per_s: float = bandwidth_bytes_per_s
        self.no_workers_timeout_s: float | None = no_workers_timeout_s
        self.work_stealing: bool = work_stealing
        self.worker_saturation: float = worker_saturation
        self.prefetch_time_s: float = prefetch_time_s
        self.prefetch_limit: int = prefetch_limit
        self.unknown_task_duration_s: float = unknown_task_duration_s
        self.default_task_durations_s: dict[str, float] = dict(default_task_durations_s or {})
        #: By the name that the user gave a client; 1.0 for others.
        self.client_weights: dict[str, float] = dict(client_weights or {})
        self.validate: bool = validate
        self.scatter_replicas: int = scatter_replicas
        self.scatter_replica_limit_bytes: int = scatter_replica_limit_bytes
        #: How long a party whose stream broke may stay away.
        self.worker_grace_s: float = worker_grace_s
        self.client_grace_s: float = client_grace_s
        #: How long what parties bring that knew another scheduler waits for others that know of it.
        self.recovery_grace_s: float = recovery_grace_s


class RecoveryHook:
    """What the steady path asks where an earlier scheduler may have left something: see ``recovery.orphans.Leftovers``.

    This one knows of nothing.
    """

    def claim(self, state: ClusterState, task: TaskState, last_chance: bool, out: Outbox) -> bool:
        """``task`` is needed. Whether a worker has brought its value, or executes it and goes on with that.

        ``last_chance``: it is about to be assigned.
        """
        return False

    def is_awaited(self, state: ClusterState, task: TaskState, out: Outbox) -> bool:
        """``task`` is needed and has no recipe. Whether a worker may yet bring its value, and the task waits for that."""
        return False

    def may_come(self, state: ClusterState, client: ClientState, task: TaskState, out: Outbox) -> bool:
        """The same, of a value that the client has put on workers that are not known."""
        return False

    def finished(self, worker: WorkerState, id: int, nbytes: int, type_name: str) -> bool:
        """``worker`` has finished something that it was not asked for. Whether it shall keep the value."""
        return False

    def ended(self, state: ClusterState, worker: WorkerState, id: int) -> None:
        """``worker`` is done with something that it was not asked for, and has no value to show for it."""

    def worker_gone(self, state: ClusterState, worker: WorkerState) -> None:
        """With what it had brought."""

    def forget_all(self, state: ClusterState, out: Outbox) -> None:
        """Nobody wants anything any more."""


class ClusterState:
    """The one consistent view that all clients share."""

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self.now: float = 0.0
        self.tasks: dict[Any, TaskState] = {}
        #: Attempts at new tasks are numbered above it: workers may have brought, or bring, others of an earlier scheduler.
        self.first_attempt: int = 0
        self.by_id: dict[int, TaskState] = {}
        self.most_tasks: HighWater = HighWater()
        self.functions: dict[int, FunctionState] = {}
        self.groups: dict[str, TaskGroup] = {}
        self.prefixes: dict[str, TaskPrefix] = {}
        #: Queued tasks that any worker may run.
        #: Of tasks that no client has submitted to this scheduler.
        self.no_account: Account = Account("nobody", 1.0)
        self.turn_clock: TurnClock = TurnClock()
        self.queue: TaskQueue = TaskQueue(self.turn_clock)
        #: Those who may run restricted tasks, by their wishes, the eldest first; and by what a worker must have to be among them:
        #: ("worker", name, address or host) or ("resource", name).
        self.candidates: dict[Any, Candidates] = {}
        self.candidates_by_wish: dict[tuple[str, str], dict[Candidates, None]] = {}
        #: Queued tasks that only these may run; no queue is empty.
        self.queues: dict[Candidates, TaskQueue] = {}
        #: Those of them that a worker may have room for in this turn.
        self.to_serve: dict[Candidates, None] = {}
        #: Tasks in state NO_WORKER and since when, oldest first.
        self.unrunnable: dict[TaskState, float] = {}
        #: Those of them that a worker could run which may come: all but the awaited ones.
        self.placeable: Placeable = Placeable()

        #: By address; and by number, name, host and the nanny that watches it.
        self.workers: dict[str, WorkerState] = {}
        self.by_number: dict[int, WorkerState] = {}
        self.by_name: dict[str, WorkerState] = {}
        self.by_host: dict[str, dict[WorkerState, None]] = {}
        self.by_nanny: dict[str, dict[WorkerState, None]] = {}
        #: By ids that they had before their value was scattered; and the reverse.
        self.renamed: dict[int, TaskState] = {}
        self.former_ids: dict[TaskState, list[int]] = {}
        #: Numbers that workers had before they were given up, or at an earlier scheduler, and have now.
        self.former_numbers: dict[int, int] = {}
        #: By the id that the worker gave itself.
        self.by_worker_id: dict[str, WorkerState] = {}
        #: resource -> workers that have some.
        self.by_resource: dict[str, dict[WorkerState, None]] = {}
        #: Workers that take new tasks.
        self.running: dict[WorkerState, None] = {}
        #: Running workers with a thread to spare.
        self.idle: dict[WorkerState, None] = {}
        #: Running workers with more tasks than threads, and more work than the prefetch asks for.
        self.saturated: dict[WorkerState, None] = {}
        #: Running workers that may be sent queued tasks.
        self.has_capacity: dict[WorkerState, None] = {}
        self.touched: list[WorkerState] = []
        #: Where the last of the very short tasks went, that others may follow; it may have left.
        self.gathering_at: WorkerState | None = None

        self.clients: dict[str, ClientState] = {}
        self.clients_by_number: dict[int, ClientState] = {}
        #: Not among ``clients``: nobody is told anything on its behalf.
        self.fire_and_forget: ClientState = ClientState(0, FIRE_AND_FORGET, {})
        #: Datasets by name, oldest first.
        self.published: dict[Any, Published] = {}

        #: Threads and memory of all workers; tasks ever submitted, finished and erred; bytes in memory, copies counted.
        self.total_nthreads: int = 0
        self.total_memory_limit: int = 0
        self.total_submitted: int = 0
        self.total_finished: int = 0
        self.total_erred: int = 0
        self.total_nbytes: int = 0
        self.generation: float = 0.0
        #: Number of tasks in each state, by state number; forgotten ones are counted on.
        self.counts: list[int] = [0, 0, 0, 0, 0, 0, 0, 0]

        #: Parties that are not connected and may come back, the one away longest first.
        self.absent_workers: dict[WorkerState, None] = {}
        self.absent_clients: dict[ClientState, None] = {}
        #: Clients that have perhaps not been told of all their frames that these are here.
        self.unacknowledged: dict[ClientState, None] = {}
        #: All entries of WorkerState.announced, oldest first: (when, worker, task).
        self.announcements: deque[tuple[float, WorkerState, TaskState]] = deque()
        #: What workers brought that nobody knows, by key, and until when it is kept.
        self.orphans: dict[Any, dict[Orphan, None]] = {}
        self.orphans_until: float = 0.0
        #: Tasks that clients want from before, in state NO_WORKER and without a recipe: until when a worker may bring the value.
        self.awaited: dict[TaskState, float] = {}
        #: When the first event came; negative before.
        self.started_at: float = -1.0

        #: What must outlive the scheduler; None where there is no journal.
        self.recorder: Recorder | None = None
        self.phase: int = STEADY
        #: When HOLDING is over, whoever is back by then.
        self.hold_until: float = 0.0
        self.recovery: RecoveryHook = RecoveryHook()
        #: There were parties in the journal: they may bring what the scheduler before did not live to write down.
        self.is_successor: bool = False

        #: How the workers died that were executing a task; keys are the tasks with ``suspicious`` > 0.
        self.deaths: dict[TaskState, list[Death]] = {}
        #: Suspects in state QUEUED, oldest first, and the worker that each will have for itself; see ``quarantine``.
        self.suspects: dict[TaskState, WorkerState | None] = {}
        #: Workers that a suspect has for itself, or will have when they are empty. They are not among ``running``.
        self.reserved: dict[WorkerState, TaskState] = {}
        #: Tasks that asked to run elsewhere than on that worker, until they are placed.
        self.avoided: dict[TaskState, WorkerState] = {}
        #: Copies that were ordered and have not come: who fetches them.
        self.replicating: dict[TaskState, list[WorkerState]] = {}
        #: How many workers have left, and how often one was found not to have a value any more: who makes copies looks again.
        self.departures: int = 0
        self.replicas_lost: int = 0
        #: Scattered values that have fewer copies than they should, for want of workers.
        self.under_replicated: dict[TaskState, None] = {}
        #: To be added to ``now`` for the seconds since the epoch.
        self.clock_offset_s: float = 0.0

        self.story: Story = Story()
        #: Recommendations: what is still to do in this turn, in order.
        self.todo_tasks: list[TaskState] = []
        self.todo_finish: list[int] = []
        #: What is to be released if nobody needs it when nothing else is left to do in this event.
        self.todo_last: list[TaskState] = []

    def shrink(self) -> None:
        """Once a turn."""
        if self.most_tasks.has_fallen(len(self.tasks)):
            self.tasks = dict(self.tasks)
            self.by_id = dict(self.by_id)

    def known(self, id: int) -> TaskState | None:
        """The task of that id, also when it has taken another one since."""
        task = self.by_id.get(id)
        if task is None and self.renamed:
            task = self.renamed.get(id)
        return task

    def rename(self, id: int, task: TaskState) -> None:
        """``task`` was called ``id`` before."""
        self.renamed[id] = task
        self.former_ids.setdefault(task, []).append(id)

    def recommend(self, task: TaskState, finish: int) -> None:
        """``task`` should come to the state ``finish``; the rule looks again whether that is still so."""
        self.todo_tasks.append(task)
        self.todo_finish.append(finish)

    def touch(self, worker: WorkerState) -> None:
        """Its load has changed."""
        if not worker.touched:
            worker.touched = True
            self.touched.append(worker)
