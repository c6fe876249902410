"""A value that came from outside may have several ids for a while: it is freed with the last of them."""

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


def test_handed_over_twice(store: Store) -> None:
    for _ in range(2):
        store.hand_over(["x"])
        put(store, "x")
    store.drop_all(["x"])
    assert store.get("x") == "X"
    store.drop_all(["x"])
    assert len(store.mapping) == 0


def test_here_before_it_was_handed_over(store: Store) -> None:
    put(store, "x")
    store.hand_over(["x"])
    put(store, "x")
    store.drop_all(["x"])
    assert store.get("x") == "X"
    store.drop("x")
    assert len(store.mapping) == 0


def test_computed_after_it_was_handed_over(store: Store) -> None:
    store.hand_over(["x"])
    put(store, "x", "y")
    put(store, "x", "z")
    store.drop_all(["x", "y", "z"])
    assert list(store.mapping) == ["x"]
    store.drop_all(["x"])
    assert len(store.mapping) == 0


def test_handed_over_and_not_kept(store: Store) -> None:
    store.hand_over(["x"])
    put(store, "x")
    store.drop_all(["x"])
    assert len(store.mapping) == 0


def test_lost_and_put_again(store: Store) -> None:
    store.hand_over(["x"])
    put(store, "x")
    del store.mapping["x"]
    put(store, "x")
    store.drop_all(["x"])
    assert len(store.mapping) == 0


def test_refused_by_the_users_mapping() -> None:
    store = Store(UserDict())
    store.hand_over(["x"])
    store.put_anyway("x", 1, ValueError())
    store.hand_over(["x"])
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
