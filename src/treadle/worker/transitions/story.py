"""A bounded log of transitions, for people who look into a failure. It is cheap enough to be always on."""

from __future__ import annotations

from typing import Final

from treadle.worker.transitions.records import STATE_NAMES

LENGTH: Final = 16384
_SHIFT: Final = 16


class Story:
    """The last ``LENGTH`` transitions, in three columns used as a ring: nothing is allocated for an entry."""

    __slots__ = ("_at", "_codes", "_ids", "_times", "now")

    def __init__(self) -> None:
        #: The time of the current turn, in monotonic seconds.
        self.now: float = 0.0
        self._at: int = 0
        self._ids: list[int] = [-1] * LENGTH
        self._codes: list[int] = [0] * LENGTH
        self._times: list[float] = [0.0] * LENGTH

    def note(self, id: int, start: int, finish: int) -> None:
        at = self._at
        self._ids[at] = id
        self._codes[at] = start * _SHIFT + finish
        self._times[at] = self.now
        at += 1
        self._at = 0 if at == LENGTH else at

    def of(self, ids: list[int]) -> list[tuple[float, int, str, str]]:
        """(when, id, start, finish), oldest first, of the named tasks; of all tasks when ``ids`` is empty."""
        wanted = set(ids)
        rows: list[tuple[float, int, str, str]] = []
        for offset in range(LENGTH):
            at = (self._at + offset) % LENGTH
            id = self._ids[at]
            if id < 0 or (wanted and id not in wanted):
                continue
            code = self._codes[at]
            rows.append((self._times[at], id, STATE_NAMES[code // _SHIFT], STATE_NAMES[code % _SHIFT]))
        return rows
