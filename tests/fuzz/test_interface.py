"""Odd values in the public interface: each call gives a result or an error of a documented type, and then the cluster still works.

Short by default; ``TREADLE_FUZZ_EXAMPLES=5000 python -m pytest tests/fuzz`` goes on for long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import dask
import numpy as np
import pytest
from dask import delayed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle import Client, Future, LocalCluster, config, wait

EXAMPLES = int(os.environ.get("TREADLE_FUZZ_EXAMPLES", "25"))
LIMIT_S = 60
#: What a call may raise: a user's mistake, something that is not there, a time that is over.
DOCUMENTED = (ValueError, TypeError, KeyError, NotImplementedError, TimeoutError, CancelledError, AttributeError, AssertionError)
quickly = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)


class Rude:
    """Says no to everything."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")

    def __hash__(self) -> int:
        raise TypeError("not hashable")

    def __repr__(self) -> str:
        raise ValueError("not printable")

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")

    def __reduce__(self) -> Any:
        raise ValueError("not picklable")


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def inc(number: Any = 0, *more: Any, **others: Any) -> Any:
    return number + 1


ODD_NUMBERS: list[Any] = [nan, inf, -inf, -1, 0, 1, True, 2**63, 2**64, -(2**70), 10**101, 10**400, 1e300, 1j]
ODD_NUMBERS += [Fraction(1, 3), Decimal("nan"), np.float32("nan"), np.int8(3)]
ODD_TEXTS = ["", "x", "\ud800", "\x00", "a" * 10_000, "1e999", "nan", "-5s", "5 parsec", "all", "tcp://nowhere:1"]
ODD_OBJECTS: list[Any] = [None, b"", b"x", (), [], {}, set(), object(), inc, Rude(), type, Ellipsis, timedelta(-1), range(3)]
ODD_OBJECTS += [np.array([1.0, nan]), iter([])]
odd = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_OBJECTS),
    st.builds(endless),
    st.lists(st.sampled_from(ODD_NUMBERS + ODD_TEXTS), max_size=2),
    st.lists(st.sampled_from(ODD_NUMBERS + ODD_TEXTS), max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(["GPU", "", "\ud800", "a"]), st.sampled_from(ODD_NUMBERS + ODD_TEXTS + ODD_OBJECTS[:8]), max_size=2),
)
functions = st.one_of(st.just(inc), st.just(inc), st.sampled_from([len, abs, print, lambda *a, **k: 1, Rude, None, 5, "inc"]))


def options(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: odd for name in names})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        yield client


def tried(client: Client, call: Callable[[], Any]) -> None:
    """Make the call, look at what came of it for a moment, and see that all is well."""
    try:
        outcome = call()
        futures = [item for item in (outcome if isinstance(outcome, list) else [outcome]) if isinstance(item, Future)]
        if futures:
            wait(futures, timeout=0.05)
            for future in futures:
                future.exception(timeout=0.01)
        client.cancel(futures)
    except DOCUMENTED:
        pass
    except Exception as error:
        # The task's own.
        assert type(error) is Exception or type(error).__module__ in ("builtins", "__main__"), repr(type(error))
        assert not isinstance(error, (SystemError, RecursionError, IndexError, MemoryError)), repr(error)
    assert client.status == "running"
    assert client.submit(inc, 41, pure=False).result(timeout=LIMIT_S) == 42
    client.cluster.scheduler.validate()


CALL = ("key", "workers", "resources", "retries", "priority", "fifo_timeout", "allow_other_workers", "pure")


@quickly
@given(functions, st.lists(odd, max_size=2), options(*CALL, "number"))
def test_submit(client: Client, function: Any, arguments: list[Any], asked: dict[str, Any]) -> None:
    tried(client, lambda: client.submit(function, *arguments, **asked))


@quickly
@given(functions, st.lists(st.one_of(odd, st.lists(odd, max_size=3)), max_size=2), options(*CALL, "batch_size", "more"))
def test_map(client: Client, function: Any, iterables: list[Any], asked: dict[str, Any]) -> None:
    tried(client, lambda: client.map(function, *iterables, **asked))


GRAPH = ("workers", "resources", "retries", "priority", "fifo_timeout", "allow_other_workers", "optimize_graph", "traverse")


@quickly
@given(odd, st.booleans(), options(*GRAPH))
def test_compute(client: Client, value: Any, inside: bool, asked: dict[str, Any]) -> None:
    if inside:
        try:
            value = delayed(inc)(1, value)
        except RecursionError:
            return  # dask's own
    tried(client, lambda: client.compute(value, **asked))


@quickly
@given(odd, options("workers", "resources", "retries", "priority"))
def test_annotations(client: Client, value: Any, asked: dict[str, Any]) -> None:
    def call() -> Any:
        with dask.annotate(other=value, **asked):
            return client.compute(delayed(inc)(1))

    tried(client, call)


@quickly
@given(st.one_of(odd, st.dictionaries(st.sampled_from(["a", "b", "\ud800"]), odd, max_size=2)), options("workers", "broadcast", "hash"))
def test_scatter(client: Client, data: Any, asked: dict[str, Any]) -> None:
    tried(client, lambda: client.scatter(data, timeout=1, **asked))


@quickly
@given(st.sampled_from(["cancel", "retry", "gather", "who_has", "has_what", "nbytes", "replicate", "rebalance", "why"]), odd, st.data())
def test_calls_about_futures(client: Client, name: str, argument: Any, data: Any) -> None:
    future = client.submit(inc, data.draw(st.sampled_from([1, "x"])))
    about = data.draw(st.sampled_from([argument, future, [future], [future, argument], {"a": future, "b": argument}]))
    method = getattr(client, name, None)
    if method is not None:
        tried(client, lambda: method(about))


@quickly
@given(st.sampled_from(["run", "run_on_scheduler"]), functions, st.lists(odd, max_size=1), options("workers", "wait", "nanny", "on_error"))
def test_run(client: Client, name: str, function: Any, arguments: list[Any], asked: dict[str, Any]) -> None:
    if name == "run_on_scheduler":
        asked = {"wait": asked["wait"]} if "wait" in asked else {}
    tried(client, lambda: getattr(client, name)(function, *arguments, **asked))


@quickly
@given(odd, odd)
def test_datasets(client: Client, name: Any, value: Any) -> None:
    def call() -> None:
        client.publish_dataset(value, name=name)
        client.unpublish_dataset(name)

    tried(client, call)


def _paths(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else name
        found += _paths(value, path) if isinstance(value, dict) and value else [path]
    return found


@settings(max_examples=5 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.sampled_from(_paths(config.DEFAULTS)), odd)
def test_config(path: str, value: Any) -> None:
    readers = [getattr(config, name) for name in dir(config) if name.endswith("_settings")]
    with dask.config.set({path: value}):
        for reader in readers:
            try:
                reader()
            except DOCUMENTED as error:
                assert isinstance(error, (ValueError, TypeError, NotImplementedError)), repr(error)
