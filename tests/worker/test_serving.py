"""What peers and clients ask of a worker: values out, values in."""

import asyncio
import threading

from treadle.comm.interface import Introduction, Role
from treadle.comm.registry import connect
from treadle.messages.base import Block
from treadle.messages.worker_worker import Busy, Data, DataStored, GetData, PeerRefused, PutData
from treadle.serialize.errors import load_error
from treadle.serialize.values import pack_values


def blob(size):
    return bytes(size)


def test_values_what_is_missing_and_what_cannot_be_sent(scene, peer):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, blob, 10)
        stream.submit(2, threading.Lock)
        stream.submit(3, blob, 2_000_000)
        await stream.until_finished(1, 2, 3)
        client = await peer(worker)
        answer, values = await client.ask(GetData(7, [1, 2, 3, 4]))
        handed = values.pop(2, None)
        assert values == {1: bytes(10), 3: bytes(2_000_000)}
        assert answer.missing == [4]
        if worker.address.startswith("inproc"):
            assert handed is worker._store.get("k2") and not answer.failed
        else:
            [(id, error)] = answer.failed
            assert id == 2 and isinstance(load_error(error), TypeError)
        await worker.close()

    scene(play)


def test_an_answer_is_bounded_and_the_rest_can_be_asked_for(scene, peer):
    async def play(scheduler):
        worker, stream = await scheduler.worker()
        worker._server._max_answer_bytes = 250_000
        for id in (1, 2, 3):
            stream.submit(id, blob, 100_000)
        await stream.until_finished(1, 2, 3)
        client = await peer(worker)
        _, values = await client.ask(GetData(1, [1, 2, 3]))
        assert list(values) == [1, 2]
        _, values = await client.ask(GetData(2, [3]))
        assert list(values) == [3]
        await worker.close()

    scene(play)


class Slow:
    """Takes as long to pickle as the test wants."""

    gate = threading.Event()

    def __sizeof__(self):
        return 1_000_000

    def __reduce__(self):
        assert Slow.gate.wait(30)
        return str, ("slow",)


def test_too_many_long_answers_at_once(scene, peer):
    async def play(scheduler):
        Slow.gate = threading.Event()
        worker, stream = await scheduler.worker()
        worker._server._max_incoming = 1
        stream.submit(1, Slow)
        stream.submit(2, blob, 10)
        await stream.until_finished(1, 2)
        client = await peer(worker)
        first = asyncio.ensure_future(client.ask(GetData(1, [1])))
        await asyncio.sleep(0)
        answer, _ = await client.ask(GetData(2, [1]))
        assert isinstance(answer, Busy)
        answer, values = await client.ask(GetData(3, [2]))
        assert isinstance(answer, Data) and values == {2: bytes(10)}, "short answers are never refused"
        Slow.gate.set()
        _, values = await first
        assert values == {1: "slow"}
        await worker.close()

    scene(play)


def test_values_are_taken_and_can_be_asked_for(scene, peer):
    async def play(scheduler):
        worker, _ = await scheduler.worker()
        client = await peer(worker)
        values = [5, bytes(2_000_000)]
        blocks, buffers, _ = pack_values([1, 2], values, [28, 2_000_033])
        answer, _ = await client.ask(PutData(1, [1, 2], ["a", ["b", 0]], blocks), buffers)
        assert isinstance(answer, DataStored)
        assert answer.types == ["int", "bytes"] and answer.nbytes[1] >= 2_000_000
        assert worker.data == {"a": 5, ("b", 0): values[1]}
        _, back = await client.ask(GetData(2, [1, 2]))
        assert back == {1: 5, 2: values[1]}
        await worker.close()

    scene(play)


def test_values_that_cannot_be_unpickled_are_refused(scene, peer):
    async def play(scheduler):
        worker, _ = await scheduler.worker()
        client = await peer(worker)
        answer, _ = await client.ask(PutData(1, [1], ["a"], [Block([1], b"no pickle")]))
        assert isinstance(answer, PeerRefused)
        answer, _ = await client.ask(PutData(2, [1], ["a"], []))
        assert isinstance(answer, PeerRefused) and answer.exception == "ValueError"
        assert not worker.data
        await worker.close()

    scene(play)


def test_a_value_that_the_users_mapping_lost_is_reported_missing(scene, peer):
    from treadle.messages.worker_scheduler import ReplicasDropped

    async def play(scheduler):
        worker, stream = await scheduler.worker()
        stream.submit(1, blob, 10)
        await stream.until_finished(1)
        worker.data.clear()
        client = await peer(worker)
        answer, _ = await client.ask(GetData(1, [1]))
        assert answer.missing == [1]
        await stream.hear(ReplicasDropped, 1)
        await worker.close()

    scene(play)


def test_only_peers_are_served(scene):
    async def play(scheduler):
        worker, _ = await scheduler.worker()
        comm = await connect(worker.address, Introduction(Role.CLIENT, bytes(16)), secret=b"s" * 32, timeout_s=5)
        closed = asyncio.Event()
        comm.start(lambda body, buffers: None, lambda error: closed.set())
        await closed.wait()
        await worker.close()

    scene(play)


def test_a_peer_that_breaks_the_protocol_is_dropped_and_nobody_else(scene, peer):
    async def play(scheduler):
        worker, _ = await scheduler.worker()
        bad, good = await peer(worker), await peer(worker)
        bad.comm.send(b"\xff")
        while not bad.closed:
            bad.changed.clear()
            await bad.changed.wait()
        answer, _ = await good.ask(GetData(1, [1]))
        assert answer.missing == [1]
        await worker.close()

    scene(play)
