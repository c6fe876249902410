"""A scheduler and a peer that do what a test tells them, over real transports."""

from __future__ import annotations

import asyncio
import pickle
import secrets

import pytest
from dask._task_spec import Task, TaskRef

from treadle.comm.interface import Introduction, Role
from treadle.comm.registry import connect, listen
from treadle.comm.security import Security
from treadle.messages.base import Holders, Peer, TaskOptions
from treadle.messages.codec import decode_worker_to_peer, decode_worker_to_scheduler, encode
from treadle.messages.worker_scheduler import (
    ComputeTasks,
    LearnFunctions,
    RegisterWorker,
    TasksErred,
    TasksFinished,
    WorkerHeartbeat,
    WorkerPeers,
    WorkerRefused,
    WorkerWelcome,
)
from treadle.messages.worker_worker import Data
from treadle.serialize.spec import dumps_call, dumps_function, dumps_node
from treadle.serialize.values import unpack_block
from treadle.worker.server import Worker

SECRET = b"s" * 32
LIMIT_S = 30.0


class Stream:
    """One worker's stream, from the scheduler's side."""

    def __init__(self, comm, number, refusal=""):
        self.number = number
        self.heard = []
        self.closed = False
        self.changed = asyncio.Event()
        self.comm = comm
        self.refusal = refusal
        self.attempts = 0
        comm.start(self.on_frame, self.on_closed)

    def on_frame(self, body, buffers):
        for message in decode_worker_to_scheduler(body):
            if isinstance(message, RegisterWorker):
                answer = WorkerRefused(0, "ValueError", self.refusal) if self.refusal else WorkerWelcome(self.number, "scheduler")
                self.send(answer)
            if not isinstance(message, WorkerHeartbeat):
                self.heard.append(message)
        self.changed.set()

    def on_closed(self, error):
        self.closed = True
        self.changed.set()

    def send(self, *messages, buffers=()):
        self.comm.send(encode(messages), buffers)

    async def until(self, condition):
        """Wait until ``condition()`` holds, looked at whenever something was heard."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def hear(self, kind, id=None):
        """The first message of that kind, that names the task if asked so."""

        def found():
            return [message for message in self.heard if type(message) is kind and (id is None or id in message.ids)]

        await self.until(found)
        return found()[0]

    # ------------------------------------------------------------------------------------------ tasks

    def define(self, id, function):
        self.send(LearnFunctions([id], [dumps_function(function)]))

    def call(self, id, function_id, *args, key=None, priority=0, **options):
        """Run ``function(*args)``, defined before, as task ``id``."""
        payload, buffers = dumps_call(args, {})
        self._compute(id, key or f"k{id}", function_id, payload, buffers, None, priority, options)

    def submit(self, id, function, *args, key=None, priority=0, **options):
        self.define(1000 + id, function)
        self.call(id, 1000 + id, *args, key=key, priority=priority, **options)

    def node(self, id, function, *names, at=(), key=None, **options):
        """Run ``function`` on the values of those keys, which are at those workers. Key "k5" has the id 5."""
        task = Task(key or f"k{id}", function, *[TaskRef(name) for name in names])
        payload, buffers = dumps_node(task)
        holders = [Holders(int(name[1:]), name, 10, [stream.number for stream in at]) for name in names]
        self._compute(id, key or f"k{id}", 0, payload, buffers, holders, 0, options)

    def _compute(self, id, key, function, payload, buffers, holders, priority, options):
        self.attempts += 1
        message = ComputeTasks([id], [key], [self.attempts], [function], [payload], [(0.0, 0.0, priority)])
        if holders:
            message.holders = holders
            message.dependencies = [[named.id for named in holders]]
        if options:
            message.row_options = [(0, TaskOptions(**options))]
        if buffers:
            message.buffers = [(0, len(buffers))]
        self.send(message, buffers=buffers)

    def meet(self, *streams, addresses=()):
        peers = [Peer(stream.number, stream.address) for stream in streams]
        self.send(WorkerPeers(peers + [Peer(number, address) for number, address in addresses]))

    @property
    def address(self):
        return next(message for message in self.heard if isinstance(message, RegisterWorker)).identity.address

    def finished(self):
        return [id for message in self.heard if isinstance(message, TasksFinished) for id in message.ids]

    def erred(self):
        return {row.id: row.error for message in self.heard if isinstance(message, TasksErred) for row in message.tasks}

    async def until_finished(self, *ids):
        await self.until(lambda: set(ids) <= set(self.finished()) | set(self.erred()))
        assert not self.erred(), {id: error.exception_text for id, error in self.erred().items()}


class FakeScheduler:
    def __init__(self, scheme):
        self.scheme = scheme
        self.streams = []
        self.refusal = ""
        self.session = secrets.token_bytes(16)

    async def __aenter__(self):
        address = "inproc://" if self.scheme == "inproc" else "tcp://127.0.0.1:0"
        self.listener = await listen(address, self.accept, session=self.session, secret=SECRET)
        self.address = self.listener.contact_address
        return self

    async def __aexit__(self, *exc):
        await self.listener.stop()
        for stream in self.streams:
            stream.comm.abort()

    def accept(self, comm):
        assert comm.peer.role is Role.WORKER
        self.streams.append(Stream(comm, len(self.streams) + 1, self.refusal))

    async def worker(self, **options):
        """A running worker, and its stream."""
        options.setdefault("nthreads", 1)
        worker = await Worker(self.address, security=Security(secret=SECRET), validate=True, **options)
        stream = next(stream for stream in self.streams if not stream.closed and stream.address == worker.address)
        return worker, stream


class FakePeer:
    """Asks a worker for data, as another worker or a client does."""

    def __init__(self, comm):
        self.comm = comm
        self.answers = []
        self.changed = asyncio.Event()
        self.closed = False
        comm.start(self.on_frame, self.on_closed)

    def on_frame(self, body, buffers):
        buffers = list(buffers)
        for message in decode_worker_to_peer(body):
            values = {}
            if isinstance(message, Data):
                for block in message.blocks:
                    mine, buffers = buffers[: block.buffers], buffers[block.buffers :]
                    values.update(zip(block.ids, unpack_block(block, mine), strict=True))
            self.answers.append((message, values))
        self.changed.set()

    def on_closed(self, error):
        self.closed = True
        self.changed.set()

    async def ask(self, message, buffers=()):
        """The answer, and the values in it by id."""
        self.comm.send(encode([message]), buffers)
        return await self.answer(message.request)

    async def answer(self, request):
        async with asyncio.timeout(LIMIT_S):
            while True:
                for message, values in self.answers:
                    if message.request == request:
                        return message, values
                assert not self.closed
                self.changed.clear()
                await self.changed.wait()


async def connect_peer(worker):
    introduction = Introduction(Role.PEER, secrets.token_bytes(16))
    return FakePeer(await connect(worker.address, introduction, secret=SECRET, timeout_s=5))


@pytest.fixture(params=["tcp", "inproc"])
def scene(request):
    """Runs a coroutine function that takes a FakeScheduler, over each transport."""

    def run(play):
        async def main():
            async with asyncio.timeout(2 * LIMIT_S), FakeScheduler(request.param) as scheduler:
                await play(scheduler)

        asyncio.run(main())

    return run


@pytest.fixture
def peer():
    return connect_peer


@pytest.fixture
def limit_s():
    return LIMIT_S


@pytest.fixture
def security():
    return Security(secret=SECRET)


@pytest.fixture
def loads():
    return pickle.loads
