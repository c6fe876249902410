"""``submit`` and ``map``: calls of functions, a row each, sent without waiting for anything."""

from __future__ import annotations

import pickle
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from marshal import dumps as marshal_dumps
from queue import Queue
from typing import Any, Final

from dask.base import get_annotations
from dask.utils import format_bytes

from treadle import config
from treadle.client.base import ClientBase
from treadle.client.futures import Future
from treadle.client.options import make_options, number, seconds
from treadle.client.rows.calls import Call, Constants, check_callable, prepare
from treadle.client.rows.columns import Columns
from treadle.client.rows.digests import DIGEST_BYTES, call_digest, differ, function_digest
from treadle.client.rows.functions import KnownFunction, is_importable
from treadle.client.rows.keys import bound_token, call_key, check_key, is_plain, unique_key
from treadle.client.rows.naming import chosen_among, is_generated
from treadle.client.session.ledger import KeyState, dead_state
from treadle.client.session.stream import UNSENT_LIMIT_BYTES, Session
from treadle.client.submitting.redefined import tell_redefined
from treadle.context import current_task
from treadle.messages.base import TaskOptions
from treadle.messages.client_scheduler import DefineFunctions, ForgetFunctions, SubmitTasks
from treadle.utils.keys import Key, group_of

#: Rows of a message: enough to be cheap, few enough for the scheduler to begin early.
CHUNK_ROWS: Final = 2000
_CHUNK_BYTES: Final = 8 * 2**20

_NOTHING_ASKED: Final = (None, None, None, 0, False, False)
#: Below this nobody is warned, whatever the threshold.
_SMALL_BYTES: Final = 10_000

_fifo_timeout_s = lru_cache(partial(seconds, "fifo_timeout"))


class Terms:
    """What all rows of a submission have in common."""

    __slots__ = ("agreed", "fifo_timeout_s", "options", "parent", "priority")

    def __init__(self, options: TaskOptions | None, priority: float, fifo_timeout_s: float, parent: Any) -> None:
        self.options = options
        self.priority = priority
        self.fifo_timeout_s = fifo_timeout_s
        self.parent = parent
        #: Equal for submissions that may be one.
        self.agreed = (options, priority, fifo_timeout_s, parent)

    def apply(self, message: SubmitTasks) -> SubmitTasks:
        message.options = self.options
        message.priority = self.priority
        message.fifo_timeout_s = self.fifo_timeout_s
        message.parent = self.parent
        return message


@lru_cache
def _plain_terms(fifo_timeout: Any) -> Terms:
    """Of calls that ask for nothing, made outside of tasks."""
    return Terms(None, 0, seconds("fifo_timeout", fifo_timeout), None)


def context_annotations(key: Key) -> dict[str, Any]:
    """The annotations of ``dask.annotate`` that surround the caller, for that key."""
    return {name: value(key) if callable(value) else value for name, value in get_annotations().items()}


def warn_if_large(nbytes: int, what: str) -> None:
    """Warn the caller's caller when so much is sent as part of the tasks themselves."""
    if nbytes > _SMALL_BYTES and nbytes > config.client_settings().large_graph_bytes:
        warnings.warn(
            f"Sending large {what} of size {format_bytes(nbytes)}.\nThis may cause some slowdown.\n"
            "Consider loading the data with Dask directly\n or using futures or delayed objects to embed the data "
            "into the graph without repetition.",
            UserWarning,
            stacklevel=4,
        )


class SubmitMethods(ClientBase):
    """The part of ``Client`` that calls functions on the cluster."""

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Any = None,
        workers: Any = None,
        resources: Any = None,
        retries: Any = None,
        priority: float = 0,
        fifo_timeout: Any = "100 ms",
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        **kwargs: Any,
    ) -> Future:
        """Call ``func(*args, **kwargs)`` on a worker; returns its future at once.

        Futures in the arguments, also inside lists, tuples, sets and dicts, stand for their results. A pure call has the same
        key whenever it is made with the same arguments, and is made once. Raises TypeError when ``func`` is not callable
        or something cannot be pickled, ClosedClientError.
        """
        check_callable(func)
        session = self.session
        session.check_open()
        asked = (workers, resources, retries, priority, allow_other_workers, actor or actors)
        terms = self._terms(asked, fifo_timeout, key)
        known = self._last_function[1] if func is self._last_function[0] else self._find_function(func)
        digest = b""
        if key is None:
            key = call_key(known.name, bound_token(known.token, kwargs), args) if pure else unique_key(known.name)
        else:
            check_key(key)
            if not is_generated(key):
                digest = call_digest(self._function_digest(known, func), args, kwargs)
                self._settle_chosen([key], [digest])
        if key in session.ledger.states:
            future = self._future_of_known(key)
            if future is not None:
                return future
        constants = Constants()
        call = prepare(key, args, kwargs, constants)
        if len(call.payload) > _SMALL_BYTES:
            warn_if_large(len(call.payload), "task")
        future = self._send_call(session, key, known, call, terms, constants, digest)
        session.submitted()
        if session.unsent_bytes > UNSENT_LIMIT_BYTES:
            self._throttle()
        return future

    def _terms(self, asked: tuple[Any, ...], fifo_timeout: Any, key: Any) -> Terms:
        """``asked``: workers, resources, retries, priority, allow_other_workers, actor."""
        annotations = get_annotations()
        if asked == _NOTHING_ASKED and not annotations and current_task.get() is None:
            return _plain_terms(fifo_timeout)
        workers, resources, retries, priority, allow_other_workers, actor = asked
        options = make_options(
            workers=workers,
            allow_other_workers=allow_other_workers,
            resources=resources,
            retries=retries,
            actor=actor,
            annotations=context_annotations(key) if annotations else None,
        )
        return Terms(options, number("priority", priority), _fifo_timeout_s(fifo_timeout), self._parent())

    def _find_function(self, func: Callable[..., Any]) -> KnownFunction:
        with self.session.lock:
            known = self._functions.find(func)
        if is_importable(func):  # else it may become another one
            self._last_function = (func, known)
        return known

    def _function_digest(self, known: KnownFunction, func: Callable[..., Any]) -> bytes:
        if not known.digest:
            known.digest = function_digest(func)
        return known.digest

    def _settle_chosen(self, keys: Sequence[Key], digests: Sequence[bytes]) -> None:
        """These keys were chosen for tasks with these digests (an empty one: the key is none of these).

        Warns, or raises RedefinedKeyError, when one stands for another task already, here or among these.
        """
        session = self.session
        first: dict[Key, bytes] = {}
        redefined: dict[Key, None] = {}
        with session.lock:
            # A key whose last future is gone is free.
            session.settle_releases()
            for key, digest in zip(keys, digests, strict=True):
                state = session.ledger.states.get(key)
                present = first.setdefault(key, digest) if state is None else state.digest
                if digest and differ(present, digest):
                    redefined[key] = None
        if redefined:
            tell_redefined(list(redefined))

    def _future_of_known(self, key: Key) -> Future | None:
        """Another future of a key that this client has already."""
        session = self.session
        with session.lock:
            state = session.ledger.states.get(key)
            if state is None:
                return None
            state.refcount += 1
        return Future(key, self, state)

    def _define(self, known: KnownFunction) -> int:
        """The id of a function that the scheduler knows, or will know before any row that comes now. Under the lock."""
        if not known.id:
            forgotten = self._define_now(known)
            if forgotten:
                self.session.outgoing.add(ForgetFunctions(forgotten))
        return known.id

    def _define_now(self, known: KnownFunction) -> list[int]:
        """Give it an id. Returns the ids of functions that have to make room, to be forgotten. Under the lock."""
        if known.id:
            return []
        session = self.session
        known.id = session.ledger.new_function_id()
        session.outgoing.define(DefineFunctions([known.id], [known.name], [known.body]))
        return self._functions.used(known)

    def _send_call(
        self, session: Session, key: Key, known: KnownFunction, call: Call, terms: Terms, constants: Constants, digest: bytes = b""
    ) -> Future:
        """Append one row to what is to be sent."""
        # Held until the row that needs them is on its way.
        needs = [self._own_future(need) if isinstance(need, Future) else need for need in call.needs] if call.needs else ()
        if needs and not all([need.state.id for need in needs if isinstance(need, Future)]):
            return Future(key, self, dead_state(key, "lost dependencies"))
        if call.buffers or call.constants:
            columns = Columns()
            with session.composing():
                state = self._add_row(columns, key, known, call, needs, constants, digest)
                self._send_columns(columns, terms)
            return Future(key, self, state)
        with session.lock:
            state, id = session.ledger.claim_one(key)
            if id:
                function = self._define(known)
                message = session.outgoing.joinable(terms.agreed)
                if message is None:
                    message = terms.apply(SubmitTasks(self._next_submission(), [], [], [], [], eager=True))
                    session.outgoing.open(message, terms.agreed)
                message.ids.append(id)
                message.keys.append(key)
                message.functions.append(function)
                message.payloads.append(call.payload)
                if digest:
                    state.digest = digest
                    message.strict = message.strict or config.redefined_keys_are_errors()
                    rows = message.digests or []
                    message.digests = [*rows, (len(message.ids) - 1, digest)] if len(digest) == DIGEST_BYTES else message.digests
                if needs or message.dependencies is not None:
                    if message.dependencies is None:
                        message.dependencies = [[] for _ in range(len(message.ids) - 1)]
                    message.dependencies.append([session.ledger.own_id(need.state) for need in needs])
                session.outgoing.grow(len(call.payload))
        return Future(key, self, state)

    def _add_row(
        self,
        columns: Columns,
        key: Key,
        known: KnownFunction,
        call: Call,
        needs: Sequence[Any],
        constants: Constants,
        digest: bytes = b"",
    ) -> KeyState:
        """A call and its large arguments. A key that is known already gets another reference and no row.

        ``needs``: own futures of what it depends on, and keys of its large arguments.
        """
        session = self.session
        with session.lock:
            (state,), new, ids = session.ledger.claim([key])
            if not new:
                return state
            state.digest = digest
            for constant in call.constants:
                held = constants.held.get(constant.key)
                if held is None:
                    (present,), missing, constant_ids = session.ledger.claim([constant.key])
                    held = constants.held[constant.key] = Future(constant.key, self, present)
                    if missing:
                        columns.add(constant_ids.start, constant.key, 0, constant.payload, constant.buffers, wanted=True)
            futures = [need if isinstance(need, Future) else constants.held[need] for need in needs]
            dependencies = [session.ledger.own_id(future.state) for future in futures]
            columns.add(ids.start, key, self._define(known), call.payload, call.buffers, dependencies, wanted=True, digest=digest)
        return state

    def _send_columns(self, columns: Columns, terms: Terms, group: str | None = None, submission: int = 0, first_rank: int = 0) -> None:
        """Append the rows to what is to be sent."""
        if not columns.ids:
            return
        session = self.session
        message = terms.apply(columns.message(submission or self._next_submission()))
        message.group = group
        message.first_rank = first_rank
        with session.lock:
            if session.renew_ids(message):
                session.outgoing.add(message, columns.beside, columns.nbytes + 64 * len(columns))

    # ------------------------------------------------------------------------------------------ map

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Any,
        key: Any = None,
        workers: Any = None,
        retries: Any = None,
        resources: Any = None,
        priority: float = 0,
        allow_other_workers: bool = False,
        fifo_timeout: Any = "100 ms",
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[Future]:
        """Call ``func`` with the first elements of all iterables, the second ones, and so on to the end of the shortest.

        Returns a list of futures at once. ``key``: the first part of all keys, or a list of keys. Large keyword arguments
        are sent once. ``batch_size``: rows of a message. Errors as in ``submit``.
        """
        check_callable(func)
        if not iterables:
            raise ValueError("map needs at least one iterable")
        for iterable in iterables:
            if isinstance(iterable, (Iterator, Queue)):
                raise TypeError(
                    "map takes sequences, not iterators or Queues, which it cannot look at twice: make a list of it, or submit in a loop"
                )
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size must be at least 1, got {batch_size!r}")
        if not isinstance(key, list):
            self.session.check_open()
        rows = list(zip(*iterables, strict=False))
        if isinstance(key, list):
            if len(key) != len(rows):
                raise ValueError(f"as many keys as calls are needed: {len(key)} keys, {len(rows)} calls")
            for one in key:
                check_key(one)
        asked = (workers, resources, retries, priority, allow_other_workers, actor or actors)
        terms = self._terms(asked, fifo_timeout, key)
        known = self._find_function(func)
        return _Mapping(self, func, known, terms, kwargs, key, pure).send(rows, batch_size or CHUNK_ROWS)


class _Mapping:
    """One ``map`` under way."""

    def __init__(
        self,
        client: SubmitMethods,
        func: Callable[..., Any],
        known: KnownFunction,
        terms: Terms,
        kwargs: Mapping[str, Any],
        key: Any,
        pure: bool,
    ) -> None:
        self.client = client
        self.func = func
        self.known = known
        self.terms = terms
        self.kwargs = kwargs
        self.key = key
        self.prefix = key if isinstance(key, str) else known.name
        self.token = bound_token(known.token, kwargs)
        self.unique = None if pure else uuid.uuid4().hex
        self.constants = Constants()
        self.submission = client._next_submission()
        self.payload_bytes = 0

    def send(self, rows: Sequence[tuple[Any, ...]], chunk_rows: int) -> list[Future]:
        client = self.client
        futures: list[Future] = []
        for start in range(0, len(rows), chunk_rows):
            chunk = rows[start : start + chunk_rows]
            plain = all(map(is_plain, chunk))
            keys = self.keys(chunk, start, plain)
            digests = self.digests(chunk, keys)
            quick = plain and not self.kwargs and not digests
            futures += self.send_quick(chunk, keys, start) if quick else self.send_slow(chunk, keys, start, digests)
            client.session.wake_up()
            client._throttle()
        warn_if_large(self.payload_bytes, "graph")
        return futures

    def keys(self, chunk: Sequence[tuple[Any, ...]], start: int, plain: bool) -> list[Any]:
        """The keys of these calls, of which the first one is number ``start``; ``plain``: all arguments are."""
        if isinstance(self.key, list):
            return self.key[start : start + len(chunk)]
        prefix = self.prefix
        if self.unique is not None:
            return [f"{prefix}-{self.unique}-{start + i}" for i in range(len(chunk))]
        if not plain:
            return [call_key(prefix, self.token, args) for args in chunk]
        # As in ``call_key``, and spelled out: this is the hot path.
        token = self.token.encode()
        return [f"{prefix}-{blake2b(token + marshal_dumps(args, 2), digest_size=16).hexdigest()}" for args in chunk]

    def digests(self, chunk: Sequence[tuple[Any, ...]], keys: Sequence[Any]) -> list[bytes]:
        """Of calls whose keys the user chose; empty ones for other keys, none at all where no key was chosen."""
        if not isinstance(self.key, list) or not chosen_among(keys):
            return []
        function = self.client._function_digest(self.known, self.func)
        digests = [
            b"" if is_generated(key) else call_digest(function, args, self.kwargs) for key, args in zip(keys, chunk, strict=True)
        ]
        self.client._settle_chosen(keys, digests)
        return digests

    def group(self, keys: Sequence[Any]) -> str | None:
        return None if isinstance(self.key, list) else group_of(keys[0])

    def send_quick(self, chunk: Sequence[tuple[Any, ...]], keys: list[Any], start: int) -> list[Future]:
        """Plain arguments only: no buffers, no dependencies."""
        client = self.client
        session = client.session
        payloads = [pickle.dumps(args, 5) for args in chunk]
        nbytes = sum(map(len, payloads))
        if nbytes > _CHUNK_BYTES and len(chunk) > 1:
            half = len(chunk) // 2
            del payloads
            return self.send_quick(chunk[:half], keys[:half], start) + self.send_quick(chunk[half:], keys[half:], start + half)
        self.payload_bytes += nbytes
        with session.lock:
            states, new, ids = session.ledger.claim(keys)
            if new:
                function = client._define(self.known)
                if len(new) < len(keys):
                    keys, payloads = [keys[i] for i in new], [payloads[i] for i in new]
                message = self.terms.apply(SubmitTasks(self.submission, list(ids), keys, [function] * len(keys), payloads))
                message.group = self.group(keys)
                message.first_rank = start
                session.outgoing.add(message, (), nbytes + 64 * len(keys))
        return [Future(state.key, client, state) for state in states]

    def send_slow(self, chunk: Sequence[tuple[Any, ...]], keys: list[Any], start: int, digests: Sequence[bytes]) -> list[Future]:
        """Any arguments, keyword arguments, futures, keys that were chosen."""
        futures: list[Future] = []
        while len(futures) < len(keys):
            done = len(futures)
            # Users' values are pickled before anything is claimed: a client that comes back meanwhile is not kept waiting by that.
            calls = self.prepared(chunk[done:], keys[done:])
            with self.client.session.composing():
                futures += self.send_prepared(calls, start, digests[done:])
        return futures

    def prepared(self, chunk: Sequence[tuple[Any, ...]], keys: Sequence[Any]) -> list[tuple[Any, Call | None, list[Any]]]:
        """(key, call, what it depends on) for the first of these, as many as go together; without a call the future that it is, alone.

        Raises TypeError for what cannot be pickled.
        """
        client = self.client
        calls: list[tuple[Any, Call | None, list[Any]]] = []
        nbytes = beside = 0
        #: Large arguments that go with them.
        fresh: set[Key] = set()
        for args, key in zip(chunk, keys, strict=True):
            present = client._future_of_known(key)
            if present is not None:
                calls.append((key, None, [present]))
                continue
            call = prepare(key, args, self.kwargs, self.constants)
            needs = [client._own_future(need) if isinstance(need, Future) else need for need in call.needs]
            if not all([need.state.id for need in needs if isinstance(need, Future)]):
                calls.append((key, None, [Future(key, client, dead_state(key, "lost dependencies"))]))
                continue
            calls.append((key, call, needs))
            nbytes += len(call.payload)
            for constant in call.constants:
                if constant.key not in self.constants.held and constant.key not in fresh:
                    fresh.add(constant.key)
                    beside += len(constant.payload) + sum([memoryview(buffer).nbytes for buffer in constant.buffers])
            if nbytes + beside > _CHUNK_BYTES:
                break
        self.payload_bytes += nbytes
        return calls

    def send_prepared(self, calls: Sequence[tuple[Any, Call | None, list[Any]]], start: int, digests: Sequence[bytes]) -> list[Future]:
        client = self.client
        futures: list[Future] = []
        columns = Columns()
        try:
            for row, (key, call, needs) in enumerate(calls):
                if call is None:
                    futures += needs
                else:
                    digest = digests[row] if digests else b""
                    state = client._add_row(columns, key, self.known, call, needs, self.constants, digest)
                    futures.append(Future(key, client, state))
        finally:
            # Also after an error: what has an id must be known to the scheduler when it is released.
            client._send_columns(columns, self.terms, None, self.submission, start)
        return futures


__all__ = ["CHUNK_ROWS", "SubmitMethods", "Terms", "context_annotations", "warn_if_large"]
