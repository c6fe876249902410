"""When a client's turns come: the first of a burst of submissions at once, the others together."""

import asyncio
import threading

import pytest

from treadle.client.rows.functions import Functions
from treadle.client.session.stream import Session
from treadle.messages.client_scheduler import ReleaseKeys

LIMIT_S = 30


class YoungLoop(asyncio.SelectorEventLoop):
    """Its clock begins at zero, as on a machine that was just booted."""

    began = 0.0

    def time(self):
        return super().time() - self.began


def run(main):
    loop = YoungLoop()
    loop.began = loop.time()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)


class FakeComm:
    closed = False
    unsent_bytes = 0

    def __init__(self):
        self.frames = 0

    def send(self, body, buffers=()):
        self.frames += 1


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch):
    monkeypatch.setattr("treadle.client.session.pacing.BURST_S", 3600.0)


async def submit(session):
    session.outgoing.add(ReleaseKeys([1]))
    session.outgoing.add(ReleaseKeys([2]))
    session.submitted()
    for _ in range(5):
        await asyncio.sleep(0)


async def session_in_a_burst():
    session = Session(asyncio.get_running_loop(), session=b"s", functions=Functions(), on_status=lambda status: None)
    session.comm, session.connected = FakeComm(), True
    await submit(session)
    assert session.comm.frames == 1
    await submit(session)
    await submit(session)
    assert session.comm.frames == 1
    return session


def test_a_burst_goes_together_as_soon_as_somebody_waits():
    async def main():
        session = await session_in_a_burst()
        (state,), _, _ = session.ledger.claim(["a"])
        waits = threading.Thread(target=session.settled_here, args=([state], False, LIMIT_S))
        waits.start()
        async with asyncio.timeout(LIMIT_S):
            while session.comm.frames < 2:
                await asyncio.sleep(0)
        wake = []
        with session.lock:
            session.ledger.cancel([state], "enough", None, wake)
        for waiter in wake:
            waiter.wake()
        waits.join(LIMIT_S)
        assert session.comm.frames == 2

    run(main())


def test_a_burst_goes_with_the_turn_that_hears_something():
    async def main():
        session = await session_in_a_burst()
        session._receive(b"\x90", [])
        for _ in range(5):
            await asyncio.sleep(0)
        assert session.comm.frames == 2
        # Now it is no burst any more.
        await submit(session)
        assert session.comm.frames == 3

    run(main())


def test_who_waits_first_is_not_put_off():
    async def main():
        session = await session_in_a_burst()
        session.hurry()
        for _ in range(5):
            await asyncio.sleep(0)
        session.hurry()
        await submit(session)
        assert session.comm.frames == 3

    run(main())
