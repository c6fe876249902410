"""Gather what arrives in one turn of an event loop and hand it over at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turn(Generic[T]):
    """``handle`` is called with all items that were added since its last call, soon after the first of them.

    One wake-up serves any number of items, also across threads.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[list[T]], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._items: list[T] = []
        #: A call of ``_run`` is on its way. Set before the wake-up and cleared before the items are taken,
        #: so an item is either taken by the call on its way or asks for a new one.
        self._pending = False

    def add(self, item: T) -> None:
        """From the loop's thread."""
        self._items.append(item)
        if not self._pending:
            self._pending = True
            self._loop.call_soon(self._run)

    def add_from_thread(self, item: T) -> None:
        """From any thread. Raises RuntimeError when the loop is closed."""
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
            # Another thread may have appended meanwhile: remove just what was taken.
            del items[:count]
            self._handle(taken)
