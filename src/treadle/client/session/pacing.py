"""When the turns of a client's stream take place: as soon as there is something to do, but for bursts of single submissions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

#: Single submissions that follow each other are sent together so often.
BURST_S: Final = 0.001


class Pace:
    """Calls ``turn`` on the loop, which begins with ``begins``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
        self._loop = loop
        self._turn = turn
        #: A turn is on its way. Set before the wake-up, cleared at the start of the turn.
        self.due = False
        #: When the last turn for submissions alone began, and the next one if it has to wait; -inf: there is no burst.
        self._burst_at = -inf
        self._put_off: asyncio.TimerHandle | None = None
        #: Somebody waits: the next turn is not put off.
        self._hurried = False

    # ------------------------------------------------------------------------------------------ from any thread

    def soon(self) -> None:
        """There is something to do."""
        if not self.due:
            self.due = True
            self._call(self._turn)

    def submitted(self) -> None:
        """As ``soon``, and more of the same may follow at once.

        The first of a burst is sent at once. A turn for each of the others would cost more than they do: they are sent together,
        a moment later, or as soon as something is heard or somebody waits (``hurry``).
        """
        if not self.due:
            self.due = True
            self._call(self._turn_of_burst)

    def hurry(self) -> None:
        """Somebody waits for what was submitted."""
        self._hurried = True
        if self._put_off is not None:
            self._call(self.end_burst)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop is closed, and so is the client

    # ------------------------------------------------------------------------------------------ on the loop

    def heard(self) -> None:
        """Something arrived."""
        if not self.due or self._put_off is not None:
            self.due = True
            self._stop_waiting()
            self._loop.call_soon(self._turn)
        self._burst_at = -inf

    def end_burst(self) -> None:
        """The turn that was put off, if there is one, takes place now."""
        if self._put_off is not None:
            self._turn()

    def begins(self) -> None:
        """A turn begins."""
        self.due = self._hurried = False
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._put_off is not None:
            self._put_off.cancel()
            self._put_off = None

    def _turn_of_burst(self) -> None:
        now = self._loop.time()
        if now - self._burst_at < BURST_S and self.due and not self._hurried:
            self._put_off = self._loop.call_at(self._burst_at + BURST_S, self._turn_of_burst)
            return
        self._burst_at = now
        self._turn()
