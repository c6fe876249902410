"""What only sockets can suffer: strangers, slow peers, cut-off and over-long frames."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from treadle.comm.handshake import GREETING_BYTES, VERDICT_BYTES, ConnectorHandshake
from treadle.comm.interface import Buffer, Comm, CommLimits, Introduction, Listener, Role
from treadle.comm.registry import connect, listen
from treadle.exceptions import CommClosedError, PeerProtocolError

LIMIT_S = 60
SECRET = b"the secret of the cluster"
ME = Introduction(Role.PEER, b"connecting-party")


class Host:
    """A listener that writes down what happens."""

    listener: Listener

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.comms: list[Comm] = []
        self.frames: list[tuple[bytes, list[Buffer]]] = []
        self.ends: list[Exception | None] = []

    def take(self, comm: Comm) -> None:
        self.comms.append(comm)
        comm.start(lambda body, buffers: self.frames.append((bytes(body), buffers)), self.ends.append)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.001)

    async def stranger(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A socket that has not said anything yet."""
        _, _, port = self.listener.contact_address.rpartition(":")
        return await asyncio.open_connection("127.0.0.1", int(port))

    async def known(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A socket that has authenticated itself and may now misbehave."""
        reader, writer = await self.stranger()
        handshake = ConnectorHandshake("tcp://host", ME, SECRET, b"n" * 32)
        writer.write(handshake.hello)
        writer.write(handshake.receive(await reader.readexactly(GREETING_BYTES)))
        handshake.receive(await reader.readexactly(VERDICT_BYTES))
        return reader, writer


def play(scene: Callable[[Host], Coroutine[Any, Any, None]], limits: CommLimits = CommLimits()) -> None:
    async def run() -> None:
        host = Host()
        host.listener = await listen(
            "tcp://127.0.0.1:0", host.take, session=b"listener-session", secret=SECRET, limits=limits, refused=host.refusals.append
        )
        try:
            await scene(host)
        finally:
            for comm in host.comms:
                comm.abort()
            await host.listener.stop()

    asyncio.run(run())


async def disconnected(reader: asyncio.StreamReader) -> bytes:
    """What was said until the end."""
    async with asyncio.timeout(LIMIT_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def test_an_http_client_is_disconnected_without_an_answer() -> None:
    async def scene(host: Host) -> None:
        reader, writer = await host.stranger()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: something with a long name\r\n\r\n")
        assert await disconnected(reader) == b""
        await host.until(lambda: bool(host.refusals))
        assert host.refusals[0].startswith("refused tcp://127.0.0.1:") and "protocol" in host.refusals[0]
        writer.close()

    play(scene)


def test_a_silent_stranger_is_disconnected_after_the_deadline() -> None:
    async def scene(host: Host) -> None:
        reader, writer = await host.stranger()
        assert await disconnected(reader) == b""
        await host.until(lambda: bool(host.refusals))
        assert "0.05 s" in host.refusals[0]
        writer.close()

    play(scene, CommLimits(handshake_timeout_s=0.05))


def test_a_slow_stranger_is_disconnected_after_the_deadline() -> None:
    async def scene(host: Host) -> None:
        reader, writer = await host.stranger()
        writer.write(b"treadle\0")
        assert await disconnected(reader) == b""
        writer.close()

    play(scene, CommLimits(handshake_timeout_s=0.05))


def test_one_that_leaves_in_the_handshake_harms_nobody() -> None:
    async def scene(host: Host) -> None:
        _, writer = await host.stranger()
        writer.write(b"treadle\0")
        writer.close()
        await host.until(lambda: bool(host.refusals))
        comm = await connect(host.listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
        comm.abort()

    play(scene)


def test_too_many_strangers_make_the_listener_busy_until_they_go() -> None:
    async def scene(host: Host) -> None:
        strangers = [await host.stranger() for _ in range(2)]
        connecting = asyncio.ensure_future(connect(host.listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S))
        await host.until(lambda: any("handshake" in line for line in host.refusals))
        assert not connecting.done()
        for _, writer in strangers:
            writer.close()
        (await connecting).abort()

    play(scene, CommLimits(max_unauthenticated=2, handshake_patience_s=3600))


@pytest.mark.parametrize("silent_host", ["127.0.0.1", "127.0.0.2"])
def test_silent_strangers_in_all_places_keep_nobody_out(silent_host: str) -> None:
    """From another host, or from the one (or the gateway) where hundreds of workers are."""

    async def scene(host: Host) -> None:
        address = host.listener.contact_address
        port = int(address.rpartition(":")[2])
        try:
            strangers = [socket.create_connection(("127.0.0.1", port), LIMIT_S, (silent_host, 0)) for _ in range(64)]
        except OSError:
            pytest.skip(f"this machine has no address {silent_host}")
        try:
            comms = await asyncio.gather(*[connect(address, ME, secret=SECRET, timeout_s=LIMIT_S) for _ in range(300)])
            await host.until(lambda: len(host.comms) >= 300)
            await host.until(lambda: any("took too long" in line for line in host.refusals))
            assert len(host.refusals) < 64, "told of together"
            for comm in comms:
                comm.send(b"x")
            await host.until(lambda: len(host.frames) == 300)
            for comm in comms:
                comm.abort()
        finally:
            for stranger in strangers:
                stranger.close()

    # Nobody makes room because its time is over.
    play(scene, CommLimits(max_unauthenticated=64, handshake_timeout_s=3600))


def test_hundreds_that_come_at_once_come_in_through_a_few_places() -> None:
    async def scene(host: Host) -> None:
        address = host.listener.contact_address
        comms = await asyncio.gather(*[connect(address, ME, secret=SECRET, timeout_s=LIMIT_S) for _ in range(300)])
        for comm in comms:
            comm.abort()

    play(scene, CommLimits(max_unauthenticated=8, handshake_timeout_s=3600))


def test_a_listener_that_never_answers_costs_the_connector_its_timeout_only() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(OSError, match=r"0\.2 s") as caught:
                await connect(address, ME, secret=SECRET, timeout_s=0.2)
            assert address in str(caught.value)
            with pytest.raises(OSError, match="did not finish the handshake"):
                await connect(address, ME, secret=SECRET, limits=CommLimits(handshake_timeout_s=0.05), timeout_s=0.3)

    asyncio.run(run())


def test_a_listener_of_another_service_is_named_at_once() -> None:
    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 smtp.example.com ESMTP, a service that greets at some length; be welcome\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(OSError, match="does not speak treadle") as caught:
            await connect(address, ME, secret=SECRET, timeout_s=LIMIT_S)
        assert address in str(caught.value)
        server.close()

    asyncio.run(run())


def test_a_frame_over_the_cap_ends_that_comm_and_no_other() -> None:
    async def scene(host: Host) -> None:
        other = await connect(host.listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
        other.start(lambda body, buffers: None, lambda error: None)
        reader, writer = await host.known()
        writer.write(struct.pack("<QI", 3, 0) + b"yes" + struct.pack("<QI", 1001, 0))
        await disconnected(reader)
        await host.until(lambda: bool(host.ends))
        assert isinstance(host.ends[0], PeerProtocolError) and "1001" in str(host.ends[0])
        assert [body for body, _ in host.frames] == [b"yes"]
        other.send(b"here")
        await host.until(lambda: len(host.frames) == 2)
        writer.close()
        other.abort()

    play(scene, CommLimits(max_body_bytes=1000))


@pytest.mark.parametrize("cut", [5, 12, 20, 500_000])
def test_a_stream_that_ends_in_a_frame_is_an_error(cut: int) -> None:
    async def scene(host: Host) -> None:
        _, writer = await host.known()
        writer.write((struct.pack("<QI", 1_000_000, 0) + bytes(1_000_000))[:cut])
        writer.close()
        await host.until(lambda: bool(host.ends))
        assert isinstance(host.ends[0], CommClosedError)
        assert "127.0.0.1" in str(host.ends[0])
        assert host.frames == []

    play(scene)


def test_a_stream_that_ends_between_frames_is_in_order() -> None:
    async def scene(host: Host) -> None:
        _, writer = await host.known()
        writer.write(struct.pack("<QI", 3, 0) + b"yes")
        writer.close()
        await host.until(lambda: bool(host.ends))
        assert host.ends == [None]
        assert [body for body, _ in host.frames] == [b"yes"]

    play(scene)


def test_a_frame_may_trickle_in() -> None:
    async def scene(host: Host) -> None:
        _, writer = await host.known()
        stream = struct.pack("<QIQQ", 5, 2, 3, 4) + b"hello" + b"abc" + b"defg"
        for position in range(len(stream)):
            writer.write(stream[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await host.until(lambda: bool(host.frames))
        body, buffers = host.frames[0]
        assert body == b"hello"
        assert [bytes(buffer) for buffer in buffers] == [b"abc", b"defg"]
        writer.close()

    play(scene)


def test_received_buffers_are_writable_memory_of_their_own() -> None:
    async def scene(host: Host) -> None:
        comm = await connect(host.listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
        comm.start(lambda body, buffers: None, lambda error: None)
        comm.send(b"1", [b"a" * 10, b"b" * 5_000_000])
        comm.send(b"2", [b"c" * 10, b"d" * 5_000_000])
        await host.until(lambda: len(host.frames) == 2)
        views = [memoryview(buffer) for _, buffers in host.frames for buffer in buffers]
        assert not any(view.readonly for view in views)
        views[0][:] = bytes(10)
        views[1][:] = bytes(5_000_000)
        assert [bytes(view[:1]) for view in views] == [b"\0", b"\0", b"c", b"d"]
        comm.abort()

    play(scene)


def test_what_a_peer_said_before_it_went_is_delivered_although_sending_fails() -> None:
    async def scene(host: Host) -> None:
        _, writer = await host.known()
        await host.until(lambda: bool(host.comms))
        comm = host.comms[0]
        comm.pause()
        writer.write(struct.pack("<QI", 4, 0) + b"last")
        writer.close()
        await writer.wait_closed()
        for _ in range(100):
            comm.send(b"x" * 1000)
            await asyncio.sleep(0)
        comm.resume()
        await host.until(lambda: bool(host.ends))
        assert [body for body, _ in host.frames] == [b"last"]

    play(scene)


def test_a_wildcard_listener_can_be_contacted() -> None:
    async def run() -> None:
        arrived: asyncio.Queue[Comm] = asyncio.Queue()
        for address in ["tcp://0.0.0.0:0", "tcp://:0"]:
            listener = await listen(address, arrived.put_nowait, session=b"listener-session", secret=SECRET)
            assert listener.listen_address.startswith("tcp://0.0.0.0:")
            assert "0.0.0.0" not in listener.contact_address
            comm = await connect(listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
            (await arrived.get()).abort()
            comm.abort()
            await listener.stop()

    asyncio.run(run())


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(OSError, match=r"tcp://no-such-host\.invalid:1"):
        asyncio.run(connect("tcp://no-such-host.invalid:1", ME, secret=SECRET, timeout_s=0.1))


def test_sockets_work_with_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        done = asyncio.Event()

        def handler(comm: Comm) -> None:
            comm.start(lambda body, buffers: comm.send(body, buffers), lambda error: done.set())

        listener = await listen("tcp://127.0.0.1:0", handler, session=b"listener-session", secret=SECRET)
        comm = await connect(listener.contact_address, ME, secret=SECRET, timeout_s=LIMIT_S)
        back: asyncio.Queue[tuple[Buffer, list[Buffer]]] = asyncio.Queue()
        comm.start(lambda body, buffers: back.put_nowait((body, buffers)), lambda error: None)
        comm.send(b"body", [bytes(10_000_000)])
        async with asyncio.timeout(LIMIT_S):
            body, buffers = await back.get()
            assert (bytes(body), len(buffers[0])) == (b"body", 10_000_000)
            await comm.close()
            await done.wait()
        await listener.stop()

    uvloop.run(run())


# -------------------------------------------------------------------------------------------------- vanished hosts


def blind(sock: socket.socket) -> None:
    """From here on its kernel sees nothing of what is sent to it, as if the host had vanished: not even that it is acknowledged."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0: keep nothing of any packet
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_host_that_vanishes_is_noticed_and_a_process_that_does_not_read_is_not_taken_for_one() -> None:
    async def scene(host: Host) -> None:
        _, busy = await host.known()
        await host.until(lambda: len(host.comms) == 1)
        busy.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            host.comms[0].send(b"x" * 2**20)
        _, gone = await host.known()
        await host.until(lambda: len(host.comms) == 2)
        blind(gone.transport.get_extra_info("socket")._sock)
        host.comms[1].send(b"are you there?")
        await host.until(lambda: bool(host.ends))
        (error,) = host.ends
        assert isinstance(error, CommClosedError) and "does not answer" in str(error)
        assert host.comms[1].closed and not host.comms[0].closed and host.comms[0].unsent_bytes
        for writer in (busy, gone):
            writer.transport.abort()

    play(scene)
