"""What the worker's core knows: indices and totals. Data, and the one way to change a task's state. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.exceptions import InvariantError
from treadle.messages.worker_scheduler import TaskErred
from treadle.worker.transitions.records import FORGOTTEN, STATE_NAMES, PeerState, Priority, WorkerTask
from treadle.worker.transitions.story import Story
from treadle.worker.transitions.table import is_legal


@dataclass(frozen=True)
class CoreStatistics:
    """How many tasks are in which state, and the bytes of the values kept."""

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
        "recent_errors",
        "recent_puts",
        "requested_bytes",
        "resources",
        "stored_bytes",
        "story",
        "tasks",
        "told_again",
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
        #: Own number; 0 before the scheduler's welcome.
        self.number: int = 0
        #: Those that it had before, oldest first.
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
        #: CONSTRAINED tasks by what they need: heaps of (priority, id, attempt). May hold rows that no longer count.
        self.constrained: dict[tuple[tuple[str, float], ...], list[tuple[Priority, int, int]]] = {}
        self.peers: dict[int, PeerState] = {}
        #: Heap of (priority, on another host, turn, id, peer): whom to ask next. May hold rows that no longer count.
        self.offers: list[tuple[Priority, bool, int, int, int]] = []
        #: Heap of (until, peer): peers that are left alone.
        self.backoffs: list[tuple[float, int]] = []
        #: Requests under way, at most ``max_outgoing``.
        self.outgoing: int = 0
        self.max_outgoing: int = max_outgoing
        self.max_request_bytes: int = max_request_bytes
        #: Bytes that requests under way ask for, by the number of the peer, and their sum. At most ``fetch_budget_bytes`` (0: any
        #: number), but for a single value that is larger.
        self.requested_bytes: dict[int, int] = {}
        self.fetching_bytes: int = 0
        self.fetch_budget_bytes: int = fetch_budget_bytes
        #: For when the stream to the scheduler breaks, and reports with it: failures of late (when, row), and values that clients
        #: put here of late (id -> when), oldest first.
        self.recent_errors: list[tuple[float, TaskErred]] = []
        self.recent_puts: dict[int, float] = {}
        #: Ids of values that the scheduler was told of more than once. It may hear the last of that when it has had them dropped.
        self.told_again: set[int] = set()
        self.validate: bool = validate
        self.story: Story = Story()

    def statistics(self) -> CoreStatistics:
        states = {name: self.counts[state] for state, name in enumerate(STATE_NAMES) if self.counts[state]}
        return CoreStatistics(states, self.stored_bytes, self.outgoing, self.fetching_bytes)


def move(state: LocalState, task: WorkerTask, finish: int) -> None:
    """Change the task's state; the table says which changes there are."""
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
    """A NEW task in the table; the rule that asks for it moves it on."""
    task = WorkerTask(id, key)
    state.tasks[id] = task
    state.counts[0] += 1
    return task
