"""The user's handle of a task: light, shared state per key, waiting objects only when somebody waits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html import escape
from typing import Any

from dask._task_spec import TaskRef

from treadle.client import current
from treadle.client.session.ledger import CANCELLED, ERROR, FINISHED, LOST, PENDING, Cancellation, Failure, KeyState, Waiter
from treadle.client.session.stream import Session
from treadle.exceptions import ClosedClientError, FutureCancelledError
from treadle.serialize.errors import load_error
from treadle.utils.keys import Key


class Future(TaskRef):  # type: ignore[misc]
    """A task of the cluster, or its result.

    It pickles to its key alone and is a future of the client that is current where it is unpickled; if there is none, where it is
    used. Two futures are equal when they are the same object. The cluster keeps the result until the last future of the key is gone.
    """

    __slots__ = ("__weakref__", "_client", "_held", "_state")

    #: For dask: to be treated as a reference to its key in graphs.
    __dask_future__ = True

    def __init__(self, key: Key, client: Any = None, state: KeyState | None = None) -> None:
        # ``state`` comes with a reference that was counted already.
        self.key = key  # type: ignore[misc]  # a slot of TaskRef
        self._client: Any = client
        self._state = state
        self._held = state is not None
        if state is None and client is not None:
            self.bind_client(client)

    # ------------------------------------------------------------------------------------------ binding

    def bind_client(self, client: Any) -> None:
        """Make it a future of this client, which will want its key. A bound future is not bound again."""
        if self._state is not None:
            return
        self._state = client._attach(self.key)
        self._client = client
        self._held = True

    @property
    def client(self) -> Any:
        """Its client; a future that has none is bound first. Raises RuntimeError when there is no client here."""
        if self._client is None:
            client = current.find_client()
            if client is None:
                raise RuntimeError(
                    f"{type(self).__name__} object is not bound to a client: make one first (or use it inside a task), "
                    f"or call bind_client(client); key: {self.key!r}"
                )
            self.bind_client(client)
        return self._client

    @property
    def state(self) -> KeyState:
        """What is known of its key. Binds it like ``client``."""
        if self._state is None:
            _ = self.client
        assert self._state is not None
        return self._state

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.key,)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        digest = self.digest
        return ("treadle.Future", self.key, digest) if digest else ("treadle.Future", self.key)

    @property
    def digest(self) -> bytes:
        """Tells its task from others with the same key; empty where the key alone does, and for a future without a client."""
        return b"" if self._state is None else self._state.digest

    def release(self) -> None:
        """Give its reference back: with the last one of a key the cluster may forget the key."""
        if self._held:
            self._held = False
            self._client._release(self._state)

    def __del__(self) -> None:
        try:
            if self._held:
                self._held = False
                self._client._release(self._state)
        except AttributeError:
            pass  # not even initialised, or the interpreter is going down

    # ------------------------------------------------------------------------------------------ state

    @property
    def executor(self) -> Any:
        return self.client

    @property
    def status(self) -> str | None:
        """``pending``, ``finished``, ``error``, ``cancelled`` or ``lost``; None for a future without a client."""
        return None if self._state is None else self._state.status

    @property
    def type(self) -> str | None:
        """Name of the type of the result, once it is known."""
        return None if self._state is None else self._state.type

    def done(self) -> bool:
        """Whether it is settled: finished, failed, cancelled or lost."""
        return self.state.status is not PENDING

    def cancelled(self) -> bool:
        return self.state.status is CANCELLED

    # ------------------------------------------------------------------------------------------ results

    def result(self, timeout: Any = None) -> Any:
        """Wait for it and return its value, or raise what the task raised, with the remote traceback.

        Raises FutureCancelledError when it is cancelled, TimeoutError after ``timeout`` (seconds, text or timedelta).
        """
        return self.client._result(self, timeout)

    def exception(self, timeout: Any = None) -> Any:
        """Wait for it; the exception that the task raised, or None. Raises FutureCancelledError, TimeoutError."""
        return self.client._exception(self, timeout, False)

    def traceback(self, timeout: Any = None) -> Any:
        """Wait for it; the traceback of the exception that the task raised, or None."""
        return self.client._exception(self, timeout, True)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.client._result(self, None, asynchronous=True).__await__()  # type: ignore[no-any-return]

    def cancel(self, reason: str | None = None, msg: str | None = None, **kwargs: Any) -> Any:
        """Cancel the task for this client. See ``Client.cancel``."""
        return self.client.cancel([self], reason=reason, msg=msg, **kwargs)

    def retry(self, **kwargs: Any) -> Any:
        """Run an erred task again. See ``Client.retry``."""
        return self.client.retry([self], **kwargs)

    def add_done_callback(self, fn: Callable[[Future], Any]) -> None:
        """Call ``fn(future)`` once it is settled, in a background thread that all callbacks of the process share."""
        self.client._on_settled(self, lambda: _callback_thread().submit(fn, self))

    # ------------------------------------------------------------------------------------------ text

    def __repr__(self) -> str:
        state = self._state
        if state is None:
            return f"<Future: key: {self.key}>"
        kind = f" type: {state.type}," if state.type else ""
        return f"<Future: {state.status},{kind} key: {self.key}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        state = self._state
        rows = {"status": self.status, "type": None if state is None else state.type, "key": self.key}
        return "<b>Future</b> " + ", ".join(f"<b>{name}:</b> {escape(str(value))}" for name, value in rows.items() if value is not None)


def _unpickled(key: Key) -> Future:
    """A future that came to this process. Bound at once, not only when it is used: whoever has brought it may let go of it before that."""
    future = Future(key)
    try:
        client = current.find_client()
        if client is not None:
            future.bind_client(client)
    except (ClosedClientError, OSError):
        pass  # told to whoever uses it
    return future


@cache
def _callback_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="treadle-callbacks")


def watch(state: KeyState, call: Callable[[], object], session: Session) -> None:
    """Call ``call`` on the client's loop, or here and now, once the key is settled."""
    if not session.attach([state], Waiter(call)):
        call()


def error_of(state: KeyState) -> BaseException | None:
    """Why there is no value: what the task raised, or FutureCancelledError; None when nothing went wrong so far."""
    detail = state.detail
    if (state.status is ERROR or state.status is LOST) and isinstance(detail, Failure):
        return exception_of(detail)
    if state.status is CANCELLED and isinstance(detail, Cancellation):
        return FutureCancelledError(state.key, detail.reason, detail.msg)
    if state.status is LOST:
        msg = "The worker that had the only copy of this data is gone, and there is no task to make it again."
        return FutureCancelledError(state.key, "lost", msg)
    return None


def exception_of(failure: Failure) -> BaseException:
    """The exception, with the remote traceback. A new one each time.

    One that is raised keeps the frames that it passes, and all they hold: kept here, it would keep the very futures that keep it.
    """
    return load_error(failure.error)


def flat_futures(obj: Any) -> Iterable[Any]:
    """The futures in nested lists, tuples, sets, dicts and dask collections, in order, with repetitions.

    Raises ValueError for a container that contains itself.
    """
    try:
        return list(_flat_futures(obj))
    except RecursionError:
        raise ValueError(f"a {type(obj).__name__} with futures contains itself, or is nested too deeply") from None


def _flat_futures(obj: Any) -> Iterator[Any]:
    if isinstance(obj, Future):
        yield obj
    elif isinstance(obj, dict):
        yield from itertools.chain.from_iterable(map(_flat_futures, obj.values()))
    elif isinstance(obj, (list, tuple, set, frozenset)):
        yield from itertools.chain.from_iterable(map(_flat_futures, obj))


__all__ = ["CANCELLED", "ERROR", "FINISHED", "LOST", "PENDING", "Future", "error_of", "exception_of", "flat_futures", "watch"]
