"""Limit how often something that fails by a bug of treadle is started again. No clock: ``now`` is an argument."""

from __future__ import annotations

from typing import Final

MOST_STARTS: Final = 3
WITHIN_S: Final = 60.0


class Starts:
    """Counts starts after failures. After too many within a time, the next failure is final."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def another(self, now: float) -> bool:
        """Whether to start again after a failure at ``now``, in seconds; if so, this counts as a start."""
        self._at = [at for at in self._at if now - at < WITHIN_S]
        if len(self._at) >= MOST_STARTS:
            return False
        self._at.append(now)
        return True
