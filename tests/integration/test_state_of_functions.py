"""What a call changes in its function is gone with the call, however the function comes to the worker."""

import functools
import importlib
import sys

import cloudpickle
import dask
import pytest
from dask._task_spec import Task, TaskRef

from treadle.client.client import Client
from treadle.client.rows.changing import travels_by_name
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


MODULE = """
import dask

FACTOR = 1

@dask.delayed
def append(x, seen=[]):
    seen.append(x)
    return list(seen)

@dask.delayed
def times(x):
    return x * FACTOR

def plain(x):
    return x
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that workers could import, whose decorated functions travel by value: their names lead to something else."""
    name = f"functions_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    del sys.modules[name]


def test_a_decorated_function_of_a_module_keeps_nothing(client, module):
    assert dask.compute(*[module.append(number) for number in range(3)]) == ([0], [1], [2])


def test_a_decorated_function_of_a_module_sees_its_globals_of_now(client, module):
    assert module.times(3).compute() == 3
    module.FACTOR = 10
    assert module.times(3).compute() == 30


def test_what_travels_by_name(module):
    assert travels_by_name(module.plain)
    assert not travels_by_name(module.times._obj)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert not travels_by_name(module.plain)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
