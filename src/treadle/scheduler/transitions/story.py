"""A bounded log of transitions, for people: what happened to a task, and when."""

from __future__ import annotations

from typing import Any

from treadle.scheduler.transitions.records import STATE_NAMES


class Story:
    """A ring of the last ``length`` transitions. Writing one allocates nothing."""

    def __init__(self, length: int = 20_000) -> None:
        self.length: int = length
        self.position: int = 0
        #: Transitions written since the beginning.
        self.count: int = 0
        self._keys: list[Any] = [None] * length
        self._moves: list[int] = [0] * length
        #: (cause, time). Not typed as a pair: compiled, that would be stored without an object, and each note would make one.
        self._moment: Any = ("", 0.0)
        self._moments: list[Any] = [self._moment] * length

    def begin(self, cause: str, now: float) -> None:
        """What is noted from here on was set off by the event of that name."""
        before, then = self._moment
        if now != then or cause != before:
            # Not one for each of many events at a time: each would stay as long as the ring does not come round, and a few bytes
            # here and there keep whole arenas of memory from being given back.
            self._moment = (cause, now)

    def note(self, key: Any, start: int, finish: int) -> None:
        at = self.position
        self._keys[at] = key
        self._moves[at] = start * 8 + finish
        self._moments[at] = self._moment
        at += 1
        self.position = at if at < self.length else 0
        self.count += 1

    def of(self, keys: list[Any]) -> list[tuple[Any, str, str, str, float]]:
        """(key, start, finish, cause, time) of the transitions of these keys that are still known, oldest first.

        ``cause`` is the name of the event that set it off; time is in seconds as the scheduler was told.
        """
        wanted = set(keys)
        found: list[tuple[Any, str, str, str, float]] = []
        known = min(self.count, self.length)
        for back in range(known, 0, -1):
            at = (self.position - back) % self.length
            if self._keys[at] in wanted:
                start, finish = divmod(self._moves[at], 8)
                cause, time = self._moments[at]
                found.append((self._keys[at], STATE_NAMES[start], STATE_NAMES[finish], cause, time))
        return found
