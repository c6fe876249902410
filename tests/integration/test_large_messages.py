"""What is larger than a frame should be goes in several, or rides beside it."""

from __future__ import annotations

from typing import Any

import pytest
from dask import delayed

from treadle import Client, LocalCluster
from treadle.client.session import outgoing
from treadle.client.session.stream import Session
from treadle.client.submitting import computing, submit
from treadle.messages import beside
from treadle.messages.base import FunctionRan
from treadle.messages.client_scheduler import ClientReply, RanOn, SubmitTasks
from treadle.messages.codec import decode_scheduler_to_client, encode
from treadle.scheduler import sessions
from treadle.worker import stream as worker_stream

LIMIT_S = 60


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a kilobyte were much."""
    monkeypatch.setattr(outgoing, "FRAME_BYTES", 2048)
    monkeypatch.setattr(submit, "_CHUNK_BYTES", 1024)
    monkeypatch.setattr(computing, "_CHUNK_BYTES", 1024)
    monkeypatch.setattr(sessions, "FRAME_BYTES", 2048)
    monkeypatch.setattr(worker_stream, "FRAME_BYTES", 2048)
    monkeypatch.setattr(beside, "BESIDE_BYTES", 1024)


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The frames that clients send."""
    seen: list[list[Any]] = []
    transmit = Session._transmit

    def note(self: Session, comm: Any, batch: list[Any], buffers: Any) -> None:
        seen.append(list(batch))
        transmit(self, comm, batch, buffers)

    monkeypatch.setattr(Session, "_transmit", note)
    return seen


def length(text: str) -> int:
    return len(text)


def add(first: int, second: int) -> int:
    return first + second


def largest(frames: list[list[Any]]) -> int:
    """Bytes of payloads in the largest frame."""
    submitted = [[message for message in batch if isinstance(message, SubmitTasks)] for batch in frames]
    return max(sum(len(payload) for message in batch for payload in message.payloads) for batch in submitted)


@pytest.mark.parametrize("processes", [False, True], ids=["inproc", "tcp"])
def test_submissions(small_frames: None, frames: list[list[Any]], processes: bool) -> None:
    texts = [f"{number:03}" * 100 for number in range(100)]
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=processes, dashboard_address=None) as cluster, Client(cluster) as client:
        assert client.gather(client.map(length, texts)) == [300] * 100
        assert client.gather([client.submit(length, text, pure=False) for text in texts]) == [300] * 100
        assert client.gather(client.map(lambda text, more: len(text) + more, texts, more=1)) == [301] * 100
        assert largest(frames) < 4096


def test_graphs_whose_rows_are_large(small_frames: None, frames: list[list[Any]]) -> None:
    """Rows are needed by rows of later messages, which nobody has heard of when the earlier ones are done."""
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False) as cluster, Client(cluster) as client:
        total: Any = delayed(length)("x" * 300)
        parts = [total]
        for number in range(1, 60):
            part = delayed(length)(f"{number:03}" * 100)
            parts.append(part)
            total = delayed(add)(total, part)
        again = delayed(sum)(parts)
        assert client.gather(client.compute([total, again])) == [300 * 60, 300 * 60]
        assert largest(frames) < 4096 and len(frames) > 5
        # Nothing is kept that nobody needs any more.
        del total, again, parts, part
        scheduler = cluster.scheduler
        cluster_is_empty = client.submit(length, "end", pure=False)
        assert cluster_is_empty.result(timeout=LIMIT_S) == 3
        scheduler.validate()


def test_large_arguments(frames: list[list[Any]]) -> None:
    """A large argument is a row of its own; one that all calls share goes once."""
    texts = [f"{number:03}" * 1_000_000 for number in range(20)]
    shared = "z" * 10_000_000
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, Client(cluster) as client:
        assert client.gather(client.map(length, texts)) == [3_000_000] * 20
        assert largest(frames) < 20_000_000
        frames.clear()
        client.gather(client.map(lambda number, text: number, range(50), text=shared))
        assert largest(frames) < 20_000_000
        assert sum(isinstance(message, SubmitTasks) for batch in frames for message in batch) < 5


@pytest.mark.parametrize("nanny", [False, True], ids=["worker", "nanny"])
def test_results_of_run(small_frames: None, nanny: bool) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True) as cluster, Client(cluster) as client:
        assert set(client.run(bytes, 5000, nanny=nanny).values()) == {bytes(5000)}
        assert client.run_on_scheduler(bytes, 5000) == bytes(5000)


def test_answers_to_questions(small_frames: None) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True) as cluster, Client(cluster) as client:
        futures = client.map(length, [str(number) for number in range(300)])
        client.gather(futures)
        has = client.who_has()
        assert set(has) == {future.key for future in futures} and all(len(workers) == 1 for workers in has.values())


def test_large_results_of_short_tasks(small_frames: None) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=True) as cluster, Client(cluster) as client:
        assert client.gather(client.map(bytes, range(100, 400), pure=False)) == [bytes(number) for number in range(100, 400)]


def test_buffers_of_answers() -> None:
    ran = RanOn(7, [("a", FunctionRan(0, b"x" * beside.BESIDE_BYTES)), ("b", FunctionRan(0, b"small"))])
    message, buffers = beside.put_results_beside(ran)
    (arrived,) = decode_scheduler_to_client(encode([message]))
    assert beside.count_beside(arrived) == len(buffers) == 1
    beside.take_beside(arrived, buffers)
    assert [bytes(one.payload) for _, one in arrived.results] == [b"x" * beside.BESIDE_BYTES, b"small"]
    reply, buffers = beside.put_reply_beside(ClientReply(3, [["key", ["worker"]]]))
    (arrived,) = decode_scheduler_to_client(encode([reply]))
    beside.take_beside(arrived, buffers)
    assert arrived.value == [["key", ["worker"]]]
