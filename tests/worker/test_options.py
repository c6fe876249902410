"""What a worker can be asked for, and how it refuses the rest."""

from concurrent.futures import ThreadPoolExecutor

import dask
import pytest

from treadle.worker import options
from treadle.worker.data.store import Store, make_mapping
from treadle.worker.server import Worker


def test_options_that_are_not_there_are_refused_and_unknown_ones_too():
    options.check_options({"plugins": (), "lifetime": None})
    with pytest.raises(NotImplementedError, match="plugins"):
        Worker("tcp://127.0.0.1:1", plugins=[object()])
    with pytest.raises(NotImplementedError, match="preload"):
        Worker("tcp://127.0.0.1:1", preload="module")
    with pytest.raises(TypeError, match="nthread_count"):
        Worker("tcp://127.0.0.1:1", nthread_count=5)
    with pytest.raises(ValueError, match="nthreads"):
        Worker("tcp://127.0.0.1:1", nthreads=0)
    with pytest.raises(ValueError, match="address of its scheduler"):
        Worker()


def test_scheduler_address():
    assert options.scheduler_address("tcp://h:1", None) == "tcp://h:1"
    assert options.scheduler_address("h:1", None) == "tcp://h:1"
    assert options.scheduler_address("h", 8786) == "tcp://h:8786"
    with dask.config.set({"scheduler-address": "tcp://configured:1"}):
        assert options.scheduler_address(None, None) == "tcp://configured:1"
    with pytest.raises(TypeError):
        options.scheduler_address(5, None)


def test_ports():
    assert list(options.ports(0)) == [0]
    assert list(options.ports(None)) == [0]
    assert list(options.ports("80:82")) == [80, 81, 82]
    assert list(options.ports("80")) == [80]
    assert list(options.ports(range(3, 5))) == [3, 4]
    with pytest.raises(ValueError, match="empty"):
        list(options.ports("82:80"))


def test_executors():
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        assert options.named_executors(None, pool) == {"offload": pool}
        assert options.named_executors(other, pool) == {"offload": pool, "default": other}
        assert options.named_executors("offload", pool) == {"offload": pool, "default": pool}
        assert options.named_executors({"gpu": other}, pool) == {"offload": pool, "gpu": other}
        for wrong in ("gpu", {"gpu": 5}):
            with pytest.raises(TypeError):
                options.named_executors(wrong, pool)


def test_resources():
    assert options.check_resources({"GPU": 1}) == {"GPU": 1.0}
    for wrong in (-1, "many"):
        with pytest.raises(ValueError, match="GPU"):
            options.check_resources({"GPU": wrong})


def test_mappings():
    assert make_mapping(None, "/d") == {}
    assert make_mapping(dict, "/d") == {}
    seen = {}

    def factory(worker_local_directory, size=0):
        seen.update(directory=worker_local_directory, size=size)
        return {}

    make_mapping((factory, {"size": 5}), "/d")
    assert seen == {"directory": "/d", "size": 5}
    make_mapping(factory, "/d")
    with pytest.raises(ValueError, match="must be empty"):
        make_mapping({"a": 1}, "/d")
    with pytest.raises(TypeError, match="mapping"):
        make_mapping((list, {}), "/d")


class Odd(dict):
    def __delitem__(self, key):
        raise OSError("stuck")


def test_a_store_over_a_mapping_of_the_users(caplog):
    store = Store(Odd())
    store.put("a", 1)
    store.put_anyway("b", 2, OSError("full"))
    assert store.collect(["a", "b"]) == {"a": 1, "b": 2}
    store.drop("a")
    store.drop("b")
    assert "stuck" in caplog.text
    with pytest.raises(KeyError):
        store.get("b")
