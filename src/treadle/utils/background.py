"""Everything that runs beside has a name, and none ends in silence: tasks of event loops and threads are started here."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

#: Told, with the name, what has ended something unexpectedly.
FailureHandler: TypeAlias = Callable[[str, BaseException], None]


class EndedEarly(RuntimeError):
    """What was to go on for ever came to its end."""


class Background:
    """Tasks of ``loop`` (None: the one that runs). ``prefix`` stands in front of their names; ``on_failure`` is told when one fails."""

    def __init__(self, prefix: str, on_failure: FailureHandler | None = None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._prefix = prefix
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(
        self, name: str, coroutine: Coroutine[Any, Any, Any], *, endless: bool = False, on_failure: FailureHandler | None = None
    ) -> asyncio.Task[Any]:
        """Run it beside, until it is done or cancelled. ``endless``: coming to an end is a failure, too."""
        loop = self._loop or asyncio.get_running_loop()
        task = loop.create_task(coroutine, name=f"{self._prefix}: {name}")
        self._tasks.add(task)
        told = on_failure or self._on_failure

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is None and endless:
                error = EndedEarly(f"{task.get_name()} has ended, and should not have")
            if error is not None:
                report(task.get_name(), error, told)

        task.add_done_callback(ended)
        return task

    def cancel(self) -> None:
        """All but the caller, if it is one of them."""
        current = _current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)


def start_thread(name: str, run: Callable[[], None], on_failure: FailureHandler | None = None) -> threading.Thread:
    """A daemon thread. ``on_failure`` is called in it when ``run`` raises."""

    def body() -> None:
        try:
            run()
        except BaseException as error:
            report(name, error, on_failure)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def report(name: str, error: BaseException, on_failure: FailureHandler | None = None) -> None:
    """Something that runs beside has failed."""
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
