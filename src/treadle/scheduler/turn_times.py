"""How long turns take, by the kind of their events: counts in fixed buckets, so that booking one costs about a microsecond. No clock."""

from __future__ import annotations

from typing import Any, Final

from treadle.messages.client_scheduler import Sent
from treadle.scheduler.transitions.machine import Event

#: Name of turns with events of several kinds.
SEVERAL: Final = "several kinds"
#: Each doubling of the time has so many buckets: what is told is at most a quarter above what was measured.
_PER_DOUBLING: Final = 4
_BUCKETS: Final = 30 * _PER_DOUBLING


def bucket_of(microseconds: int) -> int:
    """Microseconds one by one up to 7, then four buckets for each doubling."""
    if microseconds < 8:
        return max(microseconds, 0)
    length = microseconds.bit_length()
    return min(8 + (length - 4) * _PER_DOUBLING + ((microseconds >> (length - 3)) & 3), _BUCKETS - 1)


def end_of(bucket: int) -> float:
    """Seconds that all times of that bucket are below."""
    if bucket < 8:
        return (bucket + 1) * 1e-6
    doubling, quarter = divmod(bucket - 8, _PER_DOUBLING)
    return float((5 + quarter) << (doubling + 1)) * 1e-6


class _Kind:
    """The turns of one kind."""

    __slots__ = ("counts", "events", "longest_s", "turns")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.turns = 0
        self.events = 0
        self.longest_s = 0.0

    def quantile(self, share: float) -> float:
        """Seconds that this share of the turns took less than."""
        left = share * self.turns
        for bucket, count in enumerate(self.counts):
            left -= count
            if left <= 0 < count:
                return min(end_of(bucket), self.longest_s)
        return self.longest_s


class TurnTimes:
    """All turns of a scheduler."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def book(self, events: list[Event], seconds: float) -> None:
        """A turn with these events took so long."""
        name = _kind_of(events)
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _Kind()
        kind.turns += 1
        kind.events += len(events)
        kind.counts[bucket_of(int(seconds * 1e6))] += 1
        if seconds > kind.longest_s:
            kind.longest_s = seconds

    def statistics(self) -> dict[str, dict[str, Any]]:
        """By kind: ``turns``, their ``events``, and the seconds that a turn took: ``p50_s`` and ``p99_s`` (rounded up by at most a
        quarter), ``longest_s``."""
        return {
            name: {
                "turns": kind.turns,
                "events": kind.events,
                "p50_s": kind.quantile(0.5),
                "p99_s": kind.quantile(0.99),
                "longest_s": kind.longest_s,
            }
            for name, kind in sorted(self._kinds.items())
        }


def _kind_of(events: list[Event]) -> str:
    """The class of the events, but for ``Sent``, which stands behind each frame of a client."""
    found: type[object] = Sent
    for event in events:
        kind = type(event.message)
        if kind is not found and kind is not Sent:
            if found is not Sent:
                return SEVERAL
            found = kind
    return found.__name__
