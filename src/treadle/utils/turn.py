"""Gather what arrives in one turn of an event loop and deliver it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turn(Generic[T]):
    """Calls ``handle`` with all items that were added since its last call, soon after the first of them was added.

    One wake-up of the loop serves any number of items, also from other threads.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[list[T]], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._items: list[T] = []
        #: A call of ``_run`` is scheduled. Set before the wake-up and cleared before the items are taken,
        #: so that the scheduled call takes an item, or the item schedules a new call.
        self._pending = False

    def add(self, item: T) -> None:
        """Add an item. To be called from the loop's thread."""
        self._items.append(item)
        if not self._pending:
            self._pending = True
            self._loop.call_soon(self._run)

    def add_from_thread(self, item: T) -> None:
        """Add an item from any thread. Raises RuntimeError when the loop is closed."""
        self._items.append(item)
        if not self._pending:
            self._pending = True
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._pending = False
        items = self._items
        if items:
            count = len(items)
            taken = items[:count]
            # Another thread may have appended meanwhile: remove only what was taken.
            del items[:count]
            self._handle(taken)
