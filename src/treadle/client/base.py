"""What all parts of a client share: its loop, its stream, and the bridge between blocking and awaiting callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from treadle import config
from treadle.client import current
from treadle.client.futures import Future, error_of, watch
from treadle.client.rows.digests import unknown_digest
from treadle.client.rows.functions import Functions
from treadle.client.rows.naming import is_generated
from treadle.client.session.ledger import PENDING, KeyState
from treadle.client.session.peers import PeerPool
from treadle.client.session.stream import UNSENT_LIMIT_BYTES, Session
from treadle.context import current_task
from treadle.exceptions import ClosedClientError
from treadle.messages.client_scheduler import AttachKeys
from treadle.utils.keys import Key
from treadle.utils.loop import LoopRunner


def optional_seconds(value: Any) -> float | None:
    """A timeout as the interface takes it: a number, text such as "5s", a timedelta, or None for no limit."""
    return None if value is None else config.seconds(value)


class ClientBase:
    """The inner interface that the parts of ``Client`` build on."""

    _runner: LoopRunner
    _asynchronous: bool
    _session: Session | None
    _pool: PeerPool | None
    _functions: Functions
    #: The function submitted last and what is known of it, if that cannot change.
    _last_function: tuple[Any, Any]
    #: Number of the last submission.
    _submissions: int

    @property
    def session(self) -> Session:
        """The stream to the scheduler. Raises ClosedClientError before the client is started."""
        if self._session is None:
            raise ClosedClientError("the client is not started: await it, or use `async with`")
        return self._session

    @property
    def pool(self) -> PeerPool:
        """The connections to workers."""
        if self._pool is None:
            raise ClosedClientError("the client is not connected")
        return self._pool

    # ------------------------------------------------------------------------------------------ blocking or not

    @property
    def asynchronous(self) -> bool:
        """Whether calls made here and now return awaitables: the client was made so, or this is code of its own loop."""
        return self._asynchronous or self._runner.in_loop_thread or self._in_coroutine_of_task()

    def _in_coroutine_of_task(self) -> bool:
        """Whether this is an asynchronous task, which would block its worker's loop."""
        if current_task.get() is None:
            return False
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def sync(
        self, func: Callable[..., Any], *args: Any, asynchronous: bool | None = None, callback_timeout: Any = None, **kwargs: Any
    ) -> Any:
        """Run a coroutine function on the client's loop: its result when the caller may block, else an awaitable of it."""
        if asynchronous is None:
            asynchronous = self.asynchronous
        if not asynchronous:
            return self._runner.sync(func, *args, callback_timeout=optional_seconds(callback_timeout), **kwargs)
        result = func(*args, **kwargs)
        if callback_timeout is not None:
            result = asyncio.wait_for(result, optional_seconds(callback_timeout))
        return self._on_own_loop(result)

    def _on_own_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """An awaitable that may be awaited on any loop, and runs on the client's."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return coroutine
        if not self._runner.started or running is self._runner.loop:
            return coroutine
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._runner.loop))

    # ------------------------------------------------------------------------------------------ for futures

    def _release(self, state: KeyState) -> None:
        session = self._session
        if session is not None:
            session.release(state)

    def _attach(self, key: Key) -> KeyState:
        """A reference to a key that may be somebody else's."""
        session = self.session
        session.check_open()
        with session.lock:
            states, new, ids = session.ledger.claim([key])
            if new:
                if not is_generated(key):
                    states[0].digest = unknown_digest(states[0].id)
                session.outgoing.add(AttachKeys(list(ids), [key]))
        if new:
            session.wake_up()
        return states[0]

    def _own_future(self, future: Future) -> Future:
        """A future of this client for the key, whosever the given one is. Its key lives as long as it does."""
        if future._client is None:
            future.bind_client(self)
        return future if future._client is self else Future(future.key, self)

    def _own_state_kept(self, future: Future) -> KeyState:
        """The state of a future's key at this client, with a reference of its own."""
        if future._client is not self:
            return self._attach(future.key)
        state = future.state
        with self.session.lock:
            state.refcount += 1
        return state

    def _on_settled(self, future: Future, call: Callable[[], object]) -> None:
        watch(future.state, call, self.session)

    def _exception(self, future: Future, timeout: Any, want_traceback: bool) -> Any:
        return self.sync(self._wait_exception, future, want_traceback, callback_timeout=timeout)

    async def _wait_exception(self, future: Future, want_traceback: bool) -> Any:
        state = future.state
        while state.status is PENDING:
            await self.session.settled([state])
        error = error_of(state)
        if error is not None and state.failure is None:
            raise error
        return error.__traceback__ if want_traceback and error is not None else error

    # ------------------------------------------------------------------------------------------ for submissions

    def _parent(self) -> Any:
        """Key of the task that this code runs in, if any."""
        return getattr(current_task.get(), "key", None)

    def _next_submission(self) -> int:
        self._submissions += 1
        return self._submissions

    def _throttle(self) -> None:
        """Wait while too much is unsent, if the caller may block."""
        session = self.session
        if session.unsent_bytes > UNSENT_LIMIT_BYTES and not self.asynchronous and session.welcomed:
            with current.waiting():
                self._runner.sync(session.drained)
