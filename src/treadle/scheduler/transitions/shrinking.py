"""Memory of tables that were large once. A dict that is emptied one by one keeps the memory of its largest size. Pure."""

from __future__ import annotations

from typing import Final

#: Smaller ones are not worth a look.
_LARGE: Final = 4096


class HighWater:
    """The largest length that a table has been seen to have since it was made."""

    def __init__(self) -> None:
        self.most: int = 0

    def has_fallen(self, length: int) -> bool:
        """Whether the table, which has that length now, is to be made anew: at a cost that is small for each entry that has left."""
        if length > self.most:
            self.most = length
            return False
        if self.most <= _LARGE or length >= self.most // 8:
            return False
        self.most = length
        return True
