"""The event loop for synchronous users: one background thread per process, and the bridge to blocking callers."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from treadle.utils.background import start_thread


class BackgroundLoop(asyncio.SelectorEventLoop):
    """The loop that runs in the background thread. A selector loop everywhere: the transports add their own readers."""

    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have ``callback`` called soon on this loop; from any thread. (Users of tornado's loops expect this name.)"""
        self.call_soon_threadsafe(lambda: callback(*args, **kwargs))


class _LoopThread:
    """A loop that runs in a daemon thread of its own, and the number of runners that use it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = BackgroundLoop()
        self.users = 0
        running = threading.Event()
        self.thread = start_thread("treadle-loop", partial(self._run, running))
        running.wait()

    def _run(self, running: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(running.set)
        try:
            self.loop.run_forever()
        finally:
            self._end_tasks()
            self.loop.close()

    def _end_tasks(self) -> None:
        """Cancel the tasks that still run, so that nobody waits for them for ever."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self.thread:
            self.thread.join()


_lock = threading.Lock()
_shared: _LoopThread | None = None


def _forget_after_fork() -> None:
    """The thread does not exist in a forked child: its loop can neither be used nor closed there."""
    global _lock, _shared
    _lock = threading.Lock()
    _shared = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


class LoopRunner:
    """Provides an event loop to code that may be synchronous or asynchronous.

    Synchronous: the loop runs in a background thread that all runners of the process share; it ends with the last of them.
    Asynchronous: the loop is the one that runs when ``start`` (or the constructor) is called; a runner never stops it.
    ``loop`` is a running loop to use instead; its owner stops it. An object with ``asyncio_loop`` stands for that loop.
    """

    def __init__(self, *, asynchronous: bool = False, loop: Any = None) -> None:
        self.asynchronous = asynchronous
        self._given: asyncio.AbstractEventLoop | None = getattr(loop, "asyncio_loop", loop)
        if asynchronous and self._given is None:
            self._given = _running_loop()
        self._loop_thread: _LoopThread | None = None
        self._pid = os.getpid()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop. Raises RuntimeError before ``start``, after ``stop``, and in the child of a fork."""
        if self._pid != os.getpid():
            raise RuntimeError("the loop runs in the process that this one was forked from: make a new client or cluster here")
        if self._loop_thread is not None:
            return self._loop_thread.loop
        if self._given is not None:
            return self._given
        raise RuntimeError("the loop is not running: call start() first")

    @property
    def started(self) -> bool:
        return self._pid == os.getpid() and (self._given is not None or self._loop_thread is not None)

    @property
    def in_loop_thread(self) -> bool:
        """Whether the caller is code that runs on this loop."""
        return self.started and _running_loop() is self.loop

    def start(self) -> None:
        """Make sure that the loop runs. Idempotent. In a forked child, a new loop is made."""
        global _shared
        if self.asynchronous:
            if self._given is None:
                self._given = asyncio.get_running_loop()
            return
        if self._given is not None:
            if not self._given.is_running():
                raise RuntimeError("the given loop is not running: pass a running one, or none to use a background thread")
            return
        with _lock:
            if self._loop_thread is not None and self._pid == os.getpid():
                return
            if _shared is None:
                _shared = _LoopThread()
            _shared.users += 1
            self._loop_thread = _shared
            self._pid = os.getpid()

    def stop(self) -> None:
        """Stop using the loop. Idempotent. The background thread ends with its last user."""
        global _shared
        with _lock:
            loop_thread, self._loop_thread = self._loop_thread, None
            if loop_thread is None or self._pid != os.getpid():
                return
            loop_thread.users -= 1
            if loop_thread.users:
                return
            if _shared is loop_thread:
                _shared = None
        loop_thread.stop()

    def sync(self, func: Callable[..., Any], *args: Any, callback_timeout: float | None = None, **kwargs: Any) -> Any:
        """Run ``await func(*args, **kwargs)`` on the loop and block until it is done; its result or exception.

        The function sees the caller's context variables. An interrupt (Ctrl-C) or the timeout cancels it.
        Raises TimeoutError after ``callback_timeout`` seconds, RuntimeError when called by code that runs on the loop.
        """
        if self.in_loop_thread:
            raise RuntimeError(
                "a blocking call was made from the thread of the event loop that has to serve it; "
                "use asynchronous=True and await the call, or make the call in another thread (asyncio.to_thread)"
            )
        loop = self.loop
        future: Future[Any] = asyncio.run_coroutine_threadsafe(_call(func, args, kwargs), loop)
        try:
            return future.result(callback_timeout)
        except BaseException:
            # The coroutine may have raised this: then it is done, and cancel() does nothing. Or the wait was interrupted: then
            # nobody waits for the coroutine any more.
            future.cancel()
            raise


async def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = func(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
