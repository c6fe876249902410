"""How long the scheduler's core takes for one event of constant size, in a cluster of many workers and tasks.

    python benchmarks/turns.py --tasks 1000000 --workers 1000

In one process: the core, and the encoding of what it sends. Half of the tasks are in memory on the workers, the others wait in the
queue. Each kind of event then comes alone, a turn for each, and their times (of the processor) are told as
``Scheduler.statistics()["turns"]`` tells them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import treadle
from treadle.messages.base import TaskError, TaskOptions, WorkerIdentity
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    KeysScattered,
    RegisterClient,
    ReleaseKeys,
    RetryKeys,
    Sent,
    SubmitTasks,
)
from treadle.messages.codec import encode
from treadle.messages.scheduler_local import ConnectionLost, ReplicateKeys, Tick
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    LeaveWorker,
    RegisterWorker,
    ReplicasAdded,
    ReplicasDropped,
    TaskErred,
    TasksErred,
    TasksFinished,
    TasksRescheduled,
    TasksStarted,
    TasksTakenBack,
    WorkerHeartbeat,
    WorkerStatus,
)
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.state import Limits
from treadle.scheduler.turn_times import TurnTimes
from treadle.utils import interpreter

CHUNK = 2000
CLIENT = 1
BASE = CLIENT << 32
ERROR = TaskError(b"", b"", "ValueError: no", "")


class Cluster:
    def __init__(self, tasks: int, workers: int) -> None:
        self.core = Transitions(Limits(worker_grace_s=30.0, client_grace_s=30.0), "scheduler")
        self.times = TurnTimes()
        self.chance = random.Random(0)
        self.timed = False
        self._number = CLIENT
        self._ids = BASE
        #: Assignments that were sent and not answered, by worker.
        self.given: dict[int, list[ComputeTasks]] = {}
        self.turn([(CLIENT, RegisterClient("c", {}))])
        self.workers = [self.new_number() for _ in range(workers)]
        self.turn([(number, self.registration(number)) for number in self.workers])
        while len(self.core.tasks) < tasks:
            self.submit(CHUNK, group=f"g{len(self.core.tasks) // 50_000}")
        finished = 0
        while finished < tasks // 2:
            given, self.given = self.given, {}
            for number, batches in given.items():
                for batch in batches:
                    finished += len(batch.ids)
                    # So that they are long tasks, of which a worker holds few.
                    self.turn([(number, done(batch.ids, batch.attempts))])

    def new_number(self) -> int:
        self._number += 1
        return self._number

    def new_ids(self, count: int) -> list[int]:
        first = self._ids + 1
        self._ids += count
        return list(range(first, first + count))

    def registration(self, number: int) -> RegisterWorker:
        return RegisterWorker(WorkerIdentity(f"w{number}", f"tcp://{number}", f"w{number}", f"h{number}", 4, 0, {}, 1, "", {}))

    def submit(self, count: int, **options: Any) -> list[int]:
        ids = self.new_ids(count)
        keys = [f"load-{id:032x}" for id in ids]
        self.turn([(CLIENT, SubmitTasks(ids[0], ids, keys, [0] * count, [b"\x80\x05K\x01\x85."] * count, **options))])
        return ids

    def turn(self, events: list[tuple[int, Any]]) -> None:
        turn = [Event(number, message) for number, message in events]
        # The time of the processor: what else the machine does is no matter of the scheduler.
        began = time.thread_time()
        result = self.core.handle(turn, time.perf_counter())
        for _number, messages, _frames in result.sends:
            encode(messages)
        if self.timed:
            self.times.book(turn, time.thread_time() - began)
        for number, messages, _frames in result.sends:
            for message in messages:
                if type(message) is ComputeTasks:
                    self.given.setdefault(number, []).append(message)

    # -------------------------------------------------------------------------------------------- what is there

    def some_worker(self) -> int:
        return self.chance.choice(self.workers)

    def executing(self) -> tuple[int, int, int]:
        """(worker, id, attempt) of a task that was assigned."""
        while True:
            number = self.some_worker()
            for task in self.core.state.by_number[number].processing:
                return number, task.id, task.attempt

    def held(self) -> tuple[int, int]:
        """(worker, id) of a value."""
        while True:
            number = self.some_worker()
            for task in self.core.state.by_number[number].has_what:
                return number, task.id


def done(ids: list[int], attempts: list[int]) -> TasksFinished:
    count = len(ids)
    return TasksFinished(ids, attempts, [28] * count, [0] * count, ["int"], [0.0] * count, [1.0] * count)


def finish(cluster: Cluster) -> None:
    number, id, attempt = cluster.executing()
    cluster.turn([(number, done([id], [attempt]))])


def fail(cluster: Cluster) -> None:
    number, id, attempt = cluster.executing()
    cluster.turn([(number, TasksErred([TaskErred(id, attempt, ERROR, 0.0, 1.0)]))])
    cluster.turn([(CLIENT, RetryKeys([id]))])


def start(cluster: Cluster) -> None:
    number, id, attempt = cluster.executing()
    cluster.turn([(number, TasksStarted([id], [attempt]))])


def give_back(cluster: Cluster) -> None:
    number, id, attempt = cluster.executing()
    cluster.turn([(number, TasksTakenBack([id], [attempt], []))])


def reschedule(cluster: Cluster) -> None:
    number, id, attempt = cluster.executing()
    cluster.turn([(number, TasksRescheduled([id], [attempt]))])


def submit_and_release(cluster: Cluster) -> None:
    (id,) = cluster.submit(1)
    cluster.turn([(CLIENT, ReleaseKeys([id]))])


def submit_with_dependencies(cluster: Cluster) -> None:
    needs = [cluster.held()[1] for _ in range(2)]
    (id,) = cluster.submit(1, dependencies=[needs])
    cluster.turn([(CLIENT, CancelKeys([id]))])


def submit_for_a_worker(cluster: Cluster) -> None:
    (id,) = cluster.submit(1, options=TaskOptions(workers=[f"w{cluster.some_worker()}"]))
    cluster.turn([(CLIENT, ReleaseKeys([id]))])


def scatter(cluster: Cluster) -> None:
    (id,) = cluster.new_ids(1)
    cluster.turn([(CLIENT, KeysScattered([id], [f"data-{id}"], [[cluster.some_worker()]], [8], ["int"]))])


def copy(cluster: Cluster) -> None:
    _holder, id = cluster.held()
    number = cluster.some_worker()
    cluster.turn([(0, ReplicateKeys(number, [id]))])
    cluster.turn([(number, ReplicasAdded([id]))])
    cluster.turn([(number, ReplicasDropped([id]))])


def come_and_leave(cluster: Cluster) -> None:
    number = cluster.new_number()
    cluster.turn([(number, cluster.registration(number))])
    cluster.turn([(number, LeaveWorker("bye"))])


def break_a_stream(cluster: Cluster) -> None:
    number = cluster.new_number()
    cluster.turn([(number, cluster.registration(number))])
    cluster.turn([(number, ConnectionLost())])


def pause(cluster: Cluster) -> None:
    number = cluster.some_worker()
    cluster.turn([(number, WorkerStatus("paused"))])
    cluster.turn([(number, WorkerStatus("running"))])


def attach(cluster: Cluster) -> None:
    number = cluster.new_number()
    cluster.turn([(number, RegisterClient(f"c{number}", {}))])
    cluster.turn([(number, AttachKeys([number << 32 | 1], [cluster.core.state.by_id[cluster.held()[1]].key]))])
    cluster.turn([(number, Sent(1, True))])


def beat(cluster: Cluster) -> None:
    cluster.turn([(cluster.some_worker(), WorkerHeartbeat({"memory": 1, "cpu": 2.0}))])


def tick(cluster: Cluster) -> None:
    cluster.turn([(0, Tick())])


SCENARIOS: list[Callable[[Cluster], None]] = [
    finish,
    fail,
    start,
    give_back,
    reschedule,
    submit_and_release,
    submit_with_dependencies,
    submit_for_a_worker,
    scatter,
    copy,
    come_and_leave,
    break_a_stream,
    pause,
    attach,
    beat,
    tick,
]


def measure(tasks: int, workers: int, turns: int) -> dict[str, dict[str, Any]]:
    """By kind of event: see ``TurnTimes.statistics``."""
    interpreter.settle_garbage()
    cluster = Cluster(tasks, workers)
    cluster.timed = True
    for _ in range(turns):
        for scenario in SCENARIOS:
            scenario(cluster)
        cluster.given.clear()
    return cluster.times.statistics()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--turns", type=int, default=2_000, help="of each kind")
    options = parser.parse_args()
    found = measure(options.tasks, options.workers, options.turns)
    print(f"{options.tasks:,} tasks, {options.workers:,} workers, {'compiled' if treadle.compiled else 'interpreted'}; microseconds a turn")
    print(f"{'kind':24}{'turns':>8}{'p50':>10}{'p99':>10}{'longest':>10}")
    for kind, row in found.items():
        print(f"{kind:24}{row['turns']:>8}" + "".join(f"{row[name] * 1e6:>10.0f}" for name in ("p50_s", "p99_s", "longest_s")))


if __name__ == "__main__":
    main()
