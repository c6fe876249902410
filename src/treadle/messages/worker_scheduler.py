"""Worker and scheduler: assignments, and reports of what became of them.

Every assignment of a task to a worker has an attempt number, unique for the task. A report of an attempt that is not
the current one is stale: the scheduler drops it (and tells the worker to drop the value).

Reconnection: a worker whose stream broke registers again and says what it has (``Inventory``). The scheduler compares that with
what it knows, and sends what follows: assignments that never arrived, keys to drop, holders that changed.
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
    #: The scheduler knew the worker.
    known: bool = False


class LearnFunctions(Message, tag=2):
    """Functions, pickled, by id; sent once to each worker, before the first task that names them."""

    ids: list[Id]
    bodies: list[bytes]


class UnlearnFunctions(Message, tag=3):
    """No task of these functions will come any more."""

    ids: list[Id]


class ComputeTasks(Message, tag=4):
    """Run these: columns, a row a task. See ``SubmitTasks`` for functions, payloads and buffers."""

    ids: list[Id]
    keys: list[WireKey]
    attempts: list[Count]
    functions: list[Id]
    payloads: list[bytes]
    #: (minus the user's priority, generation, rank): smaller runs first.
    priorities: list[tuple[Finite, Finite, Rank]]
    #: Ids each row depends on; None when no row has any.
    dependencies: list[list[Id]] | None = None
    #: Each dependency of this message once. The worker itself may be among the holders.
    holders: list[Holders] | None = None
    row_options: list[tuple[Count, TaskOptions]] | None = None
    buffers: list[tuple[Count, Count]] | None = None
    #: Rows whose value, when it is small, shall be in ``TasksFinished``, too.
    eager: list[Id] | None = None


class DropKeys(Message, tag=5):
    """Forget these: free the value, abandon what has not started, ignore the result of what has.

    A value may be there that the scheduler does not count on, and the news of it be on its way: of those in ``unconfirmed``
    that were there, the worker says so by ``ReplicasDropped``. So it does of values that it has announced more than once.
    There is no other answer.
    """

    ids: list[Id]
    unconfirmed: list[Id] | None = None


class TakeBack(Message, tag=6):
    """Give these back if they have not started. Answered by ``TasksTakenBack``."""

    ids: list[Id]
    attempts: list[Count]


class HoldersChanged(Message, tag=7):
    """The answer to ``ReplicasMissing``: where the values are now."""

    holders: list[Holders]


class FetchReplicas(Message, tag=8):
    """Fetch and keep a copy of these. Reported by ``ReplicasAdded``."""

    holders: list[Holders]


class WorkerRun(RunFunction, tag=9):
    """See RunFunction."""


class CloseWorker(Message, tag=10):
    """Stop. ``restart``: the nanny shall start another one."""

    reason: str
    restart: bool = False


class WorkerPeers(Peers, tag=11):
    """See Peers."""


class WorkerPeersGone(PeersGone, tag=12):
    """See PeersGone."""


class WorkerRefused(Refused, tag=13):
    """The scheduler does not take this worker; request is 0. The worker closes and says why."""


class KeysRenumbered(Message, tag=14):
    """These values of the worker have other ids from here on (same length)."""

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
    """What a worker has when it comes back. Keys and types in columns, a row a task."""

    #: Values it holds; ``types`` index into ``type_names``.
    ids: list[Id]
    keys: list[WireKey]
    nbytes: list[Count]
    types: list[Count]
    type_names: list[str]
    #: What was handed over by clients a moment ago, if it is here still or not: their news of it may be on its way.
    fresh: list[Id]
    #: Assignments that are not finished, and how far they are: 0 not started, 1 executing, 2 left the thread pool.
    assigned: list[Id]
    assigned_keys: list[WireKey]
    attempts: list[Count]
    stages: list[Count]
    #: Failures of late, whose reports may have been lost.
    erred: list[TaskErred]
    #: Values that it waits for from others.
    fetching: list[Id]
    #: Functions, and numbers of workers, that it was told of.
    functions: list[Id]
    peers: list[Id]
    status: str
    #: Its own number before: clients may have been told that. And the ones that it had before that one, the last of them.
    number: Id = 0
    former: list[Id] | None = None


class ExplainTask(Message, tag=15):
    """What does the worker know of the task ``id``, and what does it wait for there? Answered by ``TaskExplained``."""

    request: Id
    id: Id


class RegisterWorker(Message, tag=64):
    """First message of a worker, on every connection that it makes."""

    identity: WorkerIdentity
    #: None: it is new, and has nothing.
    inventory: Inventory | None = None


class TasksFinished(Message, tag=65):
    """Columns, a row a task. The value is stored on the worker; ``types`` index into ``type_names``.

    ``values``: pickles of small values of eager rows, empty for all others. The scheduler passes them on and keeps none.
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
    """These raised, or their result or specification could not be (un)pickled."""

    tasks: list[TaskErred]


class TasksRescheduled(Message, tag=67):
    """These raised ``Reschedule``: run them elsewhere."""

    ids: list[Id]
    attempts: list[Count]


class TasksStarted(Message, tag=68):
    """These are executing, and have been for a moment. Short tasks finish without it.

    What a dead worker was executing last is what is blamed for its death.
    """

    ids: list[Id]
    attempts: list[Count]


class TasksSeceded(Message, tag=69):
    """These left the thread pool; their threads' places are free again."""

    ids: list[Id]
    attempts: list[Count]


class TasksTakenBack(Message, tag=70):
    """Answer to ``TakeBack``: given back, or started (or finished) already, or not known."""

    ids: list[Id]
    attempts: list[Count]
    kept: list[Id]


class ReplicasAdded(Message, tag=71):
    """The worker fetched copies of these."""

    ids: list[Id]


class ReplicasDropped(Message, tag=72):
    """The worker no longer has these, of its own accord."""

    ids: list[Id]


class ReplicasMissing(Message, tag=73):
    """These could not be had from those holders (same length). The worker waits for ``HoldersChanged`` or ``DropKeys``."""

    ids: list[Id]
    holders: list[Id]


class WorkerHeartbeat(Heartbeat, tag=74):
    """See Heartbeat. Metrics: ``memory`` (bytes), ``cpu`` (percent), ``executing``, ``ready``, ``in_memory``."""


class WorkerStatus(Message, tag=75):
    """``running`` or ``paused`` (gets no new tasks)."""

    status: str


class LeaveWorker(Message, tag=76):
    """Last message of a worker that stops on purpose; nobody is blamed."""

    reason: str


class WorkerRan(FunctionRan, tag=77):
    """See FunctionRan."""


class LeaveGracefully(Message, tag=78):
    """The worker wants to leave: it finishes what it executes, its values go to others, then it is told to close (``CloseWorker``)."""

    restart: bool = False


class TaskExplained(Message, tag=79):
    """Where a task stands on this worker. ``executing_s``: None unless it executes. ``reasons``: in words, for people."""

    request: Id
    #: The name of its state, ``"executing"``, or ``"unknown"`` when the worker was not given it.
    state: str
    #: None: it was not made by one here.
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
