"""The event loop of a process that only runs a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def new_event_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A new loop: ``"asyncio"``, or ``"uvloop"`` (faster, needs that package). Raises ValueError, ImportError with the way out."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    if kind != "uvloop":
        raise ValueError(f"distributed.admin.event-loop must be asyncio or uvloop, not {kind!r}")
    try:
        loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    except ImportError as error:
        raise ImportError("distributed.admin.event-loop is uvloop, which is not installed: pip install 'treadle[fast]'") from error
    return loop


def run(main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> T:
    """As ``asyncio.run``, on a loop that ``loop_factory`` makes."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
