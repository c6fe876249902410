"""What 10,000 tasks cost the scheduler's core, in counts that are the same on every machine: changes of state, runs, messages, bytes,
objects. Never times. A bound here is about half as much again as what was counted when it was written."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import Any

import pytest

from treadle.messages.base import TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import DefineFunctions, RegisterClient, ReleaseKeys, SubmitTasks
from treadle.messages.codec import encode
from treadle.messages.worker_scheduler import ComputeTasks, RegisterWorker, TasksFinished
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.state import Limits

TASKS = 10_000
CHUNK = 2_000
#: A row of the stencil.
WIDTH = 100
CLIENT = 1
BASE = CLIENT << 32
IDS = range(BASE + 2, BASE + 2 + TASKS)


class Simulated:
    """A core, a client, and workers that finish all they are given in the next turn."""

    def __init__(self, workers: int) -> None:
        self.core = Transitions(Limits(), "scheduler")
        #: Frames and bytes to the client and to workers.
        self.frames: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.runs: Counter[int] = Counter()
        self._given: dict[int, list[Any]] = {}
        self.turn([(CLIENT, RegisterClient("c", {}))])
        self.turn(
            [(2 + at, RegisterWorker(WorkerIdentity(f"w{at}", f"tcp://{at}", f"w{at}", "h", 1, 0, {}, 1, "", {}))) for at in range(workers)]
        )
        self.turn([(CLIENT, DefineFunctions([BASE | 1], ["inc"], [b"inc"]))])

    def turn(self, events: list[tuple[int, Any]]) -> None:
        for number, messages, _ in self.core.handle([Event(number, message) for number, message in events], 0.0).sends:
            party = "client" if number == CLIENT else "worker"
            self.frames[party] += 1
            self.bytes[party] += len(encode(messages))
            self._given.setdefault(number, []).extend(message for message in messages if type(message) is ComputeTasks)

    def work(self) -> None:
        """Until nothing is left to run."""
        while any(self._given.values()):
            given, self._given = self._given, {}
            events = []
            for number, batches in given.items():
                for batch in batches:
                    count = len(batch.ids)
                    self.runs.update(batch.ids)
                    done = TasksFinished(batch.ids, batch.attempts, [28] * count, [0] * count, ["int"], [0.0] * count, [1e-5] * count)
                    events.append((number, done))
            self.turn(events)


def chunk(start: int, dependencies: list[list[int]] | None = None, wanted: list[int] | None = None, later: list[int] | None = None) -> Any:
    ids = list(IDS[start : start + CHUNK])
    return SubmitTasks(
        1,
        ids,
        [f"inc-{id:032x}" for id in ids],
        [BASE | 1] * CHUNK,
        [b"\x80\x05K\x01\x85."] * CHUNK,
        dependencies,
        wanted,
        first_rank=start,
        later_dependents=later,
        group="inc",
    )


def _above(at: int) -> list[int]:
    if at < WIDTH:
        return []
    return [IDS[at - WIDTH + by] for by in (-1, 0, 1) if 0 <= at % WIDTH + by < WIDTH]


def stencil() -> list[Any]:
    """Each cell takes three of the row before; the last row is wanted."""
    chunks = []
    for start in range(0, TASKS, CHUNK):
        needs = [_above(at) for at in range(start, start + CHUNK)]
        last = start + CHUNK == TASKS
        fan_out = [2 if at in (0, WIDTH - 1) else 3 for at in range(WIDTH)]
        later = None if last else [0] * (CHUNK - WIDTH) + fan_out
        chunks.append(chunk(start, needs, list(IDS[-WIDTH:]) if last else [], later))
    return chunks


def test_tasks_without_dependencies() -> None:
    simulated = Simulated(workers=2)
    for start in range(0, TASKS, CHUNK):
        simulated.turn([(CLIENT, chunk(start))])
    simulated.work()
    assert simulated.runs == dict.fromkeys(IDS, 1)
    # released -> waiting -> queued -> processing -> memory.
    assert simulated.core.state.story.count == 4 * TASKS
    assert simulated.frames["worker"] <= 40
    assert simulated.frames["client"] <= 20
    # Id, key, attempt, function, payload and priority of each; then its id.
    assert simulated.bytes["worker"] <= 110 * TASKS
    assert simulated.bytes["client"] <= 15 * TASKS


@pytest.mark.parametrize("at_once", [True, False], ids=["submitted at once", "run as it arrives"])
def test_stencil_runs_each_task_once(at_once: bool) -> None:
    simulated = Simulated(workers=10)
    for message in stencil():
        simulated.turn([(CLIENT, message)])
        if not at_once:
            simulated.work()
    simulated.work()
    assert simulated.runs == dict.fromkeys(IDS, 1)
    # As above, without the queue for most, and released again.
    assert simulated.core.state.story.count <= 6 * TASKS


def test_many_workers_are_not_sent_a_frame_for_every_task() -> None:
    simulated = Simulated(workers=1_000)
    simulated.turn([(CLIENT, chunk(0))])
    simulated.work()  # durations are known from here on
    before = simulated.frames["worker"]
    for start in range(CHUNK, TASKS, CHUNK):
        simulated.turn([(CLIENT, chunk(start))])
    simulated.work()
    assert simulated.frames["worker"] - before <= TASKS / 20


def test_memory_of_a_task_and_that_it_is_given_back() -> None:
    simulated = Simulated(workers=2)
    messages = [chunk(start) for start in range(0, TASKS, CHUNK)]
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    for message in messages:
        simulated.turn([(CLIENT, message)])
    gc.collect()
    # Objects that the garbage collector looks at: the record, its priority, its list of clients.
    assert len(gc.get_objects()) - objects <= 3 * TASKS
    assert sys.getallocatedblocks() - blocks <= 9 * TASKS
    simulated.work()
    simulated.turn([(CLIENT, ReleaseKeys(list(IDS)))])
    assert not simulated.core.tasks
    # Nothing waits for a garbage collection: what is forgotten is taken apart.
    objects_left = len(gc.get_objects()) - objects
    simulated.core.state.story.__init__()  # type: ignore[misc]
    assert gc.collect() < 1_000
    assert objects_left <= TASKS / 10


def _lines_of(act: Any) -> int:
    """Lines of the core that are executed, loops counted; 0 when it is compiled."""
    count = 0

    def trace(frame: Any, event: str, _arg: Any) -> Any:
        nonlocal count
        if "transitions" not in frame.f_code.co_filename and "utils" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


class Restricted:
    """A core with workers that all have a resource, and a client."""

    def __init__(self, workers: int) -> None:
        self.core = Transitions(Limits(), "scheduler")
        self.workers = workers
        self.tell([(CLIENT, RegisterClient("c", {}))])
        self.tell(
            [
                (2 + at, RegisterWorker(WorkerIdentity(f"w{at}", f"tcp://{at}", f"w{at}", "h", 1, 0, {"GPU": 1.0}, 1, "", {})))
                for at in range(workers)
            ]
        )
        self.tell([(CLIENT, DefineFunctions([BASE | 1], ["inc"], [b"inc"]))])
        self._ids = iter(range(BASE + 2, BASE + 10**6))

    def tell(self, events: list[tuple[int, Any]]) -> None:
        self.sends = self.core.handle([Event(number, message) for number, message in events], 0.0).sends

    def submit(self, count: int, options: TaskOptions, dependencies: list[list[int]] | None = None) -> list[int]:
        ids = [next(self._ids) for _ in range(count)]
        keys: list[Any] = [f"inc-{id:032x}" for id in ids]
        message = SubmitTasks(1, ids, keys, [BASE | 1] * count, [b"x"] * count, dependencies, options=options, group="inc")
        self.tell([(CLIENT, message)])
        return ids

    def finish_one(self) -> None:
        number, batch = next(
            (number, message) for number, messages, _ in self.sends for message in messages if type(message) is ComputeTasks
        )
        count = len(batch.ids)
        self.tell([(number, TasksFinished(batch.ids, batch.attempts, [28] * count, [0] * count, ["int"], [0.0] * count, [1.0] * count))])


@pytest.mark.parametrize("options", [TaskOptions(resources={"GPU": 1.0}), TaskOptions(workers=["h"])], ids=["resource", "host"])
def test_a_restricted_task_costs_the_same_among_ten_workers_and_among_ten_thousand(options: TaskOptions) -> None:
    def count(workers: int) -> list[int]:
        cluster = Restricted(workers)
        cluster.submit(1, options)  # the first of its kind looks for its candidates
        cluster.finish_one()
        submitted = _lines_of(lambda: cluster.submit(1, options))
        finished = _lines_of(cluster.finish_one)
        value = cluster.submit(1, options)
        cluster.finish_one()
        dependent = _lines_of(lambda: cluster.submit(1, options, [value]))
        return [submitted, finished, dependent]

    few, many = count(10), count(10_000)
    assert all(more <= 2 * less + 100 for less, more in zip(few, many, strict=True)), (few, many)


def test_a_finished_task_costs_the_same_however_many_kinds_of_restricted_tasks_wait() -> None:
    def count(kinds: int) -> int:
        cluster = Restricted(2 * kinds)
        for at in range(1, kinds):
            # Two for a worker: one of them waits.
            cluster.submit(3, TaskOptions(workers=[f"w{at}"]))
        cluster.submit(3, TaskOptions(workers=["w0"]))
        return _lines_of(cluster.finish_one)

    few, many = count(5), count(500)
    assert many <= 2 * few + 100, (few, many)
