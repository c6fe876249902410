"""Coming back: what may pass is tried again, what will not is not, and nothing lasts longer than it may."""

import asyncio

import pytest

from treadle.comm import reconnect
from treadle.comm.reconnect import Refused, come_back
from treadle.exceptions import AuthenticationError, CommClosedError, VersionError


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(reconnect, "SPREAD_S", 0.0)


def attempts(*outcomes):
    """An attempt that ends in these, one after the other; and what it was told of the time left."""
    left = []
    todo = list(outcomes)

    async def attempt(remaining_s):
        left.append(remaining_s)
        outcome = todo.pop(0)
        if outcome is not None:
            raise outcome

    return attempt, left


def test_it_tries_until_it_is_back():
    attempt, left = attempts(OSError("nobody there"), TimeoutError(), CommClosedError("broken"), None)
    assert asyncio.run(come_back(attempt, grace_s=60.0, why="lost")) is None
    assert len(left) == 4 and 0 < left[-1] <= left[0] <= 60


@pytest.mark.parametrize("error", [AuthenticationError("no secret"), VersionError("too old"), Refused("not you")])
def test_what_will_not_pass_ends_it(error):
    attempt, left = attempts(OSError("nobody there"), error)
    assert asyncio.run(come_back(attempt, grace_s=60.0, why="lost")) == str(error)
    assert len(left) == 2


def test_when_the_time_is_over_it_says_what_it_heard_last():
    count = 0

    async def attempt(remaining_s):
        nonlocal count
        count += 1
        raise OSError("nobody there" if count == 1 else "")

    assert asyncio.run(come_back(attempt, grace_s=0.05, why="lost")) == "nobody there"
    assert count > 1
    assert asyncio.run(come_back(attempt, grace_s=0.0, why="lost")) == "lost"


def test_a_fault_of_its_own_is_no_reason_to_go_on():
    attempt, left = attempts(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        asyncio.run(come_back(attempt, grace_s=60.0, why="lost"))
    assert len(left) == 1
