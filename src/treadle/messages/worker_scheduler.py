"""Worker and scheduler: assignments, and reports of what became of them.

Every assignment of a task to a worker has an attempt number, unique for the task. A report of any other than the current
attempt is stale: the scheduler drops the report, and tells the worker to drop the value.

Reconnection: a worker whose stream broke registers again with an ``Inventory`` of what it has. The scheduler compares it with
its own state and sends the difference: assignments that never arrived, keys to drop, holders that changed.
"""

from __future__ import annotations

from treadle.messages.base import (
    Amount,
    Count,
    Finite,
    FunctionRan,
    Heartbeat,
    Holders,
    Id,
    Message,
    Peers,
    PeersGone,
    Rank,
    Refused,
    RunFunction,
    TaskError,
    TaskOptions,
    WireKey,
    WorkerIdentity,
)

# --------------------------------------------------------------------------------------- scheduler -> worker


class WorkerWelcome(Message, tag=1):
    """Answer to ``RegisterWorker``."""

    number: Id
    scheduler_id: str
    #: Whether the scheduler knew the worker.
    known: bool = False


class LearnFunctions(Message, tag=2):
    """Functions, pickled, by id. Sent once to each worker, before the first task that names them."""

    ids: list[Id]
    bodies: list[bytes]


class UnlearnFunctions(Message, tag=3):
    """No further task will name these functions."""

    ids: list[Id]


class ComputeTasks(Message, tag=4):
    """Run these tasks: columns with one row per task. See ``SubmitTasks`` for functions, payloads and buffers."""

    ids: list[Id]
    keys: list[WireKey]
    attempts: list[Count]
    functions: list[Id]
    payloads: list[bytes]
    #: (minus the user's priority, generation, rank): smaller runs first.
    priorities: list[tuple[Finite, Finite, Rank]]
    #: The ids that each row depends on; None when no row has any.
    dependencies: list[list[Id]] | None = None
    #: The holders of each dependency in this message, once. The worker itself may be among them.
    holders: list[Holders] | None = None
    row_options: list[tuple[Count, TaskOptions]] | None = None
    buffers: list[tuple[Count, Count]] | None = None
    #: Rows whose value, if it is small, is to come with ``TasksFinished``.
    eager: list[Id] | None = None


class DropKeys(Message, tag=5):
    """Forget these tasks: free the value, do not start a task that is waiting, ignore the result of one that is executing.

    ``unconfirmed``: ids of values that the worker may have although the scheduler does not count on them, because a report may be
    on its way. For those that it had, and for values that it has announced more than once, the worker answers ``ReplicasDropped``.
    There is no other answer.
    """

    ids: list[Id]
    unconfirmed: list[Id] | None = None


class TakeBack(Message, tag=6):
    """Give these tasks back if they have not started. Answered by ``TasksTakenBack``."""

    ids: list[Id]
    attempts: list[Count]


class HoldersChanged(Message, tag=7):
    """The answer to ``ReplicasMissing``: where the values are now."""

    holders: list[Holders]


class FetchReplicas(Message, tag=8):
    """Fetch these values and keep a replica of each. Reported by ``ReplicasAdded``."""

    holders: list[Holders]


class WorkerRun(RunFunction, tag=9):
    """See RunFunction."""


class CloseWorker(Message, tag=10):
    """Stop the worker. ``restart``: its nanny starts another one."""

    reason: str
    restart: bool = False


class WorkerPeers(Peers, tag=11):
    """See Peers."""


class WorkerPeersGone(PeersGone, tag=12):
    """See PeersGone."""


class WorkerRefused(Refused, tag=13):
    """The scheduler does not accept this worker; ``request`` is 0. The worker logs the reason and closes."""


class KeysRenumbered(Message, tag=14):
    """These values of the worker have the ids ``canonical`` from now on (columns of the same length)."""

    ids: list[Id]
    canonical: list[Id]


# --------------------------------------------------------------------------------------- worker -> scheduler


class TaskErred(Message):
    """A row of ``TasksErred``: how an attempt failed."""

    id: Id
    attempt: Count
    error: TaskError
    start: Amount
    stop: Amount


class Inventory(Message):
    """What a worker has when it comes back. Columns with one row per task."""

    #: The values that it holds; ``types`` are indices into ``type_names``.
    ids: list[Id]
    keys: list[WireKey]
    nbytes: list[Count]
    types: list[Count]
    type_names: list[str]
    #: Values that clients handed over a moment ago, whether the worker still has them or not: the clients' reports may be on their way.
    fresh: list[Id]
    #: Assignments that are not finished. ``stages``: 0 not started, 1 executing, 2 left the thread pool.
    assigned: list[Id]
    assigned_keys: list[WireKey]
    attempts: list[Count]
    stages: list[Count]
    #: Recent failures, whose reports may have been lost.
    erred: list[TaskErred]
    #: Values that it is waiting for from other workers.
    fetching: list[Id]
    #: The functions and the workers' numbers that it knows.
    functions: list[Id]
    peers: list[Id]
    status: str
    #: The number that it had until now, and the last ones that it had before: clients may know them.
    number: Id = 0
    former: list[Id] | None = None


class ExplainTask(Message, tag=15):
    """Where does the task ``id`` stand on the worker, and what does it wait for? Answered by ``TaskExplained``."""

    request: Id
    id: Id


class RegisterWorker(Message, tag=64):
    """First message of a worker on each connection."""

    identity: WorkerIdentity
    #: None for a new worker, which has nothing.
    inventory: Inventory | None = None


class TasksFinished(Message, tag=65):
    """Columns with one row per task. The values are stored on the worker; ``types`` are indices into ``type_names``.

    ``values``: pickles of small values of eager rows, empty for all other rows. The scheduler passes them on and keeps none.
    """

    ids: list[Id]
    attempts: list[Count]
    nbytes: list[Count]
    types: list[Count]
    type_names: list[str]
    #: Wall-clock start and stop of the computation, seconds since the epoch.
    starts: list[Amount]
    stops: list[Amount]
    values: list[bytes] | None = None


class TasksErred(Message, tag=66):
    """These tasks raised, or their specification could not be unpickled, or their result not pickled."""

    tasks: list[TaskErred]


class TasksRescheduled(Message, tag=67):
    """These tasks raised ``Reschedule``: run them elsewhere."""

    ids: list[Id]
    attempts: list[Count]


class TasksStarted(Message, tag=68):
    """These tasks have been executing for a moment. Short tasks finish without this message.

    Tasks that a worker was executing when it died are blamed for its death.
    """

    ids: list[Id]
    attempts: list[Count]


class TasksSeceded(Message, tag=69):
    """These tasks left the thread pool, and other tasks may take their places in it."""

    ids: list[Id]
    attempts: list[Count]


class TasksTakenBack(Message, tag=70):
    """Answer to ``TakeBack``: ``ids`` are given back; ``kept`` have started or finished already, or are unknown."""

    ids: list[Id]
    attempts: list[Count]
    kept: list[Id]


class ReplicasAdded(Message, tag=71):
    """The worker has replicas of these."""

    ids: list[Id]


class ReplicasDropped(Message, tag=72):
    """The worker no longer has these values."""

    ids: list[Id]


class ReplicasMissing(Message, tag=73):
    """These values could not be fetched from these holders (columns of the same length). The worker waits for ``HoldersChanged``
    or ``DropKeys``."""

    ids: list[Id]
    holders: list[Id]


class WorkerHeartbeat(Heartbeat, tag=74):
    """See Heartbeat. Metrics: ``memory`` (bytes), ``cpu`` (percent), ``executing``, ``ready``, ``in_memory``."""


class WorkerStatus(Message, tag=75):
    """``status``: ``running`` or ``paused`` (the worker gets no new tasks)."""

    status: str


class LeaveWorker(Message, tag=76):
    """Last message of a worker that stops on purpose; no task is blamed."""

    reason: str


class WorkerRan(FunctionRan, tag=77):
    """See FunctionRan."""


class LeaveGracefully(Message, tag=78):
    """The worker wants to leave: it finishes what it executes, others take its values, then the scheduler sends ``CloseWorker``."""

    restart: bool = False


class TaskExplained(Message, tag=79):
    """Where a task stands on this worker. ``executing_s``: seconds, None unless it executes. ``reasons``: sentences for people."""

    request: Id
    #: The name of its state, or ``"unknown"`` if the worker does not know the task.
    state: str
    #: None if the worker has no attempt of the task.
    attempt: Id | None
    executing_s: Amount | None
    reasons: list[str]


SchedulerToWorker = (
    WorkerWelcome
    | LearnFunctions
    | UnlearnFunctions
    | ComputeTasks
    | DropKeys
    | TakeBack
    | HoldersChanged
    | FetchReplicas
    | WorkerRun
    | CloseWorker
    | WorkerPeers
    | WorkerPeersGone
    | WorkerRefused
    | KeysRenumbered
    | ExplainTask
)
WorkerToScheduler = (
    RegisterWorker
    | TasksFinished
    | TasksErred
    | TasksRescheduled
    | TasksStarted
    | TasksSeceded
    | TasksTakenBack
    | ReplicasAdded
    | ReplicasDropped
    | ReplicasMissing
    | WorkerHeartbeat
    | WorkerStatus
    | LeaveWorker
    | WorkerRan
    | LeaveGracefully
    | TaskExplained
)
