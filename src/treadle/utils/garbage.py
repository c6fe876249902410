"""How a process that holds millions of records collects garbage."""

from __future__ import annotations

import gc
from typing import Final

#: A young collection after so many new objects, an older one after so many of those, a full one after so many of these.
#: With Python's own 700, 10, 10 a third of a scheduler's time goes into looking at its tasks again and again, in vain: what
#: the core forgets is taken apart and freed at once, so that only a few cycles, of streams that ended, need a collection.
_THRESHOLDS: Final = (50_000, 20, 20)


def settle() -> None:
    """Call once in a process of our own, when all is imported and before there is data: what is there now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
