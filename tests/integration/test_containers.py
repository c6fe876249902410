"""Containers of users' types keep their types, with futures for values and values for futures; and one may contain itself."""

import copy
from collections import Counter, OrderedDict, defaultdict, namedtuple

import pytest

from treadle.client.client import Client
from treadle.client.futures import Future
from treadle.deploy.local import LocalCluster


@pytest.fixture(scope="module")
def client():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        yield client


class Bunch(dict):
    """As scikit-learn's: made by keywords only, items are attributes."""

    def __init__(self, **kwargs):
        super().__init__(kwargs)

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setstate__(self, state):
        pass


class Named(list):
    def __init__(self, name, items=()):
        super().__init__(items)
        self.name = name


class Pair(tuple):
    pass


class Some(set):
    pass


Point = namedtuple("Point", "x y")


def inc(x):
    return x + 1


def describe(value):
    return type(value).__name__, value, getattr(value, "name", None)


DICTS = {
    "Counter": Counter(a=1, b=2),
    "OrderedDict": OrderedDict(b=1, a=2),
    "defaultdict": defaultdict(list, a=1),
    "Bunch": Bunch(a=1, b=2),
    "dict": {"a": 1},
}


@pytest.mark.parametrize("data", DICTS.values(), ids=DICTS)
def test_a_dict_that_is_scattered_keeps_its_type(client, data):
    futures = client.scatter(data)
    assert type(futures) is type(data)
    assert list(futures) == list(data)
    assert all(type(future) is Future for future in futures.values())
    values = client.gather(futures)
    assert type(values) is type(data) and values == data


CONTAINERS = {
    **DICTS,
    "Named": Named("the list", [1, 2]),
    "list": [1, 2],
    "Pair": Pair((1, 2)),
    "tuple": (1, 2),
    "Point": Point(1, 2),
    "Some": Some([1, 2]),
    "set": {1, 2},
    "frozenset": frozenset([1, 2]),
}


def with_futures(client, container):
    """The container with futures of its values, which are one more."""
    if isinstance(container, dict):
        other = copy.copy(container)
        for key, value in container.items():
            other[key] = client.submit(inc, value - 1)
        return other
    futures = [client.submit(inc, value - 1) for value in container]
    if isinstance(container, Named):
        return Named(container.name, futures)
    return type(container)(*futures) if isinstance(container, Point) else type(container)(futures)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_an_argument_with_futures_keeps_its_type(client, container):
    expected = (type(container).__name__, container, getattr(container, "name", None))
    assert client.submit(describe, with_futures(client, container)).result() == expected
    assert client.submit(describe, [{"x": with_futures(client, container)}]).result()[1][0]["x"] == container
    assert client.submit(type, value).result() is type(container) if (value := with_futures(client, container)) else True
    (result,) = client.gather(client.map(describe, [with_futures(client, container)]))
    assert result == expected
    if isinstance(container, defaultdict):
        assert client.submit(lambda d: d["new"], with_futures(client, container)).result() == []


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_what_is_gathered_keeps_its_type(client, container):
    values = client.gather(with_futures(client, container))
    assert type(values) is type(container) and values == container
    assert getattr(values, "name", None) == getattr(container, "name", None)


def test_a_list_may_contain_itself(client):
    items = [1]
    items.append(items)
    back = client.submit(lambda x: x, items).result()
    assert back[0] == 1 and back[1] is back
    named = {"items": items}
    items.append(named)
    back = client.submit(lambda x: x, named, pure=False).result()
    assert back["items"][2] is back
    assert client.submit(len, items, key="chosen").result() == 3
    assert client.gather(client.map(len, [items, items, [1]])) == [3, 3, 1]
    assert client.submit(lambda x, y: (x[1] is x, y), items, client.submit(inc, 1)).result() == (True, 2)


def test_one_that_contains_itself_and_a_future_is_refused(client):
    items = [client.submit(inc, 1)]
    items.append(items)
    with pytest.raises(TypeError, match="list that contains itself"):
        client.submit(len, items)
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TypeError, match="nested too deeply"):
        client.submit(len, deep)
