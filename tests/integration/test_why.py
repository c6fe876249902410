"""``client.why`` and the watchdog: what waits, says for what."""

import logging
import os
import threading
import time

import dask.config
import pytest

from treadle import Client, LocalCluster

EVENTS = {}


@pytest.fixture
def cluster():
    with dask.config.set({"treadle.scheduler.stuck-after": "200ms"}):
        with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, resources={"GPU": 1}) as cluster:
            yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client
        for event in EVENTS.values():
            event.set()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def wait_in_task(name, *others):
    EVENTS[name].wait(60)
    return name


def test_what_executes_and_what_stands_behind_it(client):
    EVENTS["a"] = threading.Event()
    running = client.submit(wait_in_task, "a", pure=False)
    behind = client.map(len, ["x"] * 50, pure=False)
    wait_for(lambda: client.why(running).executing_s is not None)
    told = client.why(running)
    assert told.state == "processing" and told.worker in client.scheduler_info()["workers"]
    assert "has been executing for" in str(told)
    last = client.why(behind[-1])
    assert last.state in ("queued", "processing")
    assert "wait for a free thread" in str(last) or "one of" in str(last)
    EVENTS["a"].set()
    client.gather(behind)
    done = client.why(running)
    assert done.state == "memory" and "1 workers have it" in str(done)
    assert client.why("nobody-knows").state == "forgotten"


def test_what_waits_names_what_it_waits_for_in_the_end(client):
    EVENTS["b"] = threading.Event()
    first = client.submit(wait_in_task, "b", pure=False)
    second = client.submit(str.upper, first)
    third = client.submit(len, second)
    wait_for(lambda: client.why(first).executing_s is not None)
    told = client.why(third)
    assert told.state == "waiting" and told.waiting_for == [(second.key, "waiting")]
    assert [cause[0] for cause in told.causes] == [first.key]
    assert "waits for 1 of the 1 tasks" in str(told) and "it was given to" in str(told)


def test_conditions_that_nobody_fulfils(client):
    there = client.submit(len, "x", workers=["nobody"], pure=False)
    much = client.submit(len, "x", resources={"GPU": 5}, pure=False)
    wait_for(lambda: client.why(much).state == "no-worker")
    assert "may run on ['nobody'] only, and none of these is here" in str(client.why(there))
    assert "needs 5 of the resource 'GPU', and no worker that may run it has more than 1" in str(client.why(much))


def test_an_error_is_told(client):
    bad = client.submit(lambda: 1 // 0)
    after = client.submit(len, bad)
    bad.exception(), after.exception()
    assert "ZeroDivisionError" in str(client.why(bad))
    assert "what it needs has failed" in str(client.why(after))


def test_the_watchdog_names_what_makes_no_progress_once(client, caplog):
    EVENTS["c"] = threading.Event()
    running = client.submit(wait_in_task, "c", pure=False)
    stuck = client.submit(len, "x", resources={"GPU": 5}, pure=False)

    def lines(key):
        messages = [record.getMessage() for record in caplog.records]
        return [message for message in messages if repr(key) in message and "no progress" in message]

    with caplog.at_level(logging.WARNING, "treadle.scheduler.watchdog"):
        wait_for(lambda: lines(stuck.key))
        other = client.submit(len, "y", resources={"GPU": 6}, pure=False)
        wait_for(lambda: lines(other.key))
    assert "resource 'GPU'" in lines(stuck.key)[0]
    assert len(lines(stuck.key)) == 1
    # What executes may take as long as it likes.
    assert lines(running.key) == []


def test_a_worker_that_does_not_answer_is_named():
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        (pid,) = client.run(os.getpid).values()
        # A lambda: the worker's process cannot import this module.
        future = client.submit(lambda: os.kill(os.getpid(), 19), pure=False)
        wait_for(lambda: cluster.workers[0].process.look().stopped)
        told = client.why(future)
        assert told.state == "processing" and "nothing, within" in str(told)
        os.kill(pid, 18)
        assert future.result(timeout=60) is None
