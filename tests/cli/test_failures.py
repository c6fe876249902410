"""A server that has ended because it could not go on makes its command fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.cli.process import _serve


class Ended:
    """A server that is finished at once."""

    def __init__(self, failure: str | None) -> None:
        self.failure = failure

    async def finished(self) -> None:
        return None

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(("failures", "code"), [([None], 0), (["its core failed"], 1), ([None, "its watcher failed"], 1)])
def test_exit_code(failures: list[str | None], code: int) -> None:
    async def start() -> list[Any]:
        return [Ended(failure) for failure in failures]

    assert asyncio.run(_serve(start)) == code
