"""Start background work, that is, tasks of event loops and threads: all has a name, and no failure stays silent."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

#: Called with the name of the work that has ended unexpectedly, and the exception that ended it.
FailureHandler: TypeAlias = Callable[[str, BaseException], None]


class EndedEarly(RuntimeError):
    """Endless work came to an end."""


class Background:
    """Background tasks of ``loop`` (None: the running loop). Their names begin with ``prefix``; ``on_failure`` is called when one fails."""

    def __init__(self, prefix: str, on_failure: FailureHandler | None = None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._prefix = prefix
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(
        self, name: str, coroutine: Coroutine[Any, Any, Any], *, endless: bool = False, on_failure: FailureHandler | None = None
    ) -> asyncio.Task[Any]:
        """Run a coroutine in the background until it is done or cancelled. ``endless``: its end is a failure, too."""
        loop = self._loop or asyncio.get_running_loop()
        task = loop.create_task(coroutine, name=f"{self._prefix}: {name}")
        self._tasks.add(task)
        handler = on_failure or self._on_failure

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is None and endless:
                error = EndedEarly(f"{task.get_name()} has ended, and should not have")
            if error is not None:
                report(task.get_name(), error, handler)

        task.add_done_callback(ended)
        return task

    def cancel(self) -> None:
        """Cancel all tasks except the one that calls this."""
        current = _current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)


def start_thread(name: str, run: Callable[[], None], on_failure: FailureHandler | None = None) -> threading.Thread:
    """Start a daemon thread. ``on_failure`` is called in it when ``run`` raises."""

    def body() -> None:
        try:
            run()
        except BaseException as error:
            report(name, error, on_failure)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def report(name: str, error: BaseException, on_failure: FailureHandler | None = None) -> None:
    """Log that background work has failed, and call ``on_failure``."""
    logger.critical("%s has failed: %s: %s", name, type(error).__name__, error, exc_info=error)
    if on_failure is not None:
        try:
            on_failure(name, error)
        except Exception:
            logger.critical("the failure of %s could not be handled", name, exc_info=True)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
