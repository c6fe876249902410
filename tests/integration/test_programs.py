"""Random programs over few keys give what plain Python gives: two clients, one cluster, functions with state, tasks that compute.

Short by default; longer: ``TREADLE_PROGRAMS=5000 pytest tests/integration/test_programs.py``. A program that fails is shrunk and printed.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import warnings
from collections.abc import Iterator
from typing import Any

import dask
import pytest
from dask._task_spec import Task, TaskRef
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from treadle.client.client import Client
from treadle.deploy.local import LocalCluster
from treadle.exceptions import FutureCancelledError, RedefinedKeyWarning

PROGRAMS = int(os.environ.get("TREADLE_PROGRAMS", "50"))
LIMIT_S = 60
KEYS: list[Any] = ["a", "b", ("t", 0), ("t", 1)]
#: Those that graphs have, too, and others: a future in a graph that has a task with the same key would stand for that.
MORE_KEYS: list[Any] = [*KEYS, "c", ("u", 0)]


# ------------------------------------------------------------------------------------------ functions


def add(number: int, *values: int) -> int:
    return number + sum(values)


def times(number: int, *values: int) -> int:
    return number * (1 + sum(values))


def fails(number: int, *values: int) -> int:
    raise ZeroDivisionError(f"{number} of {len(values)}")


class Counter:
    """Each call counts those before it."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, number: int, *values: int) -> int:
        self.calls += 1
        return self.calls * 1000 + add(number, *values)

    __call__ = count


def with_closure() -> Any:
    calls: list[int] = []

    def count(number: int, *values: int) -> int:
        calls.append(number)
        return len(calls) * 1000 + add(number, *values)

    return count


def nested(number: int, *values: int) -> int:
    """A task that computes, over a key that others have, too."""
    return int(dask.delayed(add)(number, *values, dask_key_name="a").compute())


def call_first(function: Any, number: int, *values: int) -> int:
    return int(function(number, *values))


FUNCTIONS: list[Any] = [
    *(add, times, fails, Counter(), Counter().count, with_closure()),
    *(functools.partial(call_first, with_closure()), nested),
]


def value_of(function: int, number: int, values: list[Any]) -> Any:
    """What the task comes to: a number, or the texts of the exceptions of which one is raised, by it or by what it needs."""
    failures = [value for value in values if isinstance(value, frozenset)]
    if failures:
        return frozenset().union(*failures)
    if function == 2:
        return frozenset([f"{number} of {len(values)}"])
    if function == 1:
        return times(number, *values)
    return add(number, *values) + (1000 if function in (3, 4, 5, 6) else 0)


# ------------------------------------------------------------------------------------------ the model


class Plain:
    """A task of the model: what it comes to, and what it was made from."""

    def __init__(self, key: Any, value: Any, needs: list[Plain]) -> None:
        #: The key that people see; None: nobody else can have it.
        self.key = key
        self.value = value
        self.needs = needs


class Held:
    """A future of the program, and what it stands for."""

    def __init__(self, client: int, future: Any, task: Plain) -> None:
        self.client = client
        self.future = future
        self.task = task
        self.cancelled = False


class Program:
    """Performs a program on the cluster and in the model, and compares."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self.held: list[Held] = []

    # ---- the model

    def alive(self) -> list[Plain]:
        """All tasks that something needs: a future, or what was made from them."""
        found: dict[Plain, None] = {}
        stack = [held.task for held in self.held if not held.cancelled]
        while stack:
            task = stack.pop()
            if task not in found:
                found[task] = None
                stack += task.needs
        return list(found)

    def stands_for(self, task: Plain) -> Plain:
        """The first task with its key, if that is alive."""
        return next((other for other in self.alive() if task.key is not None and other.key == task.key), task)

    def usable(self, choice: int, but: list[Any] | None = None) -> list[Held]:
        """One of the futures, or none, to be used as an argument; ``but`` those with these keys."""
        held = [one for one in self.held if not one.cancelled and one.future.key not in (but or ())]
        return [held[choice % len(held)]] if held and choice % 3 else []

    # ---- the cluster

    def settle(self) -> None:
        """All that was said has been heard: who comes first with a key does not depend on chance."""
        gc.collect()
        for client in self.clients:
            for _ in range(2):
                client.sync(client.session.request, lambda number: _question(number))

    def hold(self, client: int, future: Any, task: Plain) -> None:
        # Equal calls have equal keys, and are one task.
        task.key = future.key
        self.held.append(Held(client, future, self.stands_for(task)))

    # ---- what a program does

    def submit(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        self.settle()
        needs = self.usable(choice)
        task = Plain(key, value_of(function, number, [need.task.value for need in needs]), [need.task for need in needs])
        pure = {"pure": bool(choice % 2)} if key is None else {"key": key}
        future = self.clients[client].submit(FUNCTIONS[function], number, *[need.future for need in needs], **pure)
        self.hold(client, future, task)

    def map(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        self.settle()
        keys = None if key is None else [MORE_KEYS[choice % len(MORE_KEYS)], key]
        futures = self.clients[client].map(FUNCTIONS[function], [number, number + 1], key=keys)
        for row, future in enumerate(futures):
            self.hold(client, future, Plain(keys and keys[row], value_of(function, number + row, []), []))

    def graph(self, function: int, number: int, choice: int) -> tuple[dict[Any, Any], dict[Any, Plain]]:
        """A chain over all keys, each task of the ones before it, some of a future."""
        graph: dict[Any, Any] = {}
        tasks: dict[Any, Plain] = {}
        outside = self.usable(choice, but=KEYS)
        for position, key in enumerate(KEYS):
            before = [other for other in KEYS[:position] if (choice >> position) % 2]
            kind = function if position == 1 else position % 2
            numbers = number + position
            needs = [tasks[other] for other in before]
            parts: list[Any] = [TaskRef(other) for other in before]
            if position == 2 and outside:
                needs.append(outside[0].task)
                parts.append(outside[0].future)
            graph[key] = Task(key, FUNCTIONS[kind], numbers, *parts)
            tasks[key] = Plain(None, value_of(kind, numbers, [need.value for need in needs]), needs)
        return graph, tasks

    def get(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        self.settle()
        graph, tasks = self.graph(function, number, choice)
        wanted = [key] if key in KEYS else KEYS
        self.compare([tasks[key].value for key in wanted], lambda: self.clients[client].get(graph, wanted))

    def get_futures(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        self.settle()
        graph, tasks = self.graph(function, number, choice)
        wanted = [key] if key in KEYS else KEYS
        futures = self.clients[client].get(graph, wanted, sync=False)
        for name, future in zip(wanted, futures, strict=True):
            assert future.key == name
            self.hold(client, future, Plain(name, tasks[name].value, [tasks[name]]))

    def compute(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        self.settle()
        first = dask.delayed(FUNCTIONS[function])(number, dask_key_name="a")
        needs = self.usable(choice, but=["a"])
        second = dask.delayed(add, pure=True)(1, first, *[need.future for need in needs])
        value = value_of(0, 1, [value_of(function, number, []), *[need.task.value for need in needs]])
        with self.clients[client].as_current():
            self.compare([value], lambda: dask.compute(second) if choice % 2 else [second.compute()])

    def release(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        if self.held:
            del self.held[choice % len(self.held)]

    def cancel(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        """Cancelled are that client's futures of the key, and of what needs it, as far as no other client wants that."""
        self.settle()
        held = [one for one in self.held if not one.cancelled]
        if not held:
            return
        chosen = held[choice % len(held)]
        stack, seen = [chosen.task], set()
        while stack:
            task = stack.pop()
            if task in seen:
                continue
            seen.add(task)
            for one in held:
                if one.task is task and one.client == chosen.client:
                    one.cancelled = True
            if not any(one.task is task and not one.cancelled for one in held):
                stack += [other for other in self.all_tasks(held) if task in other.needs]
        self.clients[chosen.client].cancel([chosen.future])
        # The scheduler says what else is cancelled.
        self.settle()

    def all_tasks(self, held: list[Held]) -> list[Plain]:
        found: dict[Plain, None] = {}
        stack = [one.task for one in held]
        while stack:
            task = stack.pop()
            if task not in found:
                found[task] = None
                stack += task.needs
        return list(found)

    def result(self, client: int, key: Any, function: int, number: int, choice: int) -> None:
        if self.held:
            self.check(self.held[choice % len(self.held)])

    # ---- comparing

    def check(self, held: Held) -> None:
        if held.cancelled:
            with pytest.raises(FutureCancelledError):
                held.future.result(LIMIT_S)
        else:
            self.compare([held.task.value], lambda: [held.future.result(LIMIT_S)])

    def compare(self, expected: list[Any], compute: Any) -> None:
        failures = frozenset().union(*[value for value in expected if isinstance(value, frozenset)])
        try:
            values = list(compute())
        except ZeroDivisionError as error:
            assert str(error) in failures
        else:
            assert values == expected

    def end(self) -> None:
        while self.held:
            self.check(self.held.pop())
        self.settle()


def _question(number: int) -> Any:
    from treadle.messages.client_scheduler import Query

    return Query(number, "running_workers", {"workers": None})


ACTS = ["submit", "submit", "map", "get", "get", "get_futures", "compute", "release", "release", "cancel", "result", "result"]
small = st.integers(0, 11)
function = st.integers(0, len(FUNCTIONS) - 1)
act = st.tuples(st.sampled_from(ACTS), st.integers(0, 1), st.none() | st.sampled_from(MORE_KEYS), function, st.integers(0, 3), small)


@pytest.fixture(scope="module")
def clients() -> Iterator[list[Client]]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=False) as cluster,
        Client(cluster, set_as_default=False) as one,
        Client(cluster, set_as_default=False) as other,
    ):
        # There is much that is not of interest to the collections of each program.
        gc.collect()
        gc.freeze()
        yield [one, other]
        gc.unfreeze()


@settings(
    max_examples=PROGRAMS,
    deadline=None,
    derandomize=PROGRAMS <= 50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(acts=st.lists(act, min_size=1, max_size=20))
def test_programs_give_what_plain_python_gives(clients: list[Client], acts: list[Any]) -> None:
    program = Program(clients)
    event(f"{len(acts) // 5 * 5} acts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RedefinedKeyWarning)
        try:
            for name, *choices in acts:
                getattr(program, name)(*choices)
            program.end()
        finally:
            program.held.clear()
            program.settle()


def test_the_model_is_checked_against_a_program_that_is_known(clients: list[Client]) -> None:
    """A few lines that were written by hand, so that a model that compares nothing is noticed."""
    program = Program(clients)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RedefinedKeyWarning)
        program.submit(0, "a", 0, 1, 0)
        program.submit(1, "a", 0, 2, 0)
        program.submit(0, "b", 3, 5, 1)
        assert [held.task.value for held in program.held] == [1, 1, 1006]
        program.held[1].task = Plain("a", 2, [])
        with pytest.raises(AssertionError):
            program.check(program.held[1])
        program.held[1].task = program.held[0].task
        program.cancel(0, None, 0, 0, 0)
        assert [held.cancelled for held in program.held] == [True, False, False]
        program.end()
    assert list(itertools.chain(*[client.session.ledger.states for client in clients])) == []
