"""Requests to peers end in exactly one event each, whatever becomes of them."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from treadle.comm.interface import Comm, Introduction, Role
from treadle.comm.registry import listen
from treadle.messages.codec import encode
from treadle.messages.local import Fetch, FetchBusy, FetchFailed
from treadle.messages.worker_worker import Busy
from treadle.serialize.values import unpack_block
from treadle.worker.transfer import Fetcher

SECRET = b"x" * 32


def test_a_request_to_a_peer_that_left_fails_once_even_if_it_had_not_begun() -> None:
    async def scene() -> None:
        asked = asyncio.Event()

        def accept(comm: Comm) -> None:
            # It takes requests and never answers.
            comm.start(lambda body, buffers: asked.set(), lambda error: None)

        listener = await listen("tcp://127.0.0.1:0", accept, session=secrets.token_bytes(16), secret=SECRET, refused=print)
        events: list[object] = []
        delivered = asyncio.Event()

        def deliver(event: object) -> None:
            events.append(event)
            delivered.set()

        async def one_more() -> object:
            async with asyncio.timeout(60):
                await delivered.wait()
            delivered.clear()
            return events[-1]

        with ThreadPoolExecutor(1) as offload:
            fetcher = Fetcher(Introduction(Role.PEER, secrets.token_bytes(16)), SECRET, offload, deliver, unpack_block, 1000)
            fetcher.fetch(Fetch(1, listener.contact_address, [11]))
            fetcher.forget(listener.contact_address)
            assert await one_more() == FetchFailed(1, [11])
            fetcher.fetch(Fetch(1, listener.contact_address, [12]))
            async with asyncio.timeout(60):
                await asked.wait()
            fetcher.forget(listener.contact_address)
            assert await one_more() == FetchFailed(1, [12])
            assert len(events) == 2
            fetcher.close()
        await listener.stop()

    asyncio.run(scene())


def test_a_peer_is_asked_again_when_the_connection_breaks() -> None:
    async def scene() -> None:
        comms: list[Comm] = []

        def accept(comm: Comm) -> None:
            comms.append(comm)
            # The first two break as soon as something is asked, the third one says that it has no time.
            answer = comm.abort if len(comms) < 3 else lambda: comm.send(encode([Busy(1)]))
            comm.start(lambda body, buffers: answer(), lambda error: None)

        listener = await listen("tcp://127.0.0.1:0", accept, session=secrets.token_bytes(16), secret=SECRET, refused=print)
        events: asyncio.Queue[object] = asyncio.Queue()
        with ThreadPoolExecutor(1) as offload:
            fetcher = Fetcher(Introduction(Role.PEER, secrets.token_bytes(16)), SECRET, offload, events.put_nowait, unpack_block, 1000)
            fetcher.fetch(Fetch(1, listener.contact_address, [11]))
            async with asyncio.timeout(60):
                assert await events.get() == FetchBusy(1, [11])
            assert len(comms) == 3 and events.empty()
            fetcher.close()
        await listener.stop()

    asyncio.run(scene())
