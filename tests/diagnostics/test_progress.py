"""The bar, with futures that finish when the test says so."""

from __future__ import annotations

import io
from typing import Any

import pytest

from treadle.diagnostics.progress import ProgressStatistics, bar, progress, seconds_text, text


class FakeClient:
    asynchronous = False

    def __init__(self, counts: list[dict[str, int]] | None = None) -> None:
        self.counts = counts or []

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"tasks": self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]}


class FakeFuture:
    """Pending until it is waited for ``waits`` times; then it has the status ``end``."""

    __dask_future__ = True

    def __init__(self, client: FakeClient, waits: int = 0, end: str = "finished") -> None:
        self.client = client
        self.waits = waits
        self.end = end

    @property
    def status(self) -> str:
        return "pending" if self.waits else self.end

    def exception(self, timeout: float) -> BaseException | None:
        self.waits -= 1
        if self.waits:
            raise TimeoutError
        return None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_output_has_a_line_for_each_change_and_a_last_one() -> None:
    client = FakeClient()
    out = io.StringIO()
    result = progress([FakeFuture(client), FakeFuture(client, waits=2)], file=out, interval=0.001, label="sums")
    assert (result.finished, result.failed, result.futures) == (2, 0, 2)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("sums:  50 % | 1 of 2 | ")
    assert lines[-1].startswith("sums: 100 % | 2 of 2 | ")
    assert "\r" not in out.getvalue()


def test_a_terminal_gets_one_line_that_is_drawn_again() -> None:
    client = FakeClient()
    out = Terminal()
    progress(FakeFuture(client, waits=3), file=out, interval=0.001)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("\n")
    assert out.getvalue().count("\r") >= 2


def test_failures_are_counted_and_not_raised() -> None:
    client = FakeClient()
    out = io.StringIO()
    futures = {"a": FakeFuture(client, end="error"), "b": (FakeFuture(client, end="cancelled"), FakeFuture(client))}
    result = progress(futures, file=out)
    assert (result.finished, result.failed) == (1, 2)
    assert "3 of 3 | 2 failed" in out.getvalue()


def test_the_cluster_s_tasks_are_counted_when_asked_for() -> None:
    client = FakeClient([{"waiting": 6, "processing": 2, "memory": 5}, {"processing": 2, "memory": 11}])
    out = io.StringIO()
    result = progress(FakeFuture(client, waits=3), count="cluster", file=out, interval=0.001)
    assert result.steps == 8
    assert " 75 % | 6 of 8" in out.getvalue()
    assert "100 % | 8 of 8" in out.getvalue()


def test_a_future_that_is_given_twice_counts_once() -> None:
    future = FakeFuture(FakeClient())
    assert progress(future, [future], file=io.StringIO()).futures == 1


def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    class Gone(io.StringIO):
        def write(self, line: str) -> int:
            raise BrokenPipeError

    assert progress(FakeFuture(FakeClient(), waits=2), file=Gone(), interval=0.001).finished == 1


def test_mistakes_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="found none in int"):
        progress(1)
    with pytest.raises(ValueError, match="'futures' or 'cluster'"):
        progress(FakeFuture(FakeClient()), count="all")
    with pytest.raises(NotImplementedError, match="notebook"):
        progress(FakeFuture(FakeClient()), notebook=True)


def test_texts() -> None:
    now = ProgressStatistics(finished=1, failed=0, futures=4, steps_done=1, steps=4, elapsed_s=0.2)
    assert text(now) == " 25 % | 1 of 4 | 0.2 s, about 0.6 s left"
    assert bar(now).startswith("[########------------------------]  25 %")
    assert [seconds_text(s) for s in (0.04, 9.96, 59.7, 200, 7500)] == ["0.0 s", "10.0 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
