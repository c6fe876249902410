"""``gather`` and ``scatter``: values straight from and to the workers that keep them."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import Queue
from time import monotonic
from typing import Any, Final

from treadle import config
from treadle.client import current
from treadle.client.base import ClientBase, optional_seconds
from treadle.client.data.fetch import Collected, collect, collect_small, unpack
from treadle.client.futures import Future, error_of
from treadle.client.options import worker_names
from treadle.client.rows.digests import unknown_digest
from treadle.client.rows.keys import token_of
from treadle.client.rows.naming import is_generated
from treadle.client.session.ledger import PENDING, KeyState, Waiter
from treadle.context import current_task
from treadle.exceptions import TimeoutError
from treadle.messages.client_scheduler import KeysScattered, Query, ReleaseKeys
from treadle.messages.worker_worker import PutData
from treadle.serialize.containers import KINDS, with_items
from treadle.serialize.errors import load_error
from treadle.serialize.sizes import sizeof, type_name
from treadle.serialize.values import pack_or_hand_over, pack_values
from treadle.utils.shown import shown

_MISSING: Final = object()


class DataMethods(ClientBase):
    """The part of ``Client`` that moves values."""

    # ------------------------------------------------------------------------------------------ gather

    def gather(self, futures: Any, errors: str = "raise", direct: Any = None, asynchronous: bool | None = None) -> Any:
        """The results of all futures in nested containers, in containers of the same shape.

        Waits for them. ``errors="raise"``: raises what the first one that fails raised; ``"skip"``: leaves out of the lists what
        failed. Data always comes straight from the workers: ``direct`` changes nothing. An iterator gives a generator.
        Raises FutureCancelledError, ValueError for another client's futures.
        """
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors must be 'raise' or 'skip', got {errors!r}")
        if isinstance(futures, Queue):
            raise TypeError("gather takes containers and iterators of futures, not a Queue: get the futures out of it first")
        if isinstance(futures, Iterator):
            return (self.gather(future, errors=errors, direct=direct) for future in futures)
        if asynchronous is None:
            asynchronous = self.asynchronous
        if asynchronous:
            current.step_aside()
            return self._on_own_loop(self._gather_here(futures, errors))
        states = self._states_in(futures)
        if not states:
            return futures
        collected = self._collect(states, errors == "raise", None)
        return _shaped(futures, _values_of(self, states, collected, errors), errors)

    async def _gather_here(self, futures: Any, errors: str) -> Any:
        states = self._states_in(futures)
        if not states:
            return futures
        collected = await collect(self.session, self.pool, states, errors == "raise")
        return _shaped(futures, _values_of(self, states, collected, errors), errors)

    def _states_in(self, futures: Any) -> list[KeyState]:
        """The states of all futures in there, each once, in order."""
        states: dict[KeyState, None] = {}
        try:
            if type(futures) is list or type(futures) is tuple:
                for future in futures:
                    if type(future) is Future and future._client is self:
                        states[future._state] = None  # type: ignore[index]  # bound, so it has one
                    else:
                        self._add_states(future, states)
            else:
                self._add_states(futures, states)
        except RecursionError:
            raise ValueError(f"gather: a {type(futures).__name__} contains itself, or is nested too deeply") from None
        return list(states)

    def _add_states(self, value: Any, states: dict[KeyState, None]) -> None:
        if isinstance(value, Future):
            if value._client is None:
                value.bind_client(self)
            if value._client is not self:
                raise ValueError(f"Cannot gather Futures created by another client: {value.key!r}")
            states[value.state] = None
        elif isinstance(value, Mapping):
            for item in value.values():
                self._add_states(item, states)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for item in value:
                self._add_states(item, states)

    def _result(self, future: Future, timeout: Any, asynchronous: bool | None = None) -> Any:
        """The value of one future, for ``Future.result`` and ``await future``."""
        state = future.state
        if asynchronous is None:
            asynchronous = self.asynchronous
        if asynchronous:
            if state.status is PENDING:
                current.step_aside()
            return self._on_own_loop(self._result_here(future, optional_seconds(timeout)))
        collected = self._collect([state], True, optional_seconds(timeout))
        return _values_of(self, [state], collected, "raise")[state]

    def _collect(self, states: Sequence[KeyState], fail_fast: bool, timeout_s: float | None) -> Collected:
        """Block until all are settled and their values are here. Raises TimeoutError."""
        session = self.session
        started = monotonic()
        with _waiting_for(states):
            collected = collect_small(session, states, fail_fast, timeout_s)
            if collected is None:
                if timeout_s is not None:
                    timeout_s = max(0.0, timeout_s - (monotonic() - started))
                collected = self._runner.sync(collect, session, self.pool, states, fail_fast, callback_timeout=timeout_s)
        return collected

    async def _result_here(self, future: Future, timeout_s: float | None) -> Any:
        # Has the future, not just its state: nobody else may have it, and its key is released with it.
        state = future.state
        async with asyncio.timeout(timeout_s):
            collected = await collect(self.session, self.pool, [state], True)
        return _values_of(self, [state], collected, "raise")[state]

    # ------------------------------------------------------------------------------------------ scatter

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool | int = False,
        direct: Any = None,
        hash: bool = True,
        timeout: Any = None,
        asynchronous: bool | None = None,
    ) -> Any:
        """Put values on workers: futures in the shape of ``data`` (a list, tuple, set, dict, range or a single value).

        ``workers``: addresses or names that may be used. ``broadcast``: a copy on each of them, or on that many. ``hash``: the key
        comes from the value, so the same value is kept once. A dict's keys become the tasks' keys. Data always goes straight to
        the workers: ``direct`` changes nothing. Raises TimeoutError when no worker came in time.
        """
        if isinstance(data, (Iterator, Queue)):
            raise TypeError("scatter takes collections, not iterators or Queues: make a list of it first")
        timeout_s = config.comm_settings().connect_timeout_s if timeout is None else config.seconds(timeout)
        names = worker_names(workers)
        if not isinstance(broadcast, int) or broadcast < 0:
            raise ValueError(f"scatter: broadcast must be True, False or a number of workers, got {shown(broadcast)}")
        return self.sync(self._scatter, data, names, broadcast, hash, timeout_s, asynchronous=asynchronous)

    async def _scatter(self, data: Any, workers: list[str] | None, broadcast: bool | int, hash: bool, timeout_s: float) -> Any:
        named, shape = _named_values(data, hash)
        futures = await self._put(named, workers, broadcast, timeout_s)
        return shape(futures)

    async def _put(self, named: dict[Any, Any], workers: list[str] | None, broadcast: bool | int, timeout_s: float) -> dict[Any, Future]:
        """Keep these values on workers; a future of each."""
        if not named:
            return {}
        session = self.session
        session.check_open()
        keys = list(named)
        targets = await self._wait_for_targets(workers, timeout_s)
        with session.lock:
            ids = session.ledger.new_ids(len(keys))
        parts = _shares(len(keys), targets, broadcast)
        takers: list[list[int]] = [[] for _ in keys]
        for (number, _, _), positions in parts:
            for position in positions:
                takers[position].append(number)
        types, sizes = zip(*[(type_name(named[key]), sizeof(named[key])) for key in keys], strict=True)
        packed = [_packed(positions, ids, keys, named, self.pool.is_here(address)) for (_, address, _), positions in parts]
        scattered = KeysScattered(list(ids), keys, takers, list(sizes), list(types))
        try:
            put = [self.pool.put(address, message, buffers) for ((_, address, _), _), (message, buffers) in zip(parts, packed, strict=True)]
            failed = [answer for answer in await asyncio.gather(*put, return_exceptions=True) if isinstance(answer, BaseException)]
            if failed:
                raise failed[0]
        except BaseException:
            # Those that took their part, and may be those that did not answer, keep it until the scheduler tells them otherwise.
            if session.closed_reason is None:
                session.send(scattered)
                session.send(ReleaseKeys(list(ids)))
            raise
        session.send(scattered)
        wake: list[Waiter] = []
        futures = {}
        with session.lock:
            for position, key in enumerate(keys):
                state = session.ledger.states.get(key)
                if state is None:
                    state = session.ledger.add(key, ids[position])
                    if not is_generated(key):
                        state.digest = unknown_digest(ids[position])
                    session.ledger.finish(state, takers[position][0], types[position], wake)
                else:
                    # The scheduler answers for the new id that the key has another one; nobody refers to the new one.
                    state.refcount += 1
                futures[key] = Future(key, self, state)
        session.wake_up(wake)
        return futures

    async def _wait_for_targets(self, workers: list[str] | None, timeout_s: float) -> list[tuple[int, str, int]]:
        """Number, address and threads of the running workers that may be used. Raises TimeoutError when there are none in time."""
        session = self.session
        deadline = session.loop.time() + timeout_s
        while True:
            answer = await session.request(lambda number: Query(number, "running_workers", {"workers": workers}))
            targets = [(number, address, nthreads) for number, address, nthreads in answer]
            if targets:
                session.peers.update({number: address for number, address, _ in targets})
                return targets
            if session.loop.time() >= deadline:
                raise TimeoutError(f"No valid workers found to scatter to in {timeout_s:g} s")
            await asyncio.sleep(0.05)


def _waiting_for(states: Iterable[KeyState]) -> AbstractContextManager[None]:
    """Inside a task: let others run while these are pending."""
    if current_task.get() is not None and any([state.status is PENDING for state in states]):
        return current.waiting()
    return nullcontext()


def _packed(
    positions: Sequence[int], ids: range, keys: list[Any], named: Mapping[Any, Any], is_here: bool
) -> tuple[PutData, Sequence[Any]]:
    """What a worker is sent that takes the values at these positions. Raises TypeError for one that cannot be pickled.

    ``is_here``: the worker is in this process, and gets those themselves.
    """
    chosen = [ids[position] for position in positions]
    values = [named[keys[position]] for position in positions]
    sizes = [sizeof(value) for value in values]
    if is_here:
        blocks, buffers = pack_or_hand_over(chosen, values, sizes)
        return PutData(0, chosen, [keys[position] for position in positions], blocks), buffers
    blocks, buffers, failed = pack_values(chosen, values, sizes)
    if failed:
        id, error = failed[0]
        raise TypeError(f"the value of {keys[id - ids.start]!r} cannot be scattered: {error.exception_text}") from load_error(error)
    return PutData(0, chosen, [keys[position] for position in positions], blocks), buffers


def _shares(count: int, targets: Sequence[tuple[int, str, int]], broadcast: bool | int) -> list[tuple[tuple[int, str, int], list[int]]]:
    """Which worker takes the values at which positions: in turn, as often as it has threads; or all values for several."""
    if broadcast:
        copies = len(targets) if broadcast is True else min(int(broadcast), len(targets))
        return [(target, list(range(count))) for target in targets[:copies]]
    turns = [target for target in targets for _ in range(max(1, target[2]))]
    shares: dict[tuple[int, str, int], list[int]] = {}
    for position, target in zip(range(count), itertools.cycle(turns), strict=False):
        shares.setdefault(target, []).append(position)
    return list(shares.items())


def _named_values(data: Any, hash: bool) -> tuple[dict[Any, Any], Callable[[dict[Any, Future]], Any]]:
    """The values by their keys, and how to shape futures by key as the data was."""
    if isinstance(data, dict):
        return dict(data), lambda futures: with_items(data, {key: futures[key] for key in data})
    if isinstance(data, (list, tuple, set, frozenset, range)):
        items = list(data)
        keys = [_key_of(item, hash) for item in items]
        kind: Any = list if isinstance(data, range) else type(data)
        # A named tuple takes its fields one by one.
        build = (lambda futures: kind(*futures)) if hasattr(data, "_fields") else kind
        return dict(zip(keys, items, strict=True)), lambda futures: build([futures[key] for key in keys])
    key = _key_of(data, hash)
    return {key: data}, lambda futures: futures[key]


def _key_of(value: Any, hash: bool) -> str:
    return f"{type(value).__name__}-{token_of(value) if hash else uuid.uuid4().hex}"


def _values_of(client: Any, states: Iterable[KeyState], collected: Collected, errors: str) -> dict[KeyState, Any]:
    """The values by state, unpickled here. Raises what the first one that failed raised, unless these are skipped."""
    values = unpack(collected, client)
    if errors != "raise":
        return values
    # Of those without a value some may just not be needed any more, because another one failed.
    without = [state for state in states if state not in values]
    for state in without:
        failure = collected.failed.get(state)
        error = error_of(state) if failure is None else load_error(failure)
        if error is not None:
            try:
                raise error
            finally:
                # It keeps this frame and the callers' and, with them, futures: not in a cycle, which lasts until the next collection.
                del error
    if without:
        raise RuntimeError(f"the value of {without[0].key!r} did not come, and nobody says why; status: {without[0].status}")
    return values


def _shaped(value: Any, values: Mapping[KeyState, Any], errors: str) -> Any:
    """Results in the place of futures."""
    if type(value) is list and all([type(item) is Future for item in value]):
        if errors == "raise":
            return [values[future._state] for future in value]
        return [values[future._state] for future in value if future._state in values]
    found = _put_in_place(value, values)
    return None if found is _MISSING else found


def _put_in_place(value: Any, values: Mapping[KeyState, Any]) -> Any:
    """``_MISSING`` for a future that failed and is skipped."""
    if isinstance(value, Future):
        return values.get(value.state, _MISSING)
    if isinstance(value, Mapping):
        items = {key: _put_in_place(item, values) for key, item in value.items()}
        return with_items(value, {key: item for key, item in items.items() if item is not _MISSING})
    if isinstance(value, KINDS):
        return with_items(value, [item for item in [_put_in_place(item, values) for item in value] if item is not _MISSING])
    return value
