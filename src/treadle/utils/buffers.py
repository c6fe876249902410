"""Buffers that ride beside messages, in the messages' order: each message says how many are its own and takes them off the front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

B = TypeVar("B")


class Buffers(Generic[B]):
    """The buffers of one frame, or of one message."""

    def __init__(self, buffers: Sequence[B]) -> None:
        self._buffers = buffers
        self._at = 0

    @property
    def left(self) -> int:
        """How many buffers were not taken yet."""
        return len(self._buffers) - self._at

    def take(self, count: int) -> list[B]:
        """The next ``count`` buffers, or fewer if fewer are left."""
        first = self._at
        self._at = min(first + count, len(self._buffers))
        return list(self._buffers[first : self._at])


def buffers_by_row(rows: Iterable[tuple[int, int]] | None, buffers: Sequence[B]) -> dict[int, list[B]]:
    """The buffers of each row. ``rows``: (row, number of its buffers), in order; a row that is not named has none."""
    found: dict[int, list[B]] = {}
    if rows:
        beside = Buffers(buffers)
        for row, count in rows:
            found[row] = beside.take(count)
    return found
