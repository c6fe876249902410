"""Requests to one party: who may answer, and with what."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from treadle.messages.worker_scheduler import ExplainTask, TaskExplained, WorkerRan
from treadle.scheduler.admin import Admin
from treadle.scheduler.liveness import Nannies


class _Sessions:
    """Writes down what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []

    def send(self, number: int, messages: list[Any], frames: list[Any]) -> bool:
        self.sent += [(number, message) for message in messages]
        return True


def test_a_worker_is_asked_about_a_task_and_only_its_own_answer_of_the_right_kind_counts() -> None:
    async def scene() -> None:
        sessions = _Sessions()
        admin = Admin(cast(Any, None), cast(Any, sessions), Nannies(), lambda message: None, None)
        asking = asyncio.ensure_future(admin.ask_worker(cast(Any, SimpleNamespace(number=7)), 42))
        await asyncio.sleep(0)
        ((number, question),) = sessions.sent
        assert (number, question) == (7, ExplainTask(question.request, 42))
        said = TaskExplained(question.request, "executing", 3, 1.5, ["it has been executing for 1.5 s"])
        admin.answered(8, said)
        admin.answered(7, WorkerRan(question.request, b"cos\nsystem\n(S'true'\ntR.", None))
        admin.answered(7, TaskExplained(question.request + 1, "ready", 3, None, []))
        await asyncio.sleep(0)
        assert not asking.done()
        admin.answered(7, said)
        assert await asking == said
        admin.answered(7, said)

    asyncio.run(scene())


def test_a_worker_that_goes_away_answers_no_more() -> None:
    async def scene() -> None:
        admin = Admin(cast(Any, None), cast(Any, _Sessions()), Nannies(), lambda message: None, None)
        asking = asyncio.ensure_future(admin.ask_worker(cast(Any, SimpleNamespace(number=7)), 42))
        await asyncio.sleep(0)
        admin.lost(8)
        admin.lost(7)
        with pytest.raises(ConnectionError, match="went away"):
            await asking

    asyncio.run(scene())
