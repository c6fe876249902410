"""Records of the worker's core: tasks, values that are fetched, and peers. Data only; no I/O, no clock."""

from __future__ import annotations

from typing import Final

from treadle.messages.local import Execute

Priority = tuple[float, float, int]

#: Just made; never seen outside of one rule.
NEW: Final = 0
#: Assigned; values it needs are not here yet.
WAITING: Final = 1
#: Assigned and complete, but held back: a resource is taken, or the worker is paused.
CONSTRAINED: Final = 2
#: Given to the executor, which starts it when a thread is free.
READY: Final = 3
#: Known to be executing. Only tasks that take more than a moment get here.
EXECUTING: Final = 4
#: Executing, outside of the thread pool.
LONG_RUNNING: Final = 5
#: The value is in the store.
MEMORY: Final = 6
#: A value needed here, to be requested from a peer.
FETCH: Final = 7
#: A value requested from a peer.
FLIGHT: Final = 8
#: A value needed here that no known peer has; the scheduler was told.
MISSING: Final = 9
#: Nobody wants the task, but the executor or a request still holds it; its result will be ignored.
CANCELLED: Final = 10
#: Failed, or given back. The task is reported and forgotten in the same rule.
ERROR: Final = 11
#: No longer in the table.
FORGOTTEN: Final = 12

STATE_NAMES: Final = (
    "new",
    "waiting",
    "constrained",
    "ready",
    "executing",
    "long-running",
    "memory",
    "fetch",
    "flight",
    "missing",
    "cancelled",
    "error",
    "forgotten",
)

#: Not assigned to this worker.
NO_ATTEMPT: Final = -1
#: Not requested from any peer.
NO_PEER: Final = -1
#: The priority of replicas that no task here waits for.
LEAST_URGENT: Final = (float("inf"), float("inf"), 0)


class Remote:
    """A value that is to be fetched: where it is, and how far the fetching is."""

    __slots__ = ("holders", "misses", "peer", "priority", "tried", "wanted")

    def __init__(self) -> None:
        #: Numbers of peers that may have the value and were not tried in vain yet. Empty when MISSING.
        self.holders: list[int] = []
        #: Peers that did not have it or could not be reached, since the scheduler last named holders.
        self.tried: list[int] = []
        #: The peer it is requested from, also while the task is CANCELLED; NO_PEER iff no request is under way.
        self.peer: int = NO_PEER
        #: Whether the scheduler wants a replica here, even if no task here needs it.
        self.wanted: bool = False
        #: The priority of the most urgent task that needs the value.
        self.priority: Priority = LEAST_URGENT
        #: How often a named holder turned out not to have the value.
        self.misses: int = 0


class WorkerTask:
    """A task that this worker runs, a value that it has or needs, or both."""

    __slots__ = (
        "attempt",
        "dependencies",
        "dependents",
        "holds",
        "id",
        "in_executor",
        "key",
        "nbytes",
        "needs",
        "reached",
        "remote",
        "spec",
        "state",
        "take_back_attempt",
        "type_name",
        "waiting_on",
    )

    def __init__(self, id: int, key: object) -> None:
        self.id: int = id
        self.key: object = key
        self.state: int = NEW
        #: The assignment to report under; NO_ATTEMPT unless WAITING, CONSTRAINED, READY, EXECUTING or LONG_RUNNING.
        self.attempt: int = NO_ATTEMPT
        self.spec: Execute | None = None
        #: The values that the task needs, None when it needs none. Has no meaning once the task is reported.
        self.dependencies: list[WorkerTask] | None = None
        #: Tasks assigned here that need its value. Reverse of ``dependencies``.
        self.dependents: dict[WorkerTask, None] | None = None
        #: How many of ``dependencies`` are not in MEMORY.
        self.waiting_on: int = 0
        #: Whether the executor has the task (started or not). Also true of tasks that nobody wants any more.
        self.in_executor: bool = False
        #: How far its execution is known to be: READY, EXECUTING or LONG_RUNNING.
        self.reached: int = READY
        #: The attempt that the scheduler wants back and has no answer for yet; NO_ATTEMPT if none.
        self.take_back_attempt: int = NO_ATTEMPT
        #: The resources that the task needs, as (name, amount) sorted by name; None when it needs none.
        self.needs: tuple[tuple[str, float], ...] | None = None
        #: The resources that the task occupies: ``needs`` while ``in_executor``.
        self.holds: tuple[tuple[str, float], ...] | None = None
        self.nbytes: int = 0
        self.type_name: str = ""
        self.remote: Remote | None = None

    def __repr__(self) -> str:
        return f"<WorkerTask {self.id} {self.key!r} {STATE_NAMES[self.state]}>"


class PeerState:
    """Another worker, from which values can be fetched."""

    __slots__ = ("address", "failures", "flying", "host", "not_before", "number", "queue")

    def __init__(self, number: int, address: str, host: str) -> None:
        self.number: int = number
        self.address: str = address
        self.host: str = host
        #: Heap of (priority, id) of values that may be requested from the peer. May hold rows that no longer count.
        self.queue: list[tuple[Priority, int]] = []
        #: Whether a request is under way; at most one is at a time.
        self.flying: bool = False
        #: The peer gets no requests before this time.
        self.not_before: float = 0.0
        #: How many failures and refusals there were since its last answer.
        self.failures: int = 0
