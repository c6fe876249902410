"""A key that was chosen says nothing of its task: two tasks may have it, and nobody may get the other's result."""

import operator
import random
import threading
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Task, TaskRef

from treadle.client.client import Client
from treadle.client.waiting import futures_of, wait
from treadle.deploy.local import LocalCluster
from treadle.exceptions import FutureCancelledError, RedefinedKeyError, RedefinedKeyWarning

LIMIT_S = 60


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client, warnings.catch_warnings():
        warnings.simplefilter("error", RedefinedKeyWarning)
        yield client


@pytest.fixture
def other(cluster):
    with Client(cluster, set_as_default=False) as client:
        yield client


def add(*values):
    return sum(values)


def inc(x):
    return x + 1


def random_graph(seed, size):
    """Sums of earlier ones, and what they come to."""
    chance = random.Random(seed)
    graph, values = {}, {}
    for i in range(size):
        needs = [f"n{chance.randrange(i)}" for _ in range(chance.randrange(3))] if i else []
        number = chance.randrange(1000)
        graph[f"n{i}"] = (add, number, *needs)
        values[f"n{i}"] = number + sum(values[need] for need in needs)
    return graph, values


def count_wrong(client, seeds, size=60):
    wrong = 0
    for seed in seeds:
        graph, values = random_graph(seed, size)
        wrong += client.get(graph, f"n{size - 1}") != values[f"n{size - 1}"]
    return wrong


def test_the_same_keys_in_graph_after_graph(client):
    assert count_wrong(client, range(60)) == 0


def test_the_same_keys_in_graphs_of_several_clients_and_threads(client, other):
    wrong = []
    threads = [
        threading.Thread(target=lambda which=which, start=start: wrong.append(count_wrong(which, range(start, start + 20))))
        for start, which in enumerate([client, client, other, other])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert wrong == [0] * 4


def test_what_somebody_holds_does_not_matter_to_get(client, other):
    held = [client.submit(inc, 1, key="x"), other.submit(inc, 1, key=("y", 0))]
    assert client.get({"x": (inc, 10), "z": (inc, "x")}, ["x", "z"]) == [11, 12]
    assert client.get({("y", 0): (inc, 20), "z": (inc, ("y", 0))}, "z") == 22
    assert client.gather(held[0]) == 2 and other.gather(held[1]) == 2


def test_a_graph_may_refer_to_what_is_held(client):
    held = client.submit(inc, 1, key="x")
    assert client.get({"z": Task("z", inc, TaskRef("x"))}, "z") == 3
    assert client.get({"x": held, "z": (inc, "x")}, ["x", "z"]) == [2, 3]


@pytest.mark.parametrize("key", ["k", 5, 2.5, ("k", 1), (5, 1), (("k", 1), 2)], ids=repr)
def test_keys_of_all_kinds(client, key):
    graph = {key: (inc, 1), "end": (inc, key)}
    assert client.get(graph, [key, "end"]) == [2, 3]
    assert client.get({**graph, key: (inc, 4)}, ["end", [key]]) == [6, [5]]
    futures = client.get(graph, [key, "end"], sync=False)
    assert [future.key for future in futures] == [key, "end"]
    assert client.gather(futures) == [2, 3]


def test_keys_that_look_alike_stay_apart(client):
    graph = {1: (inc, 11), "1": (inc, 12), (1, 0): (inc, 13), ("1", 0): (inc, 14), (("1", 0), 0): (inc, 15), ("('1', 0)", 0): (inc, 16)}
    assert client.get(graph, list(graph)) == [12, 13, 14, 15, 16, 17]


def test_a_node_that_travels_as_it_is_knows_what_it_needs(client):
    class Named(Task):
        pass

    graph = {"x": (inc, 1), "z": Named("z", operator.add, TaskRef("x"), 1)}
    assert client.get(graph, "z") == 3


def test_a_hash_of_a_name_is_no_hash_of_what_is_called_so(client):
    """dask hashes the name of an array, not what is in it."""
    arrays = [da.from_array(np.full(4, i), chunks=2, name="data") + 1 for i in range(3)]
    assert len({array.name for array in arrays}) == 1
    held = client.persist(arrays[0])
    assert [int(array.sum().compute()) for array in arrays] == [4, 8, 12]
    assert int(held.sum().compute()) == 4


def test_what_was_persisted_is_used(client):
    runs = client.submit(list, key="runs").result()
    assert runs == []

    @dask.delayed(pure=False)
    def once(_):
        return object()

    first = once(0)
    first = client.persist(first)
    wait(first)
    who_has = client.who_has(futures_of(first))
    second = dask.delayed(type)(first)
    assert second.compute() is object
    assert client.who_has(futures_of(first)) == who_has


def test_a_chosen_name_that_was_persisted_is_used(client):
    def fill(block_id=None):
        return np.full(2, next(iter([id(object())])) % 1000)

    array = client.persist(da.map_blocks(fill, chunks=((2, 2),), dtype=int, name="chosen"))
    assert [key[0] for key in client.who_has(futures_of(array))] == ["chosen", "chosen"]
    np.testing.assert_array_equal(array.compute(), (array + 0).compute())


def test_a_call_depends_on_what_its_argument_is_not_on_its_name(client):
    data = client.scatter({"data": 1})["data"]
    result = client.submit(inc, data)
    assert result.result() == 2
    del data
    data = client.scatter({"data": 10})["data"]
    assert (data.result(), client.submit(inc, data).result(), result.result()) == (10, 11, 2)


# ------------------------------------------------------------------------------------------ first definition wins


def test_a_key_whose_futures_are_gone_is_free(client):
    for i in range(30):
        assert client.submit(inc, i, key="again").result() == i + 1
    for i in range(30):
        assert client.gather(client.map(inc, [i, -i], key=["again-0", "again-1"])) == [i + 1, 1 - i]


def test_a_key_that_is_held_stands_for_its_first_task(client):
    first = client.submit(inc, 1, key="first")
    with pytest.warns(RedefinedKeyWarning, match="'first'") as caught:
        second = client.submit(inc, 2, key="first")
    assert caught[0].filename == __file__
    assert (first.result(), second.result()) == (2, 2)


def test_map_names_the_keys(client):
    held = client.map(inc, [1, 2], key=["m0", "m1"])
    with pytest.warns(RedefinedKeyWarning, match="'m1'") as caught:
        again = client.map(inc, [1, 5, 6], key=["m0", "m1", "m2"])
    assert len(caught) == 1
    assert client.gather(held + again) == [2, 3, 2, 3, 7]
    with pytest.warns(RedefinedKeyWarning, match="'twice'"):
        assert client.gather(client.map(inc, [1, 2], key=["twice", "twice"])) == [2, 2]


def test_equal_calls_are_no_other_tasks(client, other):
    def make(n):
        return lambda x, y=[n]: x + y[0]

    held = client.submit(make(1), 1, key="equal")
    again = [client.submit(make(1), 1, key="equal"), client.submit(make(1), 1, key="equal")]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RedefinedKeyWarning)
        again.append(other.submit(make(1), 1, key="equal"))
        assert [future.result() for future in [held, *again]] == [2] * 4
    graph = {"g": (make(2), 3), "h": (inc, "g")}
    futures = [client.get(dict(graph), ["g", "h"], sync=False) for _ in range(2)]
    assert client.gather(futures) == [[5, 6], [5, 6]]


def test_persist_of_a_key_that_is_held(client):
    held = client.get({"p": (inc, 1)}, "p", sync=False)
    with pytest.warns(RedefinedKeyWarning, match="'p'"):
        p, q = client.get({"p": (inc, 5), "q": (inc, "p")}, ["p", "q"], sync=False)
    # Who asks for the key gets what is called so; tasks of a graph see that graph's own tasks.
    assert client.gather([held, p, q]) == [2, 2, 7]


def test_a_key_of_another_client(client, other):
    held = other.submit(inc, 1, key="theirs")
    wait(held)
    with pytest.warns(RedefinedKeyWarning, match="'theirs'"):
        mine = client.submit(inc, 5, key="theirs")
        assert mine.result() == 2
        # The scheduler has said so before it said where the value is.
    assert client.submit(inc, mine).result() == 3
    assert client.get({"theirs": (inc, 5), "z": (inc, "theirs")}, "z") == 7


def test_it_can_be_an_error(client, other):
    mine, theirs = client.submit(inc, 1, key="mine"), other.submit(inc, 1, key="theirs")
    wait(theirs)
    with dask.config.set({"treadle.client.redefined-keys": "error"}):
        with pytest.raises(RedefinedKeyError, match="'mine'"):
            client.submit(inc, 2, key="mine")
        with pytest.raises(RedefinedKeyError, match="'mine'"):
            client.map(inc, [1, 2], key=["mine", "mine"])
        with pytest.raises(RedefinedKeyError, match="'mine'"):
            client.get({"mine": (inc, 3)}, "mine", sync=False)
        refused = client.submit(inc, 5, key="theirs")
        with pytest.raises(FutureCancelledError, match="theirs.*another task"):
            refused.result(LIMIT_S)
        dependent = client.submit(inc, refused)
        with pytest.raises(FutureCancelledError):
            dependent.result(LIMIT_S)
    with dask.config.set({"treadle.client.redefined-keys": "maybe"}), pytest.raises(ValueError, match=r"treadle\.client\.redefined-keys"):
        client.submit(inc, 3, key="another")
    assert mine.result() == 2


def test_a_key_of_another_client_that_was_released_before_it_is_told(client, other):
    held = other.submit(inc, 1, key="released")
    wait(held)
    for i in range(20):
        client.submit(inc, i + 10, key="released")
        # Its turn must not be disturbed: what else it hears comes through.
        assert client.submit(inc, i, pure=False).result(LIMIT_S) == i + 1
