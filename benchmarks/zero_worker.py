"""The scheduler process against simulated workers and a simulated client, which speak its protocol over TCP and answer at once.

Workers and client share this process and one loop. They compute nothing and move no data: every task they are given is
reported as finished in the next frame. The client's frames are encoded before the clock starts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from processes import Cluster, metered

from treadle.comm.interface import Buffer, Comm, CommLimits, Introduction, Role
from treadle.comm.registry import connect
from treadle.messages.base import WorkerIdentity
from treadle.messages.client_scheduler import (
    ClientReply,
    ClientWelcome,
    DefineFunctions,
    KeysInMemory,
    Query,
    RegisterClient,
    ReleaseKeys,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, decode_scheduler_to_worker, encode
from treadle.messages.worker_scheduler import ComputeTasks, RegisterWorker, TasksFinished, WorkerWelcome
from treadle.utils.scheduler_file import read_scheduler_file

#: Rows of a frame: what the real client sends.
CHUNK = 2_048
#: A row of the stencil; each cell takes three neighbours of the row before.
WIDTH = 1_024
CONNECTING_AT_ONCE = 64
#: As long as a pickled ``(number,)`` of the real client.
PAYLOAD = b"\x80\x05K\x01\x85." + 8 * b"."
#: Frames that are given to the client's socket ahead of what the scheduler has read, bytes.
AHEAD_BYTES = 2**20


class SimulatedWorker:
    """Answers each frame with one frame: all its tasks are finished."""

    def __init__(self, comm: Comm, number: int) -> None:
        self.comm = comm
        self.welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        comm.start(self._on_frame, lambda error: None)
        identity = WorkerIdentity(f"simulated-{number}", f"tcp://127.0.0.1:{number + 1}", f"s{number}", "127.0.0.1", 1, 0, {}, 1, "", {})
        comm.send(encode([RegisterWorker(identity)]))

    def _on_frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        finished = []
        for message in decode_scheduler_to_worker(body):
            if type(message) is ComputeTasks:
                count = len(message.ids)
                finished.append(
                    TasksFinished(message.ids, message.attempts, [28] * count, [0] * count, ["int"], [0.0] * count, [1e-5] * count)
                )
            elif type(message) is WorkerWelcome:
                self.welcome.set_result(None)
        if finished:
            self.comm.send(encode(finished))


class SimulatedClient:
    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.number = 0
        self.finished = 0
        self._wanted = 0
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[Any] = loop.create_future()
        comm.start(self._on_frame, lambda error: None)
        comm.send(encode([RegisterClient("simulated", {})]))

    def expect(self, wanted: int) -> None:
        """``done`` when so many keys more are in memory."""
        self.done = asyncio.get_running_loop().create_future()
        self._wanted = self.finished + wanted

    def _on_frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        for message in decode_scheduler_to_client(body):
            if type(message) is KeysInMemory:
                self.finished += len(message.ids)
                if self.finished == self._wanted:
                    self.done.set_result(None)
            elif type(message) is ClientWelcome:
                self.number = message.number
                self.welcome.set_result(None)
            elif type(message) is ClientReply:
                self.answer.set_result(message.value)


def alone(first: int, function: int, tasks: int, name: str) -> tuple[list[bytes], list[int]]:
    """Frames that submit tasks without dependencies, and the ids that the client wants."""
    frames = []
    for start in range(0, tasks, CHUNK):
        ids = list(range(first + start, first + min(start + CHUNK, tasks)))
        keys = [f"{name}-{id:032x}" for id in ids]
        count = len(ids)
        frames.append(encode([SubmitTasks(1, ids, keys, [function] * count, [PAYLOAD] * count, first_rank=start, group=name)]))
    return frames, list(range(first, first + tasks))


def stencil(first: int, function: int, tasks: int, name: str) -> tuple[list[bytes], list[int]]:
    """Rows of cells that take three neighbours each; the client wants the last row."""
    frames = []
    rows = tasks // WIDTH
    per_chunk = CHUNK // WIDTH
    wanted = list(range(first + (rows - 1) * WIDTH, first + rows * WIDTH))
    fan_out = [2 if at in (0, WIDTH - 1) else 3 for at in range(WIDTH)]
    for top in range(0, rows, per_chunk):
        bottom = min(top + per_chunk, rows)
        ids = list(range(first + top * WIDTH, first + bottom * WIDTH))
        dependencies: list[list[int]] = []
        later: list[int] = []
        for row in range(top, bottom):
            above = first + (row - 1) * WIDTH
            for at in range(WIDTH):
                dependencies.append(list(range(above + max(at - 1, 0), above + min(at + 2, WIDTH))) if row else [])
            later += fan_out if row == bottom - 1 and bottom < rows else [0] * WIDTH
        keys = [f"{name}-{id:032x}" for id in ids]
        count = len(ids)
        message = SubmitTasks(
            1, ids, keys, [function] * count, [PAYLOAD] * count, dependencies, wanted if bottom == rows else [], first_rank=top * WIDTH
        )
        message.group = name
        message.later_dependents = later
        frames.append(encode([message]))
    return frames, wanted


SHAPES: dict[str, Callable[[int, int, int, str], tuple[list[bytes], list[int]]]] = {"alone": alone, "stencil": stencil}


async def _connect_all(scheduler_file: str, workers: int) -> tuple[SimulatedClient, list[SimulatedWorker]]:
    found = read_scheduler_file(scheduler_file)
    assert found.secret is not None
    secret = found.secret.encode()
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def open_comm(role: Role) -> Comm:
        async with gate:
            introduction = Introduction(role, secrets.token_bytes(16))
            return await connect(found.address, introduction, secret=secret, limits=CommLimits(handshake_timeout_s=60), timeout_s=120)

    async def open_worker(number: int) -> SimulatedWorker:
        return SimulatedWorker(await open_comm(Role.WORKER), number)

    all_workers = list(await asyncio.gather(*[open_worker(number) for number in range(workers)]))
    await asyncio.gather(*[worker.welcome for worker in all_workers])
    client = SimulatedClient(await open_comm(Role.CLIENT))
    await client.welcome
    return client, all_workers


async def _submit(client: SimulatedClient, frames: list[bytes], wanted: list[int]) -> None:
    """Until all that is wanted is in memory. The socket is kept full, and no fuller."""
    client.expect(len(wanted))
    for frame in frames:
        client.comm.send(frame)
        if client.comm.unsent_bytes > AHEAD_BYTES:
            await client.comm.drained(AHEAD_BYTES)
    await client.done


async def _release(client: SimulatedClient, wanted: list[int]) -> None:
    """Until the scheduler has answered a question behind it; checks that it knows no task any more."""
    client.answer = asyncio.get_running_loop().create_future()
    for start in range(0, len(wanted), CHUNK):
        client.comm.send(encode([ReleaseKeys(wanted[start : start + CHUNK])]))
    client.comm.send(encode([Query(1, "task_counts", {})]))
    counts = await client.answer
    if any(counts.values()):
        raise AssertionError(f"tasks are left: {counts}")


async def _run(scheduler_file: str, pid: int, workers: int, tasks: int, shape: str) -> dict[str, Any]:
    client, all_workers = await _connect_all(scheduler_file, workers)
    base = client.number << 32
    client.comm.send(encode([DefineFunctions([base | 1], ["inc"], [b"not looked at"])]))
    frames, wanted = alone(base + 2, base | 1, 4 * CHUNK, "warm-up")
    await _submit(client, frames, wanted)
    await _release(client, wanted)
    frames, wanted = SHAPES[shape](base + 2 + 4 * CHUNK, base | 1, tasks, "inc")
    with metered({"scheduler": pid}) as measured:
        await _submit(client, frames, wanted)
        await _release(client, wanted)
    for worker in all_workers:
        worker.comm.abort()
    return measured


def zero_worker(shape: str, tasks: int, workers: int) -> dict[str, Any]:
    """Tasks per second: by the wall clock, and by the CPU time of the scheduler's process, which is what it could do at most."""
    if shape == "stencil":
        tasks = tasks // WIDTH * WIDTH
    with Cluster("treadle", 0) as cluster:
        pid = cluster.pids["scheduler"]
        measured = asyncio.run(_run(cluster.scheduler_file, pid, workers, tasks, shape))
    scheduler = measured["processes"]["scheduler"]
    return {
        **measured,
        "tasks": tasks,
        "task_us": measured["wall_s"] / tasks * 1e6,
        "tasks_per_s": tasks / measured["wall_s"],
        "tasks_per_cpu_s": tasks / scheduler["cpu_s"] if scheduler["cpu_s"] else 0.0,
        "task_bytes": (scheduler["peak_bytes"] - scheduler["before_bytes"]) / tasks,
    }
