"""The graphs of the benchmarks, made by dask. They are made before the clock starts; what ``compute`` does with them counts."""

from __future__ import annotations

from typing import Any

import functions


def merge(leaves: int) -> Any:
    """``leaves`` tasks and one sum of all."""
    from dask._task_spec import List, Task, TaskRef

    graph: dict[str, Any] = {f"inc-{number}": Task(f"inc-{number}", functions.inc, number) for number in range(leaves)}
    graph["sum"] = Task("sum", sum, List(*[TaskRef(key) for key in graph]))
    return _delayed("sum", graph)


def _delayed(key: str, graph: dict[str, Any]) -> Any:
    """One layer for all. Of ``delayed`` calls each has a layer, and dask's own time for merging those grows with their square:
    with 25,000 that would be most of what is measured, for every system the same."""
    from dask.delayed import Delayed

    return Delayed(key, graph)


def merged(leaves: int) -> int:
    """What the sum over so many is."""
    return leaves * (leaves + 1) // 2


def tree(depth: int) -> Any:
    """Pairwise sums over 2**depth leaves."""
    from dask._task_spec import Task, TaskRef

    row = [f"inc-{number}" for number in range(2**depth)]
    graph: dict[str, Any] = {key: Task(key, functions.inc, number) for number, key in enumerate(row)}
    for level in range(1, depth + 1):
        above = [f"add-{level}-{at}" for at in range(len(row) // 2)]
        for at, key in enumerate(above):
            graph[key] = Task(key, functions.add, TaskRef(row[2 * at]), TaskRef(row[2 * at + 1]))
        row = above
    return _delayed(row[0], graph)


def array(chunks: int) -> Any:
    """``chunks`` × ``chunks`` blocks of 10 × 10."""
    import dask.array

    return dask.array.ones((10 * chunks, 10 * chunks), chunks=(10, 10))


def array_sum(x: Any) -> Any:
    return (x + x.T).sum()


def array_result(chunks: int) -> int:
    return 2 * (10 * chunks) ** 2


def count(collection: Any) -> int:
    """Tasks before fusion."""
    return len(collection.__dask_graph__())


def groupby(days: int) -> Any:
    """A mean by name over days of seconds, a partition an hour."""
    import dask.datasets

    frame = dask.datasets.timeseries(start="2000-01-01", end=f"2000-01-{days + 1:02d}", freq="1s", partition_freq="1h", seed=1)
    return frame.groupby("name").x.mean()
