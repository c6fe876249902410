"""Who gets which number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from treadle.comm.interface import Introduction, Role
from treadle.scheduler.sessions import NUMBERS_OF_AN_INCARNATION, Session, Sessions

LOOP = cast(Any, SimpleNamespace(time=lambda: 0.0))


class _Comm:
    peer = Introduction(Role.CLIENT, b"s" * 16)
    peer_address = "tcp://somebody"

    def start(self, on_frame: Any, on_closed: Any) -> None:
        return


def newcomer(sessions: Sessions) -> Session:
    sessions.accept(cast(Any, _Comm()))
    return next(reversed(sessions.by_number.values()))


@pytest.mark.parametrize("before", [3, 9])
def test_a_newcomer_never_gets_a_number_of_somebody_who_may_come_back(before: int) -> None:
    earlier = Sessions(LOOP, lambda arrivals: None, before)
    numbers = [newcomer(earlier).number for _ in range(8)]
    sessions = Sessions(LOOP, lambda arrivals: None, 6)
    for number in numbers[::-1]:
        returner, other = newcomer(sessions), newcomer(sessions)
        assert sessions.may_have(number)
        assert sessions.rename(returner, number) is None
        assert returner.number == number and sessions.is_current(returner)
        assert other.number // NUMBERS_OF_AN_INCARNATION == 6
    assert len(sessions.by_number) == 16


def test_a_scheduler_that_has_drawn_the_range_of_an_earlier_one_leaves_it_to_those_who_come_back() -> None:
    earlier = Sessions(LOOP, lambda arrivals: None, 6)
    numbers = [newcomer(earlier).number for _ in range(8)]
    sessions = Sessions(LOOP, lambda arrivals: None, 6)
    for number in numbers[1:]:
        returner = newcomer(sessions)
        assert sessions.may_have(number)
        sessions.rename(returner, number)
    assert sessions.incarnation != 6


def test_numbers_are_not_used_again() -> None:
    sessions = Sessions(LOOP, lambda arrivals: None, 6)
    first = newcomer(sessions)
    sessions.forget(first.number)
    assert newcomer(sessions).number > first.number
