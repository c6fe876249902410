"""The tasks of the benchmarks. Workers import them from here."""

from __future__ import annotations

import time
from typing import Any


def inc(value: int) -> int:
    return value + 1


def add(left: int, right: int) -> int:
    return left + right


def no_op(value: int) -> None:
    return None


def pick(text: str, at: int) -> str:
    """One letter of a large text."""
    return text[at]


def nap(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def make_array(nbytes: int, seed: int) -> Any:
    import numpy

    return numpy.full(nbytes // 8, float(seed))


def first(array: Any) -> float:
    return float(array[0])


def count_tasks(dask_scheduler: Any) -> int:
    """Runs on the scheduler."""
    return len(dask_scheduler.tasks)
