"""treadle's order of a graph beside ``dask.order``: what it costs, and how many results it keeps alive.

    python benchmarks/ordering.py [--scale 1] [--only PART_OF_A_NAME] [--json FILE] [--rounds 3]

Each graph is run in a simulation by 1, 2, 8 and 24 threads that always take the ready task of the lowest rank. A result is
alive from the end of its task to the end of the last task that depends on it; what somebody asked for is not counted. Tasks
take one unit of time, with several threads 1 to 1.5 units by their numbers, and figures are averages over several such draws.
dask's order changes with the names of the keys, which contain hashes: its figures are medians over several namings. It also changes
with PYTHONHASHSEED: set it to get the same table twice.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import dask.order
from ordering_graphs import GRAPHS, Graph, build

from treadle.client.rows import order as order_module
from treadle.client.rows.order import order

THREADS = (1, 2, 8, 24)
#: Assignments of durations to average over, with more than one thread.
DRAWS = 3
#: Namings of the keys, for dask's order.
NAMINGS = 5


@dataclass(frozen=True)
class Alive:
    """Results alive, at most and on average over time; and how long the whole took."""

    peak: float
    mean: float
    makespan: float


@dataclass(frozen=True)
class Row:
    graph: str
    tasks: int
    task_us: float
    dask_task_us: float
    #: By number of threads.
    alive: dict[int, Alive]
    dask_alive: dict[int, Alive]


def simulate(graph: Graph, ranks: list[int], threads: int) -> Alive:
    runs = [run(graph, ranks, threads, draw) for draw in range(DRAWS if threads > 1 else 1)]
    return Alive(*[statistics.mean(figures) for figures in zip(*runs, strict=True)])


def run(graph: Graph, ranks: list[int], threads: int, draw: int) -> tuple[int, float, float]:
    """Peak, mean over time, and makespan of one run."""
    dependents: list[list[int]] = [[] for _ in graph.dependencies]
    for task, needed in enumerate(graph.dependencies):
        for dependency in needed:
            dependents[dependency].append(task)
    missing = [len(needed) for needed in graph.dependencies]
    uses = [len(users) for users in dependents]
    counted = [1] * len(uses)
    for task in graph.wanted:
        counted[task] = 0
    ready = sorted([(ranks[task], task) for task, count in enumerate(missing) if not count])
    running: list[tuple[int, int]] = []
    now = alive = peak = area = 0
    while ready or running:
        while ready and len(running) < threads:
            task = heappop(ready)[1]
            heappush(running, (now + duration(task, draw, threads), task))
        end, task = heappop(running)
        area += alive * (end - now)
        now = end
        if dependents[task]:
            alive += counted[task]
        for dependency in graph.dependencies[task]:
            uses[dependency] -= 1
            if not uses[dependency]:
                alive -= counted[dependency]
        peak = max(peak, alive)
        for user in dependents[task]:
            missing[user] -= 1
            if not missing[user]:
                heappush(ready, (ranks[user], user))
    return peak, area / now, now / 64


def duration(task: int, draw: int, threads: int) -> int:
    """In 64ths of a unit. Threads that ended together would all choose from the same tasks."""
    return 64 + ((task + 1_000_003 * draw) * 2_654_435_761 >> 7) % 32 if threads > 1 else 64


def measure(name: str, graph: Graph, rounds: int) -> Row:
    tasks = len(graph.keys)
    ranks, seconds = timed(lambda: order(graph.dependencies, graph.wanted), rounds)
    dask_ranks = []
    dask_seconds = float("inf")
    for naming in range(NAMINGS):
        keys, nodes = renamed(graph, naming)
        by_key, seconds_now = timed(functools.partial(dask.order.order, nodes), rounds)
        dask_seconds = min(dask_seconds, seconds_now)
        dask_ranks.append([by_key[key] for key in keys])
    return Row(
        graph=name,
        tasks=tasks,
        task_us=seconds / tasks * 1e6,
        dask_task_us=dask_seconds / tasks * 1e6,
        alive={threads: simulate(graph, ranks, threads) for threads in THREADS},
        dask_alive={threads: median([simulate(graph, ranks, threads) for ranks in dask_ranks]) for threads in THREADS},
    )


def renamed(graph: Graph, naming: int) -> tuple[list[Any], dict[Any, Any]]:
    """The keys and the nodes, with another hash after each name's last dash: what is before it and the indices stay."""
    names: dict[str, str] = {}
    keys = []
    for key in graph.keys:
        name = key[0] if isinstance(key, tuple) else key
        if name not in names:
            digest = hashlib.md5(f"{naming} {len(names)}".encode()).hexdigest()
            names[name] = f"{name.rpartition('-')[0] or name}-{digest}"
        keys.append((names[name], *key[1:]) if isinstance(key, tuple) else names[name])
    replaced = dict(zip(graph.keys, keys, strict=True))
    return keys, {new: graph.nodes[old].substitute(replaced, key=new) for old, new in replaced.items()}


def median(figures: list[Alive]) -> Alive:
    return Alive(*[statistics.median(column) for column in zip(*map(astuple, figures), strict=True)])


def timed(call: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What it returned, and the CPU seconds of the fastest round."""
    fastest = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        result = call()
        fastest = min(fastest, time.process_time() - began)
    return result, fastest


def ratio(mine: float, other: float) -> float:
    """One more of each, so that nothing over nothing is one, and one over nothing is not infinite."""
    return (mine + 1) / (other + 1)


def table(rows: list[Row]) -> str:
    """Markdown: for each number of threads peak and mean, dask's behind the slash, then the ratios."""
    heads = " | ".join([f"{threads} thread{'s' * (threads > 1)}: peak | mean | ratios" for threads in THREADS])
    lines = [f"| graph | tasks | µs a task | {heads} |", "|---|---|---|" + "---|---|---|" * len(THREADS)]
    for row in rows:
        cells = [row.graph, str(row.tasks), f"{row.task_us:.1f} / {row.dask_task_us:.1f}"]
        for threads in THREADS:
            mine, other = row.alive[threads], row.dask_alive[threads]
            cells += [f"{mine.peak:.0f} / {other.peak:.0f}", f"{mine.mean:.1f} / {other.mean:.1f}"]
            cells.append(f"{ratio(mine.peak, other.peak):.2f} {ratio(mine.mean, other.mean):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    lines = []
    tasks = sum([row.tasks for row in rows])
    for name, field in (("treadle", "task_us"), ("dask.order", "dask_task_us")):
        lines.append(f"{name}: {sum([getattr(row, field) * row.tasks for row in rows]) / tasks:.1f} µs a task")
    for threads in THREADS:
        pairs = [(row.alive[threads], row.dask_alive[threads]) for row in rows]
        figures = [
            statistics.geometric_mean([ratio(getattr(mine, field), getattr(other, field)) for mine, other in pairs])
            for field in ("peak", "mean", "makespan")
        ]
        lines.append(f"{threads} threads, ratio to dask.order: peak {figures[0]:.3f}, mean {figures[1]:.3f}, makespan {figures[2]:.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="the size of the graphs; 1 makes some hundred tasks")
    parser.add_argument("--only", default="", help="only graphs with this in their names")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest is shown")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    rows = []
    for name in GRAPHS:
        for fused in (True, False):
            label = name if fused else f"{name}, not fused"
            if options.only in label:
                rows.append(measure(label, build(name, options.scale, fused), options.rounds))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    compiled = not str(order_module.__file__).endswith(".py")
    print(f"the order is {'compiled' if compiled else 'interpreted'}; PYTHONHASHSEED={os.environ.get('PYTHONHASHSEED', 'random')}\n")
    print(table(rows))
    print()
    print(summary(rows))


if __name__ == "__main__":
    main()
