"""An argument is what it was when the call was submitted, of the type that it had."""

from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest

from treadle.client.client import Client
from treadle.deploy.local import LocalCluster


@pytest.fixture(scope="module", params=[True, False], ids=["processes", "threads"])
def client(request):
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=request.param) as cluster, Client(cluster) as client:
        yield client


def first_type(value):
    return type(value[0]).__name__


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_an_array_that_is_filled_anew_after_each_submit(client, size):
    array, futures = np.zeros(size), []
    for number in range(5):
        array[:] = number
        futures.append(client.submit(np.max, array))
    assert client.gather(futures) == [0, 1, 2, 3, 4]


def test_an_array_that_changes_after_map(client):
    array = np.ones(50_000)
    futures = client.map(np.add, [array], [1])
    array[:] = 7
    assert client.submit(np.max, futures[0]).result() == 2


def test_an_array_in_a_graph_that_changes_after_compute(client):
    array, other = np.ones(1_000), np.ones(4_000)
    delayed = client.compute(dask.delayed(np.sum)(array))
    chunked = client.compute(da.from_array(other, chunks=1_000).sum())
    array[:] = other[:] = 7
    assert delayed.result() == 1_000 and chunked.result() == 4_000


def test_large_arguments_keep_the_types_of_what_is_in_them(client):
    big = {number: number for number in range(20_000)}
    assert [client.submit(first_type, [kind(big)]).result() for kind in (Counter, dict)] == ["Counter", "dict"]


def test_scattered_values_keep_the_types_of_what_is_in_them(client):
    counter, plain = client.scatter([[Counter(a=1)], [{"a": 1}]])
    assert counter.key != plain.key
    assert [client.submit(first_type, future).result() for future in (counter, plain)] == ["Counter", "dict"]
