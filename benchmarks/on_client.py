"""The workloads that go through a ``Client``: the same calls for treadle and for dask.distributed."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import functions
import graphs
from processes import Cluster, metered

WARM_UP_TASKS = 1_000


class Run:
    """One workload of one system: its client, its processes, how large it is, and what was measured."""

    def __init__(self, system: str, workers: int, size: int, cluster: Cluster, client: Any) -> None:
        self.system = system
        self.workers = workers
        self.size = size
        self.cluster = cluster
        self.client = client
        self.module = importlib.import_module("treadle" if system == "treadle" else "distributed")
        self.figures: dict[str, Any] = {}

    @contextmanager
    def timed(self, tasks: int) -> Iterator[None]:
        with metered({"client": os.getpid(), **self.cluster.pids}) as measured:
            yield
        self.figures.update(measured, tasks=tasks, task_us=measured["wall_s"] / tasks * 1e6)

    def check(self, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise AssertionError(f"the result is wrong: {str(found)[:200]} instead of {str(wanted)[:200]}")


def on_cluster(system: str, workload: Callable[[Run], None], size: int, workers: int = 2) -> dict[str, Any]:
    """Start scheduler and workers, warm up, run."""
    module = importlib.import_module("treadle" if system == "treadle" else "distributed")
    with Cluster(system, workers) as cluster:
        # Of dask.distributed's own 30 s, 24 processes that import may use up all.
        with module.Client(scheduler_file=cluster.scheduler_file, timeout=60) as client:
            client.wait_for_workers(workers, timeout=120)
            client.gather(client.map(functions.inc, range(-WARM_UP_TASKS, 0)))
            run = Run(system, workers, size, cluster, client)
            workload(run)
    return run.figures


def map_(run: Run) -> None:
    with run.timed(run.size):
        values = run.client.gather(run.client.map(functions.inc, range(run.size)))
    run.check(values, list(range(1, run.size + 1)))


def submit(run: Run) -> None:
    with run.timed(run.size):
        futures = [run.client.submit(functions.inc, number, pure=False) for number in range(run.size)]
        values = run.client.gather(futures)
    run.check(values, list(range(1, run.size + 1)))


def serial(run: Run) -> None:
    trips = []
    with run.timed(run.size):
        for number in range(run.size):
            began = time.perf_counter()
            value = run.client.submit(functions.inc, number).result()
            trips.append(time.perf_counter() - began)
            run.check(value, number + 1)
    run.figures["round_trip_ms"] = sorted(trips)[len(trips) // 2] * 1e3


def chain(run: Run) -> None:
    with run.timed(run.size):
        future = run.client.submit(functions.inc, 0)
        for _ in range(run.size - 1):
            future = run.client.submit(functions.inc, future)
        value = future.result()
    run.check(value, run.size)


def merge(run: Run) -> None:
    total = graphs.merge(run.size)
    with run.timed(run.size + 1):
        value = run.client.compute(total).result()
    run.check(value, graphs.merged(run.size))


def tree(run: Run) -> None:
    root = graphs.tree(run.size)
    with run.timed(2 ** (run.size + 1) - 1):
        value = run.client.compute(root).result()
    run.check(value, graphs.merged(2**run.size))


def array(run: Run) -> None:
    x = graphs.array(run.size)
    total = graphs.array_sum(x)
    tasks = graphs.count(total)
    total = graphs.array_sum(x)  # afresh: nothing of the count may be kept
    with run.timed(tasks):
        value = run.client.compute(total).result()
    run.check(round(float(value)), graphs.array_result(run.size))


def fanout(run: Run) -> None:
    text = "x" * 2**20
    with run.timed(run.size):
        big = run.client.scatter(text)
        values = run.client.gather(run.client.map(functions.pick, [big] * run.size, range(run.size)))
    run.check(values, ["x"] * run.size)


def groupby(run: Run) -> None:
    mean = graphs.groupby(run.size)
    with run.timed(24 * run.size):
        value = run.client.compute(mean).result()
    run.check(len(value) > 0, True)


def million(run: Run) -> None:
    """Queued at once, results left on the workers; then everything is let go of."""
    with run.timed(run.size):
        futures = run.client.map(functions.no_op, range(run.size))
        run.module.wait(futures)
    scheduler = run.figures["processes"]["scheduler"]
    run.figures["scheduler_task_bytes"] = (scheduler["peak_bytes"] - scheduler["before_bytes"]) / run.size
    with metered({"scheduler": run.cluster.pids["scheduler"]}) as measured:
        del futures
        while run.client.run_on_scheduler(functions.count_tasks) > WARM_UP_TASKS:
            time.sleep(0.05)
    kept = measured["processes"]["scheduler"]["after_bytes"] - scheduler["before_bytes"]
    run.figures.update(release_s=measured["wall_s"], scheduler_kept_bytes=kept / run.size)


def sleepy(run: Run) -> None:
    each_s = 0.1
    with run.timed(run.size):
        values = run.client.gather(run.client.map(functions.nap, range(run.size), seconds=each_s))
    run.check(values, list(range(run.size)))
    run.figures["over_ideal"] = run.figures["wall_s"] / (run.size * each_s / run.workers) - 1
