"""Records of the scheduler: tasks, workers, clients, functions, groups. Data with its invariants; no behaviour but to give memory back.

Small on purpose: a million tasks live here. Containers that most tasks never need are shared or absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import RegisterClient
from treadle.scheduler.transitions.shrinking import HighWater

RELEASED: Final = 0
WAITING: Final = 1
NO_WORKER: Final = 2
QUEUED: Final = 3
PROCESSING: Final = 4
MEMORY: Final = 5
ERRED: Final = 6
FORGOTTEN: Final = 7
STATE_NAMES: Final = ("released", "waiting", "no-worker", "queued", "processing", "memory", "erred", "forgotten")

RUNNING: Final = "running"
PAUSED: Final = "paused"
#: It leaves: its values go to others, and it gets nothing new.
RETIRING: Final = "closing_gracefully"

#: Phases of a client. HERE: it hears of its keys. AWAY: its stream is broken, and it may come back. RECALLING: it is back, says once
#: more what this scheduler may not have heard, and will then ask where all its keys stand.
HERE: Final = 0
AWAY: Final = 1
RECALLING: Final = 2

#: Whether a client was here before. RETURNED: what it says may be old. STRANGER: that too, and it may name what only an earlier
#: scheduler knew.
FIRST_TIME: Final = 0
RETURNED: Final = 1
STRANGER: Final = 2

#: How far an assignment is, as in ``Inventory.stages``.
NOT_RUNNING: Final = 0
EXECUTING: Final = 1
SECEDED: Final = 2


class TaskPrefix:
    """All tasks of one operation; what was learned about them."""

    def __init__(self, name: str, duration_s: float) -> None:
        self.name: str = name
        #: Moving average of the seconds one takes; negative until one has finished or the config says.
        self.duration_s: float = duration_s
        #: Groups of this name that have tasks.
        self.ngroups: int = 0
        #: It stands for several names, and nothing is learned by it.
        self.is_shared: bool = False

    def __repr__(self) -> str:
        return f"<TaskPrefix {self.name!r}>"


class TaskGroup:
    """All tasks of one operation of one submission, e.g. the chunks of an array."""

    def __init__(self, name: str, prefix: TaskPrefix) -> None:
        self.name: str = name
        self.prefix: TaskPrefix = prefix
        #: Tasks that are not forgotten.
        self.alive: int = 0
        #: Living groups that tasks of this one depend on; and the reverse.
        self.dependencies: dict[TaskGroup, None] = {}
        self.dependents: dict[TaskGroup, None] = {}

    def __repr__(self) -> str:
        return f"<TaskGroup {self.name!r}>"


class Candidates:
    """The workers that may run tasks with the same wishes, and how many such tasks wait for them."""

    def __init__(self, name: Any, workers: Any, resources: Any) -> None:
        #: (workers, resources), as in ClusterState.candidates.
        self.name: Any = name
        #: Addresses, names or hosts; None: whoever has the resources.
        self.workers: tuple[str, ...] | None = workers
        #: (name, amount), by name.
        self.resources: tuple[tuple[str, float], ...] = resources
        #: All that are known, whether they run or not; those of them that run; how many are kept for suspects.
        self.members: dict[WorkerState, None] = {}
        self.running: dict[WorkerState, None] = {}
        self.reserved: int = 0
        #: There have been many members: then those that run and may have room are known, and perhaps some that have none.
        self.is_large: bool = False
        self.has_room: dict[WorkerState, None] = {}
        #: Tasks in their queue, see ClusterState.queues.
        self.live: int = 0

    def __repr__(self) -> str:
        return f"<Candidates {self.name!r}>"


class Account:
    """Who tasks count for when clients take turns: a client, with all that its tasks submit from where they run."""

    def __init__(self, name: str, weight: float) -> None:
        self.name: str = name
        #: Seconds that count for one second of its tasks.
        self.rate: float = 1.0 / weight
        #: What its tasks have taken and what it has under way, seconds; and what it was given for the time in which it asked for nothing.
        self.used_s: float = 0.0

    def __repr__(self) -> str:
        return f"<Account {self.name!r}>"


class FunctionState:
    """A function's pickle, passed through unread. Lives while its client names it or a task needs it."""

    def __init__(self, id: int, name: str, body: bytes) -> None:
        self.id: int = id
        self.name: str = name
        self.body: bytes = body
        #: Tasks that are not forgotten and call it.
        self.ntasks: int = 0
        #: The client that defined it may name it again.
        self.held: bool = True
        #: Moving average of the seconds that a call takes; negative until one has finished.
        self.duration_s: float = -1.0
        #: Numbers of the workers that were sent the body.
        self.workers: dict[int, None] = {}


class ClientState:
    """A client, and what it wants."""

    def __init__(self, number: int, id: str, versions: dict[str, str]) -> None:
        self.number: int = number
        self.id: str = id
        self.versions: dict[str, str] = versions
        #: Who the tasks count for that it submits from outside of a task.
        self.account: Account = NO_ACCOUNT
        #: Reverse of TaskState.who_wants.
        self.wants_what: dict[TaskState, None] = {}
        self.most_wanted: HighWater = HighWater()
        #: Just itself: the ``who_wants`` of all that only this client wants.
        self.only_it: list[ClientState] = [self]
        #: This client's ids of tasks that have another id; and the reverse.
        self.aliases: dict[int, TaskState] = {}
        self.alias_ids: dict[TaskState, list[int]] = {}
        #: Rows whose dependents are still to arrive in later chunks of their submission, by the client's ids.
        self.expecting: dict[int, Expected] = {}
        self.functions: dict[int, FunctionState] = {}
        #: The submission under way, its generation, and when the last chunk came.
        self.submission: int = 0
        self.generation: float = 0.0
        self.submitted_at: float = -1e300
        #: Numbers of the workers whose addresses this client was told.
        self.met: set[int] = set()
        self.last_seen: float = 0.0
        #: HERE, AWAY or RECALLING; when it went AWAY; FIRST_TIME, RETURNED or STRANGER.
        self.phase: int = HERE
        self.disconnected_at: float = 0.0
        self.origin: int = FIRST_TIME
        #: Number of the last of its frames that is here, and of the last one that it was told is here.
        self.received: int = 0
        self.acknowledged: int = 0
        #: Number of the last one that may be acknowledged: it is on disk, where there is a journal.
        self.durable: int = 0
        #: While it is AWAY: its registration, which is answered when all that came from it before is on disk.
        self.registration: RegisterClient | None = None
        #: Its names of what was cancelled while it was not HERE, which it has not been told.
        self.cancelled_quietly: set[int] = set()

    def shrink(self) -> None:
        """When something came from it."""
        if self.most_wanted.has_fallen(len(self.wants_what)):
            self.wants_what = dict(self.wants_what)

    def __repr__(self) -> str:
        return f"<ClientState {self.id!r}>"


class Published:
    """A dataset: the pickled object, and who wants its keys, under its name."""

    def __init__(self, name: Any, body: bytes) -> None:
        self.name: Any = name
        self.body: bytes = body
        self.wants: ClientState = ClientState(0, f"published as {name!r}", {})


class Expected:
    """A row of a chunk, and how many rows of later chunks of that submission will depend on it.

    ``count`` is its share of TaskState.later_dependents; never 0.
    """

    def __init__(self, task: TaskState, submission: int, count: int) -> None:
        self.task: TaskState = task
        self.submission: int = submission
        self.count: int = count


class WorkerState:
    """A worker, what it holds and what it was given to do."""

    def __init__(self, number: int, identity: WorkerIdentity, former: list[int]) -> None:
        self.number: int = number
        self.identity: WorkerIdentity = identity
        #: Of its identity what the core asks for.
        self.id: str = identity.id
        self.address: str = identity.address
        self.name: str = identity.name
        self.host: str = identity.host
        self.nthreads: int = identity.nthreads
        self.memory_limit: int = identity.memory_limit
        self.resources: dict[str, float] = identity.resources
        self.pid: int = identity.pid
        self.nanny: str | None = identity.nanny
        #: Numbers that it had before: clients may know it by these.
        self.former: list[int] = former
        self.status: str = RUNNING
        #: Amounts of ``resources`` that tasks in ``processing`` ask for.
        self.used_resources: dict[str, float] = dict.fromkeys(identity.resources, 0.0)
        #: Tasks assigned here, oldest assignment first. Reverse of TaskState.processing_on.
        self.processing: dict[TaskState, None] = {}
        #: Subset of ``processing`` that the worker said is executing, and that left its thread pool.
        self.executing: dict[TaskState, None] = {}
        self.long_running: dict[TaskState, None] = {}
        #: Subset of ``processing`` that it was asked to give back.
        self.taking_back: dict[TaskState, None] = {}
        #: Sum of TaskState.estimate_s over ``processing`` without ``long_running``; seconds.
        self.occupancy: float = 0.0
        #: Reverse of TaskState.who_has, and the sum of their nbytes.
        self.has_what: dict[TaskState, None] = {}
        self.most_held: HighWater = HighWater()
        #: Just itself: the ``who_has`` of all that only this worker holds.
        self.only_it: list[WorkerState] = [self]
        self.nbytes: int = 0
        #: Tasks in ``has_what`` or ``processing`` that are actors.
        self.actors: dict[TaskState, None] = {}
        #: Reverse of Candidates.members. Subsets: the large ones; if it runs, the others that tasks wait for.
        self.candidates: dict[Candidates, None] = {}
        self.pooled: dict[Candidates, None] = {}
        self.waiting_lines: dict[Candidates, None] = {}
        #: Numbers of the workers whose addresses this one was told; and of the workers and clients that were told its own.
        self.met: set[int] = set()
        self.known_to: dict[int, None] = {}
        #: Functions that it was sent. Reverse of FunctionState.workers.
        self.functions: dict[FunctionState, None] = {}
        #: Copies that are under way to it. Reverse of ClusterState.replicating.
        self.receiving: dict[TaskState, None] = {}
        #: What it brought that nobody knows, by its ids. The same ones as in ClusterState.orphans.
        self.orphans: dict[int, Orphan] = {}
        #: While it is among ClusterState.reserved: since when.
        self.reserved_at: float = 0.0
        #: Its place among idle and saturated is to be looked at when the turn ends.
        self.touched: bool = False
        self.last_seen: float = 0.0
        #: False: its stream is broken, since then, and it may come back. It is not among the running ones and is sent nothing.
        self.connected: bool = True
        self.disconnected_at: float = 0.0
        #: It has said what it has: it was perhaps told to drop what a client says later to have put here.
        self.came_back: bool = False
        #: Values that clients said of late to have put here, and when: its inventory may be older than that.
        #: See ClusterState.announcements.
        self.announced: dict[TaskState, float] = {}
        self.metrics: dict[str, Any] = {}

    def shrink(self) -> None:
        """When its values may have become more or fewer."""
        if self.most_held.has_fallen(len(self.has_what)):
            self.has_what = dict(self.has_what)

    def __repr__(self) -> str:
        return f"<WorkerState {self.name!r} {self.address}>"


class Orphan:
    """What a worker that came back has of a key that nobody knows (yet): a value, or a task that it executes."""

    def __init__(self, worker: WorkerState, id: int) -> None:
        self.worker: WorkerState = worker
        #: The worker's id of it.
        self.id: int = id
        #: Where it stands among ClusterState.orphans.
        self.key: Any = None
        #: Of a value.
        self.nbytes: int = 0
        self.type_name: str = ""
        #: Of a value: a client put it there of late, and may still say so.
        self.is_fresh: bool = False
        #: Of a task that is executed; NOT_RUNNING: it is a value.
        self.stage: int = NOT_RUNNING
        self.attempt: int = 0


class TaskState:
    """A computation: how to do it, what it needs, who needs it, and where it stands."""

    def __init__(self, id: int, key: Any, group: TaskGroup, priority: tuple[float, float, int]) -> None:
        #: Unique in this scheduler, given by the client that came first with the key.
        self.id: int = id
        self.key: Any = key
        self.group: TaskGroup = group
        self.account: Account = NO_ACCOUNT
        #: (minus the user's priority, generation, rank): smaller runs first.
        self.priority: tuple[float, float, int] = priority
        self.state: int = RELEASED
        #: None together with ``payload`` None: data without a recipe (scattered).
        self.function: FunctionState | None = None
        self.payload: bytes | None = None
        #: Out-of-band buffers of the payload's pickle.
        self.buffers: list[Any] | None = None
        self.options: TaskOptions | None = None
        #: The workers that it is placed among since it became ready the last time; None: any.
        self.candidates: Candidates | None = None
        #: The TaskQueue that it is in, if any. Entries for it elsewhere are left over.
        self.queue: object = None
        #: Of what it computes, where its key does not say all of that; empty for other keys, and where it is not known.
        self.digest: bytes = b""
        #: A client wants a small value along with the news that it is there.
        self.eager: bool = False
        #: Somewhere behind it is data without a recipe: when that is gone, it cannot be computed again either.
        self.from_data: bool = False
        #: What it needs; shared empty list when nothing.
        self.dependencies: list[TaskState] = NO_TASKS
        #: What needs it; may contain forgotten tasks, ``live_dependents`` counts the others.
        self.dependents: list[TaskState] = NO_TASKS
        self.live_dependents: int = 0
        #: While WAITING: the number of dependencies that are not in memory. Otherwise of no interest.
        self.waiting_on: int = 0
        #: Dependents that are WAITING, NO_WORKER, QUEUED or PROCESSING.
        self.waiters: int = 0
        #: Dependents that later chunks of its submission will bring.
        self.later_dependents: int = 0
        #: Clients that want it; reverse of ClientState.wants_what. Lists of one are shared, and never changed.
        self.who_wants: list[ClientState] = NO_CLIENTS
        #: Workers that hold the value; non-empty iff state is MEMORY; reverse of WorkerState.has_what. Lists of one are shared, too.
        self.who_has: list[WorkerState] = NO_WORKERS
        #: Set iff state is PROCESSING.
        self.processing_on: WorkerState | None = None
        #: Grows with every assignment; reports of another attempt are stale.
        self.attempt: int = 0
        #: Seconds that it counts for in the occupancy of ``processing_on``.
        self.estimate_s: float = 0.0
        self.retries: int = 0
        #: Workers that died while executing it.
        self.suspicious: int = 0
        #: Size of the value in bytes; negative until known.
        self.nbytes: int = -1
        self.type_name: str = ""
        #: While ERRED: why, and the task that raised (itself or a dependency at any depth).
        self.error: TaskError | None = None
        self.blame: TaskState | None = None

    @property
    def has_recipe(self) -> bool:
        return self.payload is not None

    @property
    def actor(self) -> bool:
        return self.options is not None and self.options.actor

    def __repr__(self) -> str:
        return f"<TaskState {self.key!r} {STATE_NAMES[self.state]}>"


#: Shared by all that have none. Never changed: adding to a list makes a new one first (see ``added``).
NO_TASKS: Final[list[TaskState]] = []
NO_CLIENTS: Final[list[ClientState]] = []
NO_WORKERS: Final[list[WorkerState]] = []
#: Not set yet.
NO_ACCOUNT: Final = Account("nobody", 1.0)


def is_needed(task: TaskState) -> bool:
    """Whether anybody waits for the value: a client, a dependent, or one that is still to arrive."""
    return len(task.who_wants) > 0 or task.waiters > 0 or task.later_dependents > 0


def is_active(state: int) -> bool:
    """Whether a task in that state keeps its dependencies needed."""
    return WAITING <= state <= PROCESSING


def names(tasks: Sequence[TaskState]) -> list[Any]:
    return [task.key for task in tasks]
