"""What a call changes in its function is gone with the call, however the function comes to the worker."""

import functools

import dask
import pytest
from dask._task_spec import Task, TaskRef

from treadle.client.client import Client
from treadle.deploy.local import LocalCluster


@pytest.fixture(scope="module")
def client():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        yield client


class Counter:
    def __init__(self):
        self.seen = []

    def add(self, x):
        self.seen.append(x)
        return list(self.seen)

    __call__ = add

    async def wait(self, x):
        return self.add(x)


def with_a_default():
    def f(x, seen=[]):  # noqa: B006
        seen.append(x)
        return list(seen)

    return f


def with_a_closure():
    seen = []

    def f(x):
        seen.append(x)
        return list(seen)

    return f


FUNCTIONS = {
    "default": with_a_default,
    "closure": with_a_closure,
    "object": Counter,
    "bound method": lambda: Counter().add,
    "coroutine": lambda: Counter().wait,
    "partial": lambda: functools.partial(with_a_default(), seen=[]),
}
EXPECTED = [[0], [1], [2], [3]]


@pytest.fixture(params=FUNCTIONS.values(), ids=FUNCTIONS)
def function(request):
    return request.param()


def test_submit(client, function):
    assert client.gather([client.submit(function, i, pure=False) for i in range(4)]) == EXPECTED


def test_map(client, function):
    assert client.gather(client.map(function, range(4))) == EXPECTED


def test_delayed(client, function):
    named = dask.delayed(function, name="appends")
    assert list(dask.compute(*[named(i) for i in range(4)], scheduler=client.get)) == EXPECTED


def test_graph(client, function):
    assert client.get({("x", i): (function, i) for i in range(4)}, [("x", i) for i in range(4)]) == EXPECTED


def test_fused_tasks(client, function):
    if function.__name__ == "wait" if hasattr(function, "__name__") else False:
        pytest.skip("dask does not await what is inside of a task")
    inner = {"a": Task("a", function, TaskRef("in")), "b": Task("b", tuple, TaskRef("a"))}
    graph = {("z", i): _fused(("z", i), inner, i) for i in range(4)}
    assert client.get(graph, list(graph)) == [tuple(value) for value in EXPECTED]


def test_constants_of_fused_tasks(client):
    def append(items, named, x):
        items[0].append(x)
        named["x"].append(x)
        return items, named

    inner = {"a": Task("a", append, [[]], {"x": []}, TaskRef("in")), "b": Task("b", list, TaskRef("a"))}
    graph = {("y", i): _fused(("y", i), inner, i) for i in range(4)}
    assert client.get(graph, list(graph)) == [[[[i]], {"x": [i]}] for i in range(4)]


def _fused(key, inner, value):
    from dask._task_spec import DataNode, _execute_subgraph

    return Task(key, _execute_subgraph, inner, "b", ("in",), DataNode(None, value))
