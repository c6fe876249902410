"""What treadle is to reach, as ratios to a peer in the same rounds, or as figures; and whether it did."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workloads import DISTRIBUTED, THREADED, TREADLE

#: workload -> system -> runs
Runs = dict[str, dict[str, list[dict[str, Any]]]]


def values(runs: Runs, workload: str, system: str, field: str) -> list[float]:
    return [run[field] for run in runs.get(workload, {}).get(system, []) if field in run]


def median(runs: Runs, workload: str, system: str, field: str) -> float | None:
    found = values(runs, workload, system, field)
    return statistics.median(found) if found else None


def ratio(runs: Runs, workload: str, system: str, field: str = "task_us") -> float | None:
    """How many times treadle's figure the other's is: median over the rounds that both have had."""
    own = {run["round"]: run[field] for run in runs.get(workload, {}).get(TREADLE, []) if field in run}
    theirs = {run["round"]: run[field] for run in runs.get(workload, {}).get(system, []) if field in run}
    both = [theirs[number] / own[number] for number in theirs if number in own]
    return statistics.median(both) if both else None


def cpu_us(runs: Runs, workload: str, system: str) -> float | None:
    """CPU time of all processes for a task."""
    found = [
        sum(process["cpu_s"] for process in run["processes"].values()) / run["tasks"] * 1e6
        for run in runs.get(workload, {}).get(system, [])
        if "processes" in run and "tasks" in run
    ]
    return statistics.median(found) if found else None


@dataclass(frozen=True)
class Goal:
    workload: str
    text: str
    limit: float
    #: Whether more is better.
    at_least: bool
    form: str
    measure: Callable[[Runs], float | None]

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _times(workload: str, limit: float) -> Goal:
    return Goal(workload, f"{limit:g} × dask.distributed", limit, True, "{:,.1f} ×", lambda runs: ratio(runs, workload, DISTRIBUTED))


def _below_threads(workload: str) -> Goal:
    text = "less per task than dask threaded"
    return Goal(workload, text, 1.0, True, "{:,.2f} × as fast", lambda runs: ratio(runs, workload, THREADED))


def _figure(workload: str, field: str, text: str, limit: float, at_least: bool, form: str, scale: float = 1.0) -> Goal:
    def measure(runs: Runs) -> float | None:
        value = median(runs, workload, TREADLE, field)
        return None if value is None else value * scale

    return Goal(workload, text, limit, at_least, form, measure)


def _relative(workload: str, base: str, text: str) -> Goal:
    """Tasks per CPU second, as a share of those of another size."""

    def measure(runs: Runs) -> float | None:
        value, other = median(runs, workload, TREADLE, "tasks_per_cpu_s"), median(runs, base, TREADLE, "tasks_per_cpu_s")
        return None if value is None or not other else value / other * 100

    return Goal(workload, text, 80.0, True, "{:,.0f} %", measure)


GOALS = [
    _times("map-20k", 100),
    _below_threads("map-20k"),
    _times("submit-20k", 100),
    _below_threads("submit-20k"),
    _times("serial", 20),
    _figure("serial", "round_trip_ms", "a round trip in 0.6 ms", 0.6, False, "{:,.2f} ms"),
    _times("chain-500", 20),
    _times("merge-25k", 40),
    _times("merge-100k", 40),
    _times("tree-15", 40),
    _times("fanout", 40),
    _times("array", 20),
    _times("groupby", 6),
    _figure("million", "wall_s", "1,000,000 tasks in 30 s", 30, False, "{:,.1f} s"),
    _figure("million", "scheduler_task_bytes", "1 kB of the scheduler's memory a task", 1_000, False, "{:,.0f} B"),
    _figure("million", "scheduler_kept_bytes", "all of it given back (under 50 B a task kept)", 50, False, "{:,.0f} B"),
    _figure("zero-worker-alone-100k-10", "tasks_per_cpu_s", "200,000 tasks/s at 10 workers", 200_000, True, "{:,.0f} /s"),
    _relative("zero-worker-alone-100k-1000", "zero-worker-alone-100k-10", "at most 20 % less at 1,000 workers"),
    _relative("zero-worker-alone-1m-10", "zero-worker-alone-100k-10", "at most 20 % less at 1,000,000 tasks"),
    _figure("zero-worker-stencil-100k-10", "tasks_per_cpu_s", "200,000 tasks/s in a stencil at 10 workers", 200_000, True, "{:,.0f} /s"),
    _relative("zero-worker-stencil-100k-1000", "zero-worker-stencil-100k-10", "stencil: at most 20 % less at 1,000 workers"),
    _relative("zero-worker-stencil-1m-10", "zero-worker-stencil-100k-10", "stencil: at most 20 % less at 1,000,000 tasks"),
    _figure("transfer", "worker_of_raw", "worker to worker at 90 % of a raw socket", 90, True, "{:,.0f} %", 100),
    _figure("transfer", "gather_of_raw", "gather at 90 % of a raw socket", 90, True, "{:,.0f} %", 100),
    _figure("transfer", "scatter_of_raw", "scatter at 90 % of a raw socket", 90, True, "{:,.0f} %", 100),
    _figure("transfer", "peak_of_array", "peak memory below 2.2 × the array", 2.2, False, "{:,.2f} ×"),
    _figure("start", "import_s", "import in 0.2 s", 0.2, False, "{:,.2f} s"),
    _figure("start", "first_result_s", "LocalCluster of two: first result in 1 s", 1.0, False, "{:,.2f} s"),
    _figure("sleepy", "over_ideal", "within 3 % of ideal", 3.0, False, "{:,.1f} % over", 100),
]
