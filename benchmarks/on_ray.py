"""The workloads that have an equal on Ray, written as its users would."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import functions
import psutil
from processes import ONE_THREAD, metered

CPUS = 2


def on_ray(workload: Callable[[Any, int], tuple[int, Callable[[], Any], Any]], size: int) -> dict[str, Any]:
    """Start Ray on this machine, warm up, run. Raises ModuleNotFoundError where it is not installed."""
    import ray

    path = str(Path(__file__).parent)
    ray.init(
        num_cpus=CPUS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {**ONE_THREAD, "PYTHONPATH": path}},
    )
    try:
        ray.get([ray.remote(functions.inc).remote(number) for number in range(1_000)])
        tasks, call, wanted = workload(ray, size)
        helpers = {f"ray {child.pid} {child.name()}": child.pid for child in psutil.Process().children(recursive=True)}
        with metered({"client": os.getpid(), **helpers}) as measured:
            found = call()
    finally:
        ray.shutdown()
    if found != wanted:
        raise AssertionError(f"the result is wrong: {str(found)[:200]} instead of {str(wanted)[:200]}")
    return {**measured, "tasks": tasks, "task_us": measured["wall_s"] / tasks * 1e6}


def map_(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    inc = ray.remote(functions.inc)
    return size, lambda: ray.get([inc.remote(number) for number in range(size)]), list(range(1, size + 1))


def serial(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    inc = ray.remote(functions.inc)
    return size, lambda: [ray.get(inc.remote(number)) for number in range(size)], list(range(1, size + 1))


def chain(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    inc = ray.remote(functions.inc)

    def run() -> Any:
        reference = inc.remote(0)
        for _ in range(size - 1):
            reference = inc.remote(reference)
        return ray.get(reference)

    return size, run, size


def merge(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    inc = ray.remote(functions.inc)

    @ray.remote
    def total(*numbers: int) -> int:
        return sum(numbers)

    return size + 1, lambda: ray.get(total.remote(*[inc.remote(number) for number in range(size)])), size * (size + 1) // 2


def tree(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    inc, add = ray.remote(functions.inc), ray.remote(functions.add)

    def run() -> Any:
        row = [inc.remote(number) for number in range(2**size)]
        while len(row) > 1:
            row = [add.remote(row[at], row[at + 1]) for at in range(0, len(row), 2)]
        return ray.get(row[0])

    return 2 ** (size + 1) - 1, run, 2**size * (2**size + 1) // 2


def fanout(ray: Any, size: int) -> tuple[int, Callable[[], Any], Any]:
    pick = ray.remote(functions.pick)

    def run() -> Any:
        text = ray.put("x" * 2**20)
        return ray.get([pick.remote(text, number) for number in range(size)])

    return size, run, ["x"] * size


def start(size: int) -> dict[str, Any]:
    """The import, and from ``init`` to the first result."""
    began = time.perf_counter()
    import ray

    import_s = time.perf_counter() - began
    began = time.perf_counter()
    ray.init(num_cpus=CPUS, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.get(ray.remote(abs).remote(-1))
    first_s = time.perf_counter() - began
    ray.shutdown()
    return {"import_s": import_s, "first_result_s": first_s}
