"""What the worker's core knows: indices and totals, and the only function that changes a task's state. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.exceptions import InvariantError
from treadle.messages.worker_scheduler import TaskErred
from treadle.worker.transitions.records import FORGOTTEN, STATE_NAMES, PeerState, Priority, WorkerTask
from treadle.worker.transitions.story import Story
from treadle.worker.transitions.table import is_legal


@dataclass(frozen=True)
class CoreStatistics:
    """How many tasks are in which state, the bytes of the stored values, and the requests under way."""

    states: dict[str, int]
    stored_bytes: int
    requests_under_way: int
    fetching_bytes: int


class LocalState:
    """Everything one worker's core knows."""

    __slots__ = (
        "available",
        "backoffs",
        "constrained",
        "counts",
        "fetch_budget_bytes",
        "fetching_bytes",
        "former_numbers",
        "host",
        "max_outgoing",
        "max_request_bytes",
        "number",
        "offers",
        "outgoing",
        "paused",
        "peers",
        "reannounced",
        "recent_errors",
        "recent_puts",
        "requested_bytes",
        "resources",
        "stored_bytes",
        "story",
        "tasks",
        "validate",
    )

    def __init__(
        self,
        host: str,
        resources: dict[str, float],
        max_outgoing: int,
        max_request_bytes: int,
        fetch_budget_bytes: int,
        validate: bool,
    ) -> None:
        #: This worker's number; 0 before the scheduler's welcome.
        self.number: int = 0
        #: The numbers that it had before, oldest first.
        self.former_numbers: list[int] = []
        self.host: str = host
        self.tasks: dict[int, WorkerTask] = {}
        #: Tasks by state; a running total of ``tasks``.
        self.counts: list[int] = [0] * len(STATE_NAMES)
        #: Sum of ``nbytes`` of the tasks in MEMORY.
        self.stored_bytes: int = 0
        self.paused: bool = False
        self.resources: dict[str, float] = dict(resources)
        #: ``resources`` minus what the tasks in the executor hold.
        self.available: dict[str, float] = dict(resources)
        #: CONSTRAINED tasks by the resources that they need: heaps of (priority, id, attempt). May hold rows that no longer count.
        self.constrained: dict[tuple[tuple[str, float], ...], list[tuple[Priority, int, int]]] = {}
        self.peers: dict[int, PeerState] = {}
        #: Heap of (priority, on another host, turn, id, peer): the peer to ask next. May hold rows that no longer count.
        self.offers: list[tuple[Priority, bool, int, int, int]] = []
        #: Heap of (until, peer): peers that get no requests until then.
        self.backoffs: list[tuple[float, int]] = []
        #: Number of requests under way, at most ``max_outgoing``.
        self.outgoing: int = 0
        self.max_outgoing: int = max_outgoing
        self.max_request_bytes: int = max_request_bytes
        #: Bytes that the requests under way ask for, by the number of the peer, and their sum. The sum is at most
        #: ``fetch_budget_bytes`` (0: no limit), except for a single value that is larger.
        self.requested_bytes: dict[int, int] = {}
        self.fetching_bytes: int = 0
        self.fetch_budget_bytes: int = fetch_budget_bytes
        #: Recent failures as (when, row), and values that clients handed over recently (id -> when), oldest first. They go into
        #: the inventory, because reports may be lost when the stream to the scheduler breaks.
        self.recent_errors: list[tuple[float, TaskErred]] = []
        self.recent_puts: dict[int, float] = {}
        #: Ids of values that were announced to the scheduler more than once. The last announcement may reach the scheduler after
        #: it has ordered the value to be dropped.
        self.reannounced: set[int] = set()
        self.validate: bool = validate
        self.story: Story = Story()

    def statistics(self) -> CoreStatistics:
        states = {name: self.counts[state] for state, name in enumerate(STATE_NAMES) if self.counts[state]}
        return CoreStatistics(states, self.stored_bytes, self.outgoing, self.fetching_bytes)


def move(state: LocalState, task: WorkerTask, finish: int) -> None:
    """Change the task's state. The table says which changes are legal."""
    start = task.state
    if state.validate and not is_legal(start, finish):
        raise InvariantError(
            f"no transition {STATE_NAMES[start]} -> {STATE_NAMES[finish]} for {task!r}; story: {state.story.of([task.id])}"
        )
    state.story.note(task.id, start, finish)
    counts = state.counts
    counts[start] -= 1
    counts[finish] += 1
    task.state = finish
    if finish == FORGOTTEN:
        counts[finish] -= 1
        del state.tasks[task.id]


def add_task(state: LocalState, id: int, key: object) -> WorkerTask:
    """Add a NEW task to the table; the calling rule moves it on."""
    task = WorkerTask(id, key)
    state.tasks[id] = task
    state.counts[0] += 1
    return task
