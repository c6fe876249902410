"""Datasets outlive the client that has published them, and are kept until somebody takes the name back."""

import asyncio
import time

import dask
import pytest

from treadle import Client, LocalCluster, wait


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def numbers():
    import dask.bag

    return dask.bag.from_sequence(range(10), npartitions=3).map(lambda number: number + 1)


def test_another_client_gets_it_when_the_first_one_is_gone(cluster, client):
    with Client(cluster, set_as_default=False) as first:
        futures = first.map(lambda number: number * 2, range(5))
        first.publish_dataset(doubled=futures, bag=first.persist(numbers()), plain={"a": 1})
        assert first.list_datasets() == ("doubled", "bag", "plain")
        del futures
    assert client.gather(client.get_dataset("doubled")) == [0, 2, 4, 6, 8]
    assert client.get_dataset("bag").sum().compute() == 55
    assert client.get_dataset(["plain"]) == [{"a": 1}]
    for name in client.list_datasets():
        client.unpublish_dataset(name)
    assert client.list_datasets() == ()
    until(lambda: not client.who_has())


def test_names(client):
    client.publish_dataset(client.submit(len, "abc"), name=("a", 1))
    with pytest.raises(KeyError, match="already"):
        client.publish_dataset(1, name=("a", 1))
    assert client.get_dataset(("a", 1)).result() == 3
    client.publish_dataset(2, name=("a", 1), override=True)
    assert client.get_dataset(("a", 1)) == 2
    until(lambda: not client.who_has())
    with pytest.raises(KeyError, match="there is no dataset 'b'"):
        client.get_dataset("b")
    assert client.get_dataset("b", default=7) == 7
    with pytest.raises(KeyError, match="there is no dataset 'b'"):
        client.unpublish_dataset("b")
    with pytest.raises(TypeError, match="cannot be the name"):
        client.publish_dataset(1, name=object())
    for wrong in (lambda: client.publish_dataset(1), lambda: client.publish_dataset(1, 2, name="x"), lambda: client.publish_dataset()):
        with pytest.raises(ValueError, match="dataset"):
            wrong()


def test_what_is_cancelled_cannot_be_published(client):
    future = client.submit(len, "abc")
    client.cancel(future)
    with pytest.raises(Exception, match="cancelled"):
        client.publish_dataset(lost=future)
    assert client.list_datasets() == ()


def test_mapping(client):
    client.datasets["x"] = client.submit(len, "abc")
    assert list(client.datasets) == ["x"] and len(client.datasets) == 1 and "x" in client.datasets and "y" not in client.datasets
    assert client.datasets["x"].result() == 3
    del client.datasets["x"]
    assert dict(client.datasets) == {}
    with pytest.raises(KeyError):
        client.datasets["x"]


def test_restart_takes_all_names_back(client):
    client.publish_dataset(x=client.submit(len, "abc"))
    client.restart()
    assert client.list_datasets() == ()


def test_tasks_publish_and_get(client):
    def publish(name):
        from treadle import get_client

        own = get_client()
        own.publish_dataset(own.submit(sum, [1, 2, 3]), name=name)

    wait(client.submit(publish, "inner"))
    assert client.get_dataset("inner").result() == 6


def test_asynchronous():
    async def scene():
        async with (
            LocalCluster(n_workers=1, threads_per_worker=1, processes=False, asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await client.publish_dataset(x=client.submit(len, "abc"))
            assert [name async for name in client.datasets] == ["x"]
            assert await (await client.get_dataset("x")) == 3
            for use in (lambda: client.datasets["x"], lambda: list(client.datasets), lambda: len(client.datasets)):
                with pytest.raises(TypeError, match="asynchronous client"):
                    use()
            await client.unpublish_dataset("x")
            assert await client.list_datasets() == ()

    with dask.config.set({"distributed.admin.tick.interval": "1s"}):
        asyncio.run(scene())
