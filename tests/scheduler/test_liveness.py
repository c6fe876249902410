"""Time-outs of a real scheduler: silent workers, an idle cluster; and that a vouching nanny makes silence harmless."""

import asyncio
import logging

import pytest

from treadle.comm.interface import Introduction, Role
from treadle.comm.registry import connect
from treadle.comm.security import Security
from treadle.messages.client_scheduler import RegisterClient, ReleaseKeys, SubmitTasks
from treadle.messages.codec import encode
from treadle.messages.nanny import NannyHeartbeat, RegisterNanny, WorkerDied
from treadle.scheduler.server import Scheduler
from treadle.utils.status import Status
from treadle.worker.server import Worker

SECURITY = Security.temporary()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def scheduler_of(**options):
    return Scheduler(protocol="tcp", security=SECURITY, delete_interval="20ms", **options)


def silent_worker(scheduler, **options):
    return Worker(scheduler.address, nthreads=1, security=SECURITY, heartbeat_interval="1h", **options)


async def nanny_of(scheduler, id="n"):
    comm = await connect(scheduler.address, Introduction(Role.NANNY, b"n" * 16), secret=SECURITY.secret, timeout_s=10)
    comm.start(lambda body, buffers: None, lambda error: None)
    comm.send(encode([RegisterNanny(id, id, "here", 1)]))
    return comm


def test_a_worker_that_is_silent_for_too_long_is_given_up(caplog):
    async def scene():
        async with scheduler_of(worker_ttl="200ms") as scheduler, silent_worker(scheduler) as worker:
            first = scheduler.workers[worker.address]
            with caplog.at_level(logging.WARNING, "treadle.scheduler.liveness"):
                await until(lambda: scheduler.workers.get(worker.address) is not first)
            assert "was silent for" in caplog.text
            # It was alive after all, and comes back.
            await until(lambda: worker.address in scheduler.workers)

    asyncio.run(scene())


def test_a_nanny_vouches_for_a_worker_that_cannot_speak():
    async def scene():
        async with scheduler_of(worker_ttl="200ms") as scheduler, silent_worker(scheduler, nanny="n") as worker:
            first = scheduler.workers[worker.address]
            comm = await nanny_of(scheduler)
            for _ in range(30):
                comm.send(encode([NannyHeartbeat({"alive": 1, "pid": first.pid})]))
                await asyncio.sleep(0.02)
            assert scheduler.workers.get(worker.address) is first
            # It says that the process is stopped, or of another one: that is no word for this one.
            for metrics in ({"alive": 0, "pid": first.pid}, {"alive": 1, "pid": first.pid + 1}):
                comm.send(encode([NannyHeartbeat(metrics)]))
            await until(lambda: scheduler.workers.get(worker.address) is not first)
            await comm.close()

    asyncio.run(scene())


@pytest.mark.parametrize("planned", [False, True])
def test_the_word_of_a_nanny_removes_its_worker_at_once(planned):
    async def scene():
        async with scheduler_of() as scheduler, silent_worker(scheduler, nanny="n") as worker:
            first = scheduler.workers[worker.address]
            comm = await nanny_of(scheduler)
            comm.send(encode([WorkerDied(first.pid + 1, -9, ""), WorkerDied(first.pid, -9, "", planned=planned)]))
            await until(lambda: scheduler.workers.get(worker.address) is not first)
            await comm.close()

    asyncio.run(scene())


def test_an_idle_scheduler_closes():
    async def scene():
        async with scheduler_of(idle_timeout="100ms") as scheduler:
            async with asyncio.timeout(30):
                await scheduler.finished()

    asyncio.run(scene())


def test_a_scheduler_whose_tasks_wait_for_workers_is_not_idle():
    async def scene():
        async with scheduler_of(idle_timeout="100ms") as scheduler:
            comm = await connect(scheduler.address, Introduction(Role.CLIENT, b"c" * 16), secret=SECURITY.secret, timeout_s=10)
            comm.start(lambda body, buffers: None, lambda error: None)
            comm.send(encode([RegisterClient("c", {})]))
            await until(lambda: scheduler.clients)
            first = scheduler.clients["c"].number << 32 | 1
            comm.send(encode([SubmitTasks(1, [first], ["x"], [0], [b""])]))
            await until(lambda: scheduler.unrunnable)
            began = scheduler.transitions.state.now
            await until(lambda: scheduler.transitions.state.now > began + 1.0 or scheduler.status is not Status.running)
            assert scheduler.status is Status.running
            comm.send(encode([ReleaseKeys([first])]))
            async with asyncio.timeout(30):
                await scheduler.finished()
            await comm.close()

    asyncio.run(scene())
