"""The workloads on dask's own threaded scheduler, in one process: what needs no other process, and no serialization."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import functions
import graphs
from processes import metered

THREADS = 2


def on_threads(workload: Callable[[int], tuple[int, Callable[[], Any], Any]], size: int) -> dict[str, Any]:
    """``workload`` returns the number of tasks, what to run, and what must come out (None: not looked at)."""
    import dask

    with dask.config.set(scheduler="threads", num_workers=THREADS):
        _get({f"warm-up-{number}": (functions.inc, number) for number in range(1_000)})
        tasks, call, wanted = workload(size)
        with metered({"client": os.getpid()}) as measured:
            found = call()
    if wanted is not None and found != wanted:
        raise AssertionError(f"the result is wrong: {str(found)[:200]} instead of {str(wanted)[:200]}")
    return {**measured, "tasks": tasks, "task_us": measured["wall_s"] / tasks * 1e6}


def _get(graph: dict[str, Any]) -> list[Any]:
    from dask.threaded import get

    return list(get(graph, list(graph), num_workers=THREADS))


def map_(size: int) -> tuple[int, Callable[[], Any], Any]:
    return size, lambda: _get({f"inc-{number}": (functions.inc, number) for number in range(size)}), list(range(1, size + 1))


def serial(size: int) -> tuple[int, Callable[[], Any], Any]:
    return size, lambda: [_get({"inc": (functions.inc, number)})[0] for number in range(size)], list(range(1, size + 1))


def merge(size: int) -> tuple[int, Callable[[], Any], Any]:
    return size + 1, graphs.merge(size).compute, graphs.merged(size)


def tree(size: int) -> tuple[int, Callable[[], Any], Any]:
    return 2 ** (size + 1) - 1, graphs.tree(size).compute, graphs.merged(2**size)


def array(size: int) -> tuple[int, Callable[[], Any], Any]:
    x = graphs.array(size)
    return graphs.count(graphs.array_sum(x)), graphs.array_sum(x).compute, graphs.array_result(size)


def fanout(size: int) -> tuple[int, Callable[[], Any], Any]:
    def run() -> list[Any]:
        graph: dict[str, Any] = {f"pick-{number}": (functions.pick, "text", number) for number in range(size)}
        from dask.threaded import get

        return list(get({"text": "x" * 2**20, **graph}, list(graph), num_workers=THREADS))

    return size, run, ["x"] * size


def groupby(size: int) -> tuple[int, Callable[[], Any], Any]:
    return 24 * size, graphs.groupby(size).compute, None
