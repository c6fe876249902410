"""What holds for every transport: frames in order, closing, refusing, pausing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from treadle.comm.interface import Buffer, Comm, CommLimits, Introduction, Listener, Role
from treadle.comm.registry import connect, listen
from treadle.exceptions import AuthenticationError, CommClosedError, PeerProtocolError

LIMIT_S = 60
SECRET = b"the secret of the cluster"
SESSION = b"listener-session"
ME = Introduction(Role.CLIENT, b"connecting-party")

TRANSPORTS = ["tcp://127.0.0.1:0", "tcp://[::1]:0", "inproc://"]
every_transport = pytest.mark.parametrize("address", TRANSPORTS)


class End:
    """One end of a comm that writes down what happens to it."""

    def __init__(self, comm: Comm, on_frame: Callable[[Comm, bytes], None] | None = None) -> None:
        self.comm = comm
        self.frames: list[tuple[bytes, list[Buffer]]] = []
        self.closed: list[Exception | None] = []
        self._on_frame = on_frame
        self._changed = asyncio.Event()

    def start(self) -> End:
        self.comm.start(self._frame, self._end)
        return self

    def _frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        self.frames.append((bytes(body), buffers))
        self._changed.set()
        if self._on_frame is not None:
            self._on_frame(self.comm, bytes(body))

    def _end(self, error: Exception | None) -> None:
        self.closed.append(error)
        self._changed.set()

    @property
    def bodies(self) -> list[bytes]:
        return [body for body, _ in self.frames]

    async def until(self, condition: Callable[[End], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def has(self, count: int) -> None:
        await self.until(lambda end: len(end.frames) >= count)

    async def ended(self) -> Exception | None:
        await self.until(lambda end: bool(end.closed))
        assert len(self.closed) == 1
        return self.closed[0]


class Scene:
    """A listener, and pairs of ends that are connected through it."""

    def __init__(self, listener: Listener, arrived: asyncio.Queue[Comm], refusals: list[str]) -> None:
        self.listener = listener
        self.arrived = arrived
        self.refusals = refusals

    async def pair(self, limits: CommLimits = CommLimits(), start: bool = True) -> tuple[End, End]:
        near = End(await connect(self.listener.contact_address, ME, secret=SECRET, limits=limits, timeout_s=LIMIT_S))
        async with asyncio.timeout(LIMIT_S):
            far = End(await self.arrived.get())
        return (near.start(), far.start()) if start else (near, far)


def play(address: str, scene: Callable[[Scene], Coroutine[Any, Any, None]], limits: CommLimits = CommLimits()) -> None:
    async def run() -> None:
        arrived: asyncio.Queue[Comm] = asyncio.Queue()
        refusals: list[str] = []
        listener = await listen(address, arrived.put_nowait, session=SESSION, secret=SECRET, limits=limits, refused=refusals.append)
        try:
            await scene(Scene(listener, arrived, refusals))
        finally:
            await listener.stop()

    asyncio.run(run())


@every_transport
def test_frames_go_both_ways_in_order(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        for number in range(2000):
            near.comm.send(b"%d" % number)
            far.comm.send(b"-%d" % number, [b"x" * number])
        await far.has(2000)
        await near.has(2000)
        assert far.bodies == [b"%d" % number for number in range(2000)]
        assert near.bodies == [b"-%d" % number for number in range(2000)]
        assert [len(buffers[0]) for _, buffers in near.frames] == list(range(2000))

    play(address, scene)


@every_transport
def test_the_parties_know_each_other(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        assert far.comm.peer == ME
        assert near.comm.peer == Introduction(ME.role, SESSION)
        assert near.comm.peer_address == env.listener.contact_address
        assert near.comm.local_address == far.comm.peer_address

    play(address, scene)


@every_transport
def test_large_buffers_arrive_as_they_were(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        sizes = [0, 1, 4096, 100_000, 1_000_000, 0, 20_000_000, 3]
        buffers = [bytes([number]) * size for number, size in enumerate(sizes)]
        near.comm.send(b"first", buffers)
        near.comm.send(b"z" * 3_000_000, [b"" for _ in range(3000)])
        near.comm.send(b"last")
        await far.has(3)
        assert far.bodies == [b"first", b"z" * 3_000_000, b"last"]
        assert [bytes(buffer) for buffer in far.frames[0][1]] == buffers
        assert len(far.frames[1][1]) == 3000

    play(address, scene)


@every_transport
def test_frames_sent_before_the_other_side_starts_wait_for_it(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair(start=False)
        near.start()
        for number in range(10):
            near.comm.send(b"%d" % number)
        await near.comm.close()
        far.start()
        assert far.frames == []
        assert await far.ended() is None
        assert far.bodies == [b"%d" % number for number in range(10)]

    play(address, scene)


@every_transport
def test_close_sends_what_is_queued_and_both_sides_end_in_order(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        far.comm.send(b"nobody waits for this")
        for _ in range(20):
            near.comm.send(b"body", [bytes(1_000_000)])
        await near.comm.close()
        assert near.closed == [None]
        assert near.comm.closed
        assert await far.ended() is None
        assert len(far.frames) == 20
        near.comm.send(b"dropped")
        await near.comm.close()
        near.comm.abort()
        assert near.closed == [None]

    play(address, scene)


@every_transport
def test_abort_ends_both_sides_once(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        near.comm.abort()
        near.comm.abort()
        assert near.comm.closed
        assert await near.ended() is None
        await far.ended()
        with pytest.raises(CommClosedError):
            await near.comm.drained()

    play(address, scene)


@every_transport
def test_nothing_is_delivered_while_paused(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        far._on_frame = lambda comm, body: comm.pause() if body == b"3" else None
        for number in range(10):
            near.comm.send(b"%d" % number)
        await far.has(4)
        near.comm.send(b"10")
        # An answer on the other direction shows that time has passed on both sides.
        far.comm.send(b"ping")
        await near.has(1)
        assert far.bodies == [b"0", b"1", b"2", b"3"]
        far.comm.resume()
        await far.has(11)
        assert far.bodies == [b"%d" % number for number in range(11)]

    play(address, scene)


@every_transport
def test_a_paused_receiver_holds_up_the_sender(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        far.comm.pause()
        near.comm.send(b"", [bytes(50_000_000)])
        assert near.comm.unsent_bytes > 0
        draining = asyncio.ensure_future(near.comm.drained())
        partly = asyncio.ensure_future(near.comm.drained(10**9))
        await asyncio.wait_for(partly, LIMIT_S)
        assert not draining.done()
        far.comm.resume()
        await asyncio.wait_for(draining, LIMIT_S)
        assert near.comm.unsent_bytes == 0
        await far.has(1)

    play(address, scene)


@every_transport
def test_who_waits_for_the_queue_learns_of_the_end(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        far.comm.pause()
        near.comm.send(b"", [bytes(50_000_000)])
        draining = asyncio.ensure_future(near.comm.drained())
        await asyncio.sleep(0)
        far.comm.abort()
        with pytest.raises(CommClosedError):
            await asyncio.wait_for(draining, LIMIT_S)
        await near.ended()

    play(address, scene)


@every_transport
@pytest.mark.parametrize("error", [PeerProtocolError("nonsense"), KeyError("bug")])
def test_a_handler_that_raises_ends_the_comm_with_that_error(address: str, error: Exception) -> None:
    async def scene(env: Scene) -> None:
        def fail(comm: Comm, body: bytes) -> None:
            raise error

        near, far = await env.pair()
        other_near, other_far = await env.pair()
        far._on_frame = fail
        near.comm.send(b"1")
        near.comm.send(b"2")
        assert await far.ended() is error
        assert far.bodies == [b"1"]
        await near.ended()
        other_near.comm.send(b"still here")
        await other_far.has(1)

    play(address, scene)


@every_transport
def test_a_frame_over_the_cap_is_not_sent(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair(CommLimits(max_body_bytes=10))
        with pytest.raises(ValueError, match="limit"):
            near.comm.send(b"x" * 11)
        near.comm.send(b"x" * 10)
        await far.has(1)

    play(address, scene)


@every_transport
def test_a_wrong_secret_is_refused_at_once_on_both_sides(address: str) -> None:
    async def scene(env: Scene) -> None:
        with pytest.raises(AuthenticationError, match="TREADLE_SECRET") as caught:
            await connect(env.listener.contact_address, ME, secret=b"another", timeout_s=LIMIT_S)
        assert env.listener.contact_address in str(caught.value)
        while not env.refusals:
            await asyncio.sleep(0)
        assert len(env.refusals) == 1
        assert "secret" in env.refusals[0] and "another" not in env.refusals[0]
        assert env.arrived.empty()

    play(address, scene)


@every_transport
def test_a_stopped_listener_keeps_its_comms_and_takes_no_new_ones(address: str) -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        await env.listener.stop()
        near.comm.send(b"still")
        await far.has(1)
        with pytest.raises(OSError, match=r"0\.1 s") as caught:
            await connect(env.listener.contact_address, ME, secret=SECRET, timeout_s=0.1)
        assert env.listener.contact_address in str(caught.value)

    play(address, scene)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "inproc://"])
def test_an_address_in_use_is_named(address: str) -> None:
    async def scene(env: Scene) -> None:
        taken = env.listener.listen_address
        with pytest.raises(OSError, match="in use") as caught:
            await listen(taken, env.arrived.put_nowait, session=SESSION, secret=SECRET)
        assert taken in str(caught.value)

    play(address, scene)


@every_transport
def test_connecting_waits_for_a_listener_that_is_late(address: str) -> None:
    async def run() -> None:
        first = await listen(address, lambda comm: comm.abort(), session=SESSION, secret=SECRET)
        late = first.contact_address
        await first.stop()
        connecting = asyncio.ensure_future(connect(late, ME, secret=SECRET, timeout_s=LIMIT_S))
        await asyncio.sleep(0)
        second = await listen(late, lambda comm: comm.abort(), session=SESSION, secret=SECRET)
        comm = await connecting
        await comm.close()
        await second.stop()

    asyncio.run(run())


@every_transport
def test_a_handler_may_stop_the_listener(address: str) -> None:
    async def run() -> None:
        stopped: list[asyncio.Task[None]] = []
        listener: Listener

        def handler(comm: Comm) -> None:
            stopped.append(asyncio.ensure_future(listener.stop()))
            comm.start(lambda body, buffers: None, lambda error: None)

        listener = await listen(address, handler, session=SESSION, secret=SECRET)
        comm = await connect(listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
        while not stopped:
            await asyncio.sleep(0)
        await asyncio.wait_for(stopped[0], LIMIT_S)
        comm.abort()

    asyncio.run(run())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "inproc://"])
def test_the_two_ends_may_live_in_two_threads(address: str) -> None:
    """A thread with a loop of its own echoes; the frames come back in order."""
    ready: asyncio.Future[str]

    async def run() -> None:
        nonlocal ready
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        thread = threading.Thread(target=asyncio.run, args=(echo(loop, ready),))
        thread.start()
        end = End(await connect(await ready, ME, secret=SECRET, timeout_s=LIMIT_S)).start()
        for number in range(3000):
            end.comm.send(b"%d" % number, [b"buffer"])
        await end.comm.drained()
        await end.has(3000)
        assert end.bodies == [b"%d" % number for number in range(3000)]
        await end.comm.close()
        await asyncio.to_thread(thread.join, LIMIT_S)
        assert not thread.is_alive()

    async def echo(loop: asyncio.AbstractEventLoop, address_known: asyncio.Future[str]) -> None:
        done = asyncio.Event()

        def handler(comm: Comm) -> None:
            comm.start(lambda body, buffers: comm.send(body, buffers), lambda error: done.set())

        listener = await listen(address, handler, session=SESSION, secret=SECRET)
        loop.call_soon_threadsafe(address_known.set_result, listener.contact_address)
        await asyncio.wait_for(done.wait(), LIMIT_S)
        await listener.stop()

    asyncio.run(run())


def test_inside_a_process_buffers_pass_by_reference() -> None:
    async def scene(env: Scene) -> None:
        near, far = await env.pair()
        buffer = bytearray(100)
        near.comm.send(b"", [buffer])
        await far.has(1)
        assert far.frames[0][1][0] is buffer

    play("inproc://", scene)


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="inproc, tcp"):
        asyncio.run(connect("carrier-pigeon://x", ME, secret=SECRET, timeout_s=1))
