"""How often something that has failed within may be begun anew. No clock: ``now`` is an argument."""

from __future__ import annotations

from typing import Final

MOST_STARTS: Final = 3
WITHIN_S: Final = 60.0


class Starts:
    """After so many starts within so many seconds the next failure is the end."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def another(self, now: float) -> bool:
        """Something failed: whether it may begin anew. That counts as a start."""
        self._at = [at for at in self._at if now - at < WITHIN_S]
        if len(self._at) >= MOST_STARTS:
            return False
        self._at.append(now)
        return True
