"""What runs beside, and fails, is named."""

from __future__ import annotations

import asyncio
import logging

import pytest

from treadle.utils.background import Background, EndedEarly, start_thread


async def fail() -> None:
    raise KeyError("lost")


async def succeed() -> None:
    return None


@pytest.mark.parametrize(
    ("coroutine", "endless", "kind"), [(fail, False, KeyError), (fail, True, KeyError), (succeed, True, EndedEarly), (succeed, False, None)]
)
def test_tasks(coroutine: object, endless: bool, kind: type | None, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, type]] = []

    async def run() -> None:
        background = Background("the house", lambda name, error: told.append((name, type(error))))
        task = background.spawn("a lamp", coroutine(), endless=endless)  # type: ignore[operator]
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert not len(background)

    asyncio.run(run())
    assert told == ([] if kind is None else [("the house: a lamp", kind)])
    named = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(named) == len(told) and all(text.startswith("the house: a lamp has failed") for text in named)


def test_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def run() -> None:
        background = Background("the house", lambda name, error: told.append(name))
        for name in ("a", "b"):
            background.spawn(name, asyncio.Event().wait(), endless=True)

        async def end() -> None:
            background.cancel()

        await background.spawn("c", end())
        while len(background):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert not told and not caplog.records


def test_threads(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    def run() -> None:
        raise SystemExit("no more")

    start_thread("a wheel", run, lambda name, error: told.append((name, str(error)))).join()
    assert told == [("a wheel", "no more")]
    assert "a wheel has failed" in caplog.text


def test_a_handler_that_fails_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    def run() -> None:
        raise ValueError("no")

    def handler(name: str, error: BaseException) -> None:
        raise RuntimeError("nor this")

    start_thread("a wheel", run, handler).join()
    assert "the failure of a wheel could not be handled" in caplog.text
