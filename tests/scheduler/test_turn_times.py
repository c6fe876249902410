"""How long turns took, by the kind of their events."""

from __future__ import annotations

import asyncio

import pytest

from treadle.client.client import Client
from treadle.messages.client_scheduler import ReleaseKeys, Sent, SubmitTasks
from treadle.messages.scheduler_local import Tick
from treadle.scheduler.server import Scheduler
from treadle.scheduler.transitions.machine import Event
from treadle.scheduler.turn_times import SEVERAL, TurnTimes, bucket_of, end_of
from treadle.worker.server import Worker

TICK = Event(0, Tick())
RELEASE = Event(1, ReleaseKeys([]))
SUBMIT = Event(1, SubmitTasks(1, [], [], [], []))
SENT = Event(1, Sent(1))


def test_buckets_hold_what_they_say() -> None:
    for microseconds in [*range(3000), 10**6, 10**7, 10**8]:
        bucket = bucket_of(microseconds)
        assert microseconds * 1e-6 < end_of(bucket)
        assert microseconds < 8 or end_of(bucket) <= microseconds * 1.25e-6 + 1e-5
        assert bucket_of(microseconds) <= bucket_of(microseconds + 1)
    assert bucket_of(-1) == 0 and bucket_of(10**15) == bucket_of(10**14)


def test_quantiles() -> None:
    times = TurnTimes()
    for milliseconds in range(1, 101):
        times.book([TICK], milliseconds / 1000)
    (found,) = times.statistics().values()
    assert found["turns"] == found["events"] == 100
    assert 0.050 <= found["p50_s"] <= 0.063
    assert 0.099 <= found["p99_s"] <= 0.1
    assert found["longest_s"] == 0.1


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([TICK], "Tick"),
        ([SUBMIT, SENT], "SubmitTasks"),
        ([SENT], "Sent"),
        ([RELEASE, SENT, RELEASE], "ReleaseKeys"),
        ([SUBMIT, RELEASE], SEVERAL),
    ],
)
def test_the_kind_of_a_turn(events: list[Event], kind: str) -> None:
    times = TurnTimes()
    times.book(events, 0.1)
    assert list(times.statistics()) == [kind]


def test_a_scheduler_tells_them() -> None:
    async def run() -> None:
        async with (
            Scheduler() as scheduler,
            Worker(scheduler.address, nthreads=1, security=scheduler.security),
            Client(scheduler.address, asynchronous=True) as client,
        ):
            assert await client.submit(abs, -1) == 1
            turns = scheduler.statistics()["turns"]
            assert turns["TasksFinished"]["turns"] >= 1
            assert 0 < turns["TasksFinished"]["p50_s"] <= turns["TasksFinished"]["longest_s"]

    asyncio.run(run())
