"""A key may have several ids for a while: its value is freed with the last of them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import MutableMapping
from typing import Any

import pytest

from treadle import Client
from treadle.worker.data.store import Store


@pytest.fixture(params=[dict, UserDict])
def store(request: pytest.FixtureRequest) -> Store:
    mapping: MutableMapping[Any, Any] = request.param()
    return Store(mapping)


def put(store: Store, *keys: str) -> None:
    if not store.put_all([(key, key.upper()) for key in keys]):
        for key in keys:
            store.put(key, key.upper())


def test_put_twice(store: Store) -> None:
    put(store, "x", "y")
    put(store, "x", "z")
    put(store, "x")
    for _ in range(2):
        store.drop_all(["x", "y", "z"])
        assert store.get("x") == "X"
    store.drop("x")
    assert len(store.mapping) == 0


def test_put_twice_at_once(store: Store) -> None:
    put(store, "x", "y", "x", "x")
    for _ in range(2):
        store.drop("x")
        assert store.get("x") == "X"
    store.drop_all(["x", "y"])
    assert len(store.mapping) == 0


def test_put_again_after_it_was_dropped(store: Store) -> None:
    for _ in range(3):
        put(store, "x", "y")
        store.drop_all(["y", "x"])
        assert len(store.mapping) == 0


def test_lost_and_put_again(store: Store) -> None:
    put(store, "x")
    del store.mapping["x"]
    put(store, "x")
    store.drop_all(["x"])
    assert len(store.mapping) == 0


def test_refused_by_the_users_mapping() -> None:
    store = Store(UserDict())
    store.put_anyway("x", 1, ValueError())
    store.put_anyway("x", 1, ValueError())
    store.drop("x")
    assert store.get("x") == 1
    store.drop("x")
    with pytest.raises(KeyError):
        store.get("x")


def test_same_data_scattered_twice() -> None:
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client:
        (one,) = client.scatter([[1, 2, 3]])
        (other,) = client.scatter([[1, 2, 3]])
        assert one.key == other.key
        assert client.submit(sum, one).result(timeout=30) == 6
        del one
        assert other.result(timeout=30) == [1, 2, 3]
