"""What a user lets go of is let go of: futures of failed tasks, and what the frames held that saw the error."""

import gc
import time
import weakref

import pytest

from treadle import Client, LocalCluster, as_completed


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


class Large:
    """Stands for what a user's function holds while it sees an error."""


def fail(number):
    raise ValueError(number)


def by_result(client, future, dependent):
    with pytest.raises(ValueError):
        future.result(timeout=60)


def by_dependent(client, future, dependent):
    with pytest.raises(ValueError):
        dependent.result(timeout=60)


def by_gather(client, future, dependent):
    with pytest.raises(ValueError):
        client.gather([future, dependent])


def by_exception(client, future, dependent):
    assert isinstance(dependent.exception(timeout=60), ValueError)


def by_traceback(client, future, dependent):
    assert future.traceback(timeout=60).tb_frame.f_code.co_name == "fail"


def by_as_completed(client, future, dependent):
    for done in as_completed([future, dependent]):
        assert done.exception().args == (1,)


@pytest.mark.parametrize("look", [by_result, by_dependent, by_gather, by_exception, by_traceback, by_as_completed])
def test_an_error_that_was_seen_keeps_nothing(cluster, client, look):
    def see():
        large = Large()
        future = client.submit(fail, 1, pure=False)
        look(client, future, client.submit(abs, future))
        return weakref.ref(large)

    gc.collect()
    gc.disable()
    try:
        large = see()
        deadline = time.monotonic() + 60
        while cluster.scheduler.tasks:
            assert time.monotonic() < deadline, "the cluster still keeps the failed task"
            time.sleep(0.01)
        assert large() is None
    finally:
        gc.enable()
