"""The systems that are compared, each run in a process of its own: ``python benchmarks/systems.py NAME --tasks N``.

Prints one line of JSON: what was measured. Exit code 3 means that the system is not installed; its line says so.
This file uses the standard library, psutil and the system itself, so that it also runs in another environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

NOT_INSTALLED = 3
WORKERS = 2
ROUND_TRIPS = 50


def no_op(value: int) -> int:
    return value


def cpu_seconds() -> float:
    """CPU time of this process and of its living descendants."""
    import psutil

    total = 0.0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def measure_client(cluster_class: Any, client_class: Any, tasks: int, warm_up: int) -> dict[str, Any]:
    """``map`` and ``gather`` of no-ops, and single round trips, on two workers with a thread each. Same calls for every system."""
    started = time.perf_counter()
    with cluster_class(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster, client_class(cluster) as client:
        client.submit(no_op, -1).result()
        start_s = time.perf_counter() - started
        client.gather(client.map(no_op, range(-1 - warm_up, -1)))

        cpu = cpu_seconds()
        began = time.perf_counter()
        values = client.gather(client.map(no_op, range(tasks)))
        wall_s = time.perf_counter() - began
        cpu = cpu_seconds() - cpu
        if values != list(range(tasks)):
            raise AssertionError("the results are wrong")

        trips = []
        for number in range(ROUND_TRIPS):
            began = time.perf_counter()
            client.submit(no_op, tasks + number).result()
            trips.append(time.perf_counter() - began)
    return {
        "start_s": start_s,
        "task_us": wall_s / tasks * 1e6,
        "cpu_us": cpu / tasks * 1e6,
        "round_trip_ms": statistics.median(trips) * 1e3,
    }


def run_treadle(tasks: int, warm_up: int) -> dict[str, Any]:
    import treadle

    measured = measure_client(treadle.LocalCluster, treadle.Client, tasks, warm_up)
    return {"version": treadle.__version__ + (" compiled" if treadle.compiled else " interpreted"), **measured}


def run_distributed(tasks: int, warm_up: int) -> dict[str, Any]:
    import distributed

    return {"version": distributed.__version__, **measure_client(distributed.LocalCluster, distributed.Client, tasks, warm_up)}


def run_threaded(tasks: int, warm_up: int) -> dict[str, Any]:
    """dask's scheduler inside one process, as a measure of what needs no other process."""
    import dask
    from dask.threaded import get

    def graph(numbers: range) -> dict[str, Any]:
        return {f"no-op-{number}": (no_op, number) for number in numbers}

    warm = graph(range(-1 - warm_up, -1))
    get(warm, list(warm), num_workers=WORKERS)
    cpu = cpu_seconds()
    began = time.perf_counter()
    tasks_graph = graph(range(tasks))
    values = get(tasks_graph, list(tasks_graph), num_workers=WORKERS)
    wall_s = time.perf_counter() - began
    cpu = cpu_seconds() - cpu
    if list(values) != list(range(tasks)):
        raise AssertionError("the results are wrong")
    return {"version": dask.__version__, "task_us": wall_s / tasks * 1e6, "cpu_us": cpu / tasks * 1e6}


SYSTEMS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "treadle": run_treadle,
    "dask.distributed": run_distributed,
    "dask threaded": run_threaded,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--warm-up", type=int, default=1_000)
    options = parser.parse_args()
    try:
        measured = SYSTEMS[options.system](options.tasks, options.warm_up)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}))
        sys.exit(NOT_INSTALLED)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
