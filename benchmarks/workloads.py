"""What is measured: each workload's size, who can run it, and how. ``python workloads.py SYSTEM NAME`` runs one of them once.

Prints one line of JSON. Exit code 3: the system is not installed here, the line says what is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TREADLE, DISTRIBUTED, THREADED, RAY = "treadle", "dask.distributed", "dask threaded", "Ray"
SYSTEMS = (TREADLE, DISTRIBUTED, THREADED, RAY)
NOT_INSTALLED = 3

ARRAY_BYTES = 200_000_000
ZERO_WORKERS = (1, 10, 100, 1_000)
ZERO_TASKS = {"100k": 100_000, "1m": 1_000_000}


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    #: What ``run`` gets, and what it gets with ``--quick``.
    size: int
    quick_size: int
    #: For each system a call that returns figures.
    run: dict[str, Callable[[int], dict[str, Any]]]


def _on_cluster(system: str, name: str, workers: int = 2) -> Callable[[int], dict[str, Any]]:
    def run(size: int) -> dict[str, Any]:
        on_client = importlib.import_module("on_client")
        measured: dict[str, Any] = on_client.on_cluster(system, getattr(on_client, name), size, workers)
        return measured

    return run


def _elsewhere(module: str, runner: str, name: str) -> Callable[[int], dict[str, Any]]:
    def run(size: int) -> dict[str, Any]:
        where = importlib.import_module(module)
        measured: dict[str, Any] = getattr(where, runner)(getattr(where, name), size)
        return measured

    return run


def _everywhere(function: str, threads: str | None = None, ray: str | None = None) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Both systems with a client; dask's threads and Ray where the workload has an equal there."""
    runs = {system: _on_cluster(system, function) for system in (TREADLE, DISTRIBUTED)}
    if threads:
        runs[THREADED] = _elsewhere("in_process", "on_threads", threads)
    if ray:
        runs[RAY] = _elsewhere("on_ray", "on_ray", ray)
    return runs


def _transfer(system: str) -> Callable[[int], dict[str, Any]]:
    def run(size: int) -> dict[str, Any]:
        measured: dict[str, Any] = importlib.import_module("on_client").on_cluster(system, importlib.import_module("moving").transfer, size)
        return measured

    return run


def _start(system: str) -> Callable[[int], dict[str, Any]]:
    def run(size: int) -> dict[str, Any]:
        measured: dict[str, Any] = importlib.import_module("starting").start(system, size)
        return measured

    return run


def _ray_start(size: int) -> dict[str, Any]:
    measured: dict[str, Any] = importlib.import_module("on_ray").start(size)
    return measured


def _zero_worker(shape: str, workers: int) -> Callable[[int], dict[str, Any]]:
    def run(size: int) -> dict[str, Any]:
        measured: dict[str, Any] = importlib.import_module("zero_worker").zero_worker(shape, size, workers)
        return measured

    return run


def _zero_workers() -> list[Workload]:
    return [
        Workload(
            f"zero-worker-{shape}-{label}-{workers}",
            f"{tasks:,} tasks, {shape}, {workers:,} simulated workers",
            tasks,
            tasks // 10,
            {TREADLE: _zero_worker(shape, workers)},
        )
        for shape in ("alone", "stencil")
        for label, tasks in ZERO_TASKS.items()
        for workers in ZERO_WORKERS
    ]


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in [
        Workload("map-20k", "gather(map(inc, range(20_000)))", 20_000, 2_000, _everywhere("map_", "map_", "map_")),
        Workload("submit-20k", "20,000 × submit(inc, i, pure=False), gather", 20_000, 2_000, _everywhere("submit", "map_", "map_")),
        Workload("serial", "300 × submit(inc, i).result()", 300, 50, _everywhere("serial", "serial", "serial")),
        Workload("chain-500", "500 × submit(inc, the one before)", 500, 50, _everywhere("chain", None, "chain")),
        Workload("merge-25k", "25,000 tasks and one sum", 25_000, 2_500, _everywhere("merge", "merge", "merge")),
        Workload("merge-100k", "100,000 tasks and one sum", 100_000, 10_000, _everywhere("merge", "merge", None)),
        Workload("tree-15", "pairwise sums over 2^15 leaves", 15, 11, _everywhere("tree", "tree", "tree")),
        Workload("array", "(x + x.T).sum(), 140 × 140 chunks", 140, 40, _everywhere("array", "array")),
        Workload("fanout", "1 MiB given to 10,000 tasks", 10_000, 1_000, _everywhere("fanout", "fanout", "fanout")),
        Workload("groupby", "timeseries, 30 days, mean by name", 30, 3, _everywhere("groupby", "groupby")),
        Workload("million", "1,000,000 no-ops queued at once", 1_000_000, 100_000, {TREADLE: _on_cluster(TREADLE, "million")}),
        *_zero_workers(),
        Workload(
            "transfer", "200 MB array", ARRAY_BYTES, ARRAY_BYTES // 4, {TREADLE: _transfer(TREADLE), DISTRIBUTED: _transfer(DISTRIBUTED)}
        ),
        Workload(
            "start",
            "import, LocalCluster(2), 16 more",
            16,
            4,
            {TREADLE: _start(TREADLE), DISTRIBUTED: _start(DISTRIBUTED), RAY: _ray_start},
        ),
        Workload(
            "sleepy",
            "5,000 × 0.1 s on 24 workers",
            5_000,
            480,
            {TREADLE: _on_cluster(TREADLE, "sleepy", 24), DISTRIBUTED: _on_cluster(DISTRIBUTED, "sleepy", 24)},
        ),
    ]
}


def version(system: str) -> str:
    if system == TREADLE:
        import treadle

        return treadle.__version__ + (" compiled" if treadle.compiled else " interpreted")
    module = {DISTRIBUTED: "distributed", THREADED: "dask", RAY: "ray"}[system]
    return str(importlib.import_module(module).__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one workload of one system once.")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    workload = WORKLOADS[options.workload]
    try:
        measured = workload.run[options.system](workload.quick_size if options.quick else workload.size)
        measured["version"] = version(options.system)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}))
        sys.exit(NOT_INSTALLED)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
