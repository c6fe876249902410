"""``get``, ``compute`` and ``persist``: graphs and dask collections, sent a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import dask
from dask.base import is_dask_collection

from treadle.client.data.transfers import DataMethods
from treadle.client.futures import Future
from treadle.client.options import make_options, number, row_options, seconds
from treadle.client.rows.columns import Columns
from treadle.client.rows.digests import differ
from treadle.client.rows.encoding import Encoding, Row
from treadle.client.rows.graph import Outside, Table, build_table, count_dependents, flat_keys, replace_keys
from treadle.client.session.ledger import CANCELLED, LOST, KeyState, dead_state
from treadle.client.session.reconnect import LOST_IN_RESTART
from treadle.client.submitting.redefined import tell_redefined
from treadle.client.submitting.submit import CHUNK_ROWS, SubmitMethods, Terms, warn_if_large
from treadle.messages.client_scheduler import ForgetFunctions
from treadle.utils import interpreter
from treadle.utils.keys import Key

_CHUNK_BYTES: Final = 8 * 2**20


class CollectionMethods(DataMethods, SubmitMethods):
    """The part of ``Client`` that computes graphs."""

    def get(
        self,
        dsk: Any,
        keys: Any,
        workers: Any = None,
        allow_other_workers: Any = None,
        resources: Any = None,
        sync: bool = True,
        asynchronous: bool | None = None,
        direct: Any = None,
        retries: Any = None,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Compute ``keys`` of a graph: the values in the shape of ``keys`` (nested lists), or futures if not ``sync``.

        This is what dask calls when this client is its scheduler. It passes on all options of a ``compute(...)``, whichever
        scheduler they are meant for (``num_workers``, ``pool``, ``flush``, ...): others than those above do nothing.
        The graph is a dict, a HighLevelGraph or an expression.
        Raises what a task raised, TypeError and ValueError for graphs that make no sense.
        """
        terms = self._graph_terms(workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors)
        futures = self._submit_graph(dsk, flat_keys(keys), terms, eager=sync, named=not sync)
        packed = replace_keys(keys, futures)
        if not sync:
            return packed
        return self.gather(packed, asynchronous=asynchronous, direct=direct)

    def compute(
        self,
        collections: Any,
        sync: bool = False,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: Any = False,
        resources: Any = None,
        retries: Any = 0,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        traverse: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Start to compute dask collections; a future of each, or with ``sync`` the results.

        One collection gives one future, several give a list. What is no collection is passed through; lists and dicts are
        looked into if ``traverse``.
        """
        _refuse_unknown(kwargs)
        single = not isinstance(collections, (list, tuple, set, frozenset))
        items = [collections] if single else list(collections)
        if traverse:
            items = [
                item if is_dask_collection(item) or not isinstance(item, (list, tuple, set, frozenset, dict)) else _delayed(item)
                for item in items
            ]
        terms = self._graph_terms(workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors)

        def schedule(expr: Any, keys: Any, **_: Any) -> list[Future]:
            names = flat_keys(keys)
            futures = self._submit_graph(expr, names, terms, named=not sync)
            return [futures[name] for name in names]

        found = [item for item in items if is_dask_collection(item)]
        results = iter(dask.compute(*found, scheduler=schedule, optimize_graph=optimize_graph, traverse=False) if found else ())
        futures = [next(results) if is_dask_collection(item) else item for item in items]
        result: Any = futures[0] if single else futures
        return self.gather(result) if sync else result

    def persist(
        self,
        collections: Any,
        optimize_graph: bool = True,
        workers: Any = None,
        allow_other_workers: Any = None,
        resources: Any = None,
        retries: Any = None,
        priority: float = 0,
        fifo_timeout: Any = "60s",
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Start to compute dask collections and keep the parts on the cluster: collections of the same types.

        Only collections are accepted (AssertionError). One gives one, several give a list.
        """
        _refuse_unknown(kwargs)
        single = not isinstance(collections, (list, tuple, set, frozenset))
        items = [collections] if single else list(collections)
        assert all([is_dask_collection(item) for item in items]), "persist takes dask collections only"
        terms = self._graph_terms(workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors)

        def schedule(expr: Any, keys: Any, **_: Any) -> list[Future]:
            names = flat_keys(keys)
            futures = self._submit_graph(expr, names, terms)
            return [futures[name] for name in names]

        if not items:
            return []
        results = dask.persist(*items, scheduler=schedule, optimize_graph=optimize_graph, traverse=False)
        return results[0] if single else list(results)

    def normalize_collection(self, collection: Any) -> Any:
        """The same collection; tasks that this client knows already are not computed again in any case."""
        return collection

    # ------------------------------------------------------------------------------------------ sending

    def _graph_terms(
        self, workers: Any, allow_other_workers: Any, resources: Any, retries: Any, priority: Any, fifo_timeout: Any, actors: Any
    ) -> Terms:
        self.session.check_open()
        options = make_options(
            workers=workers, allow_other_workers=allow_other_workers, resources=resources, retries=retries, actor=bool(actors)
        )
        return Terms(options, number("priority", priority), seconds("fifo_timeout", fifo_timeout), self._parent())

    def _is_known(self, key: Key) -> bool:
        state = self.session.ledger.states.get(key)
        return state is not None and state.status is not CANCELLED and state.status is not LOST

    def _future_for(self, key: Key, found: dict[Key, Future]) -> Future | None:
        """A future of this client for a key that is computed already, or by somebody else; None for one that is not known."""
        future = self._future_of_known(key)
        if future is None and key in found:
            future = Future(key, self, self._own_state_kept(found[key]))
        return future

    def _digest_of(self, key: Key, found: Mapping[Key, Future]) -> bytes:
        state = self.session.ledger.states.get(key)
        if state is None:
            return found[key].digest if key in found else b""
        return state.digest

    def _submit_graph(
        self, dsk: Any, keys: Sequence[Key], terms: Terms, *, eager: bool = False, named: bool = True
    ) -> dict[Key, Future]:
        """Send what ``keys`` need; a future of each. Nothing is sent when the graph makes no sense.

        ``eager``: see ``SubmitTasks``. ``named``: see ``build_table``. Warns, or raises RedefinedKeyError, for a key that stands for
        another task.
        """
        wanted = dict.fromkeys(keys)
        with self.session.lock:
            self.session.settle_releases()
        while True:
            found: dict[Key, Future] = {}
            with interpreter.garbage_paused():
                table = build_table(dsk, keys, Outside(self._is_known, found, partial(self._digest_of, found=found)), named=named)
            # Holds what the graph depends on until all of it is sent.
            external = {key: future for key in table.external if (future := self._future_for(key, found)) is not None}
            if len(external) == len(table.external):
                break
            # A key that was known lost its last future meanwhile, in another thread or by garbage collection: look again.
        redefined = [key for key, digest in table.redefined.items() if differ(external[key].digest, digest)]
        if redefined:
            tell_redefined(redefined)
        sending = _Sending(self, table, terms, wanted, eager)
        cancelled = [key for key, future in external.items() if not future.state.id]
        if cancelled:
            return {key: external.get(key) or Future(key, self, dead_state(key, "lost dependencies")) for key in wanted}
        sending.external = {key: future.state for key, future in external.items()}
        return sending.send(external)


class _Sending:
    """One graph on its way."""

    def __init__(self, client: CollectionMethods, table: Table, terms: Terms, wanted: dict[Key, None], eager: bool) -> None:
        self.client = client
        self.table = table
        self.terms = terms
        self.wanted = wanted
        self.eager = eager
        #: Nodes whose results are to be kept.
        self.kept = {table.stands_for.get(key, key) for key in wanted}
        self.submission = client._next_submission()
        self.external: dict[Key, KeyState] = {}
        self.ids: dict[Key, int] = {}
        self.payload_bytes = 0
        #: Of all nodes; None as long as one chunk may do.
        self.dependents: dict[Key, int] | None = None
        self.asked = _asked(terms)
        self.encoding = Encoding(client._functions, client.session.lock, table.nodes.values(), table.names)
        #: Ids of functions that had to make room; rows before the end may name them.
        self.forgotten: list[int] = []

    def send(self, external: dict[Key, Future]) -> dict[Key, Future]:
        """Number the rows, pickle and send them a chunk at a time. A future of each wanted key."""
        client = self.client
        session = client.session
        nodes = self.table.nodes
        with session.lock:
            self.ids = dict(zip(nodes, session.ledger.new_ids(len(nodes)), strict=True))
        keys = list(nodes)
        futures: dict[Key, Future] = {}
        failure: TypeError | None = None
        try:
            start = 0
            while start < len(keys):
                with interpreter.garbage_paused():
                    columns, failure = self.columns(keys[start : start + CHUNK_ROWS], failure)
                chunk = keys[start : start + len(columns)]
                futures.update(self.append(columns, chunk, self.later(keys, chunk, start), start))
                start += len(chunk)
                session.wake_up()
                client._throttle()
        finally:
            with session.lock:
                self.forgotten += client._functions.forget_own(self.encoding.own)
                gone = ForgetFunctions(sorted(self.forgotten))
                if self.forgotten and session.renew_ids(gone):
                    session.outgoing.add(gone)
        if failure is not None:
            # With the futures all that was begun is given up. The exception must not keep them, nor itself, through this frame.
            futures.clear()
            external.clear()
            try:
                raise failure
            finally:
                del failure
        warn_if_large(self.payload_bytes, "graph")
        stands_for = self.table.stands_for
        return {key: external[key] if key in external else futures[stands_for.get(key, key)] for key in self.wanted}

    def later(self, keys: Sequence[Key], chunk: Sequence[Key], start: int) -> dict[Key, int]:
        """How many dependents of the chunk's rows, which begin at ``start``, follow in later ones."""
        if start + len(chunk) == len(keys):
            return {}
        if self.dependents is None:
            self.dependents = count_dependents(self.table.nodes, keys)
        here = count_dependents(self.table.nodes, chunk)
        later = {}
        for key in chunk:
            count = self.dependents.get(key, 0) - here.get(key, 0)
            if count:
                later[key] = count
        return later

    def columns(self, chunk: Sequence[Key], failure: TypeError | None) -> tuple[Columns, TypeError | None]:
        """The rows of a chunk, or the first of them if they are large.

        After a failure rows without payloads, which nobody wants: their only purpose is that the scheduler does not keep earlier
        rows for them.
        """
        columns = Columns()
        nodes = self.table.nodes
        annotations = self.table.annotations
        names, digests = self.table.names, self.table.digests
        ids, kept = self.ids, self.kept
        for key in chunk:
            node = nodes[key]
            row: Row | None = None
            if failure is None:
                try:
                    row = self.row(node)
                    if annotations and key in annotations:
                        options = row_options(self.asked, annotations[key])
                        if options is not None:
                            columns.options.append((len(columns), options))
                except (TypeError, ValueError) as error:
                    failure = TypeError(f"task {key!r} cannot be sent to the cluster: {error}")
                    failure.__cause__ = error
                    row = None
                    # Not even the rows of this chunk that could be pickled are of use any more.
                    columns.wanted = []
            function, payload, buffers, needed = (None, b"", [], node.dependencies) if row is None else row
            dependencies = [ids[dependency] if dependency in ids else self.id_of(dependency) for dependency in needed]
            number = 0 if function is None else function.id
            wanted = failure is None and key in kept
            name = names.get(key, key) if names else key
            digest = digests.get(key, b"") if digests else b""
            columns.add(ids[key], name, number, payload, buffers, dependencies, wanted=wanted, digest=digest)
            if columns.nbytes > _CHUNK_BYTES:
                break
        return columns, failure

    def row(self, node: Any) -> Row:
        """Its function is known to the scheduler, or will be before the row is."""
        row = self.encoding.row(node)
        if row.function is not None and not row.function.id:
            with self.client.session.lock:
                self.forgotten += self.client._define_now(row.function)
        return row

    def id_of(self, key: Key) -> int:
        id = self.ids.get(key)
        return self.client.session.ledger.own_id(self.external[key]) if id is None else id

    def append(self, columns: Columns, chunk: Sequence[Key], later: dict[Key, int], start: int) -> dict[Key, Future]:
        """To what is to be sent. The futures of the wanted rows."""
        client = self.client
        session = client.session
        self.payload_bytes += columns.nbytes
        message = self.terms.apply(columns.message(self.submission))
        message.first_rank = start
        message.eager = self.eager
        if later and any([key in later for key in chunk]):
            message.later_dependents = [later.get(key, 0) for key in chunk]
        futures: dict[Key, Future] = {}
        names, digests = self.table.names, self.table.digests
        keys = [chunk[id - columns.ids[0]] for id in columns.wanted]
        with session.lock:
            if not session.renew_ids(message):
                return {key: Future(names.get(key, key), client, dead_state(names.get(key, key), LOST_IN_RESTART)) for key in keys}
            wanted: list[int] = []
            for key, id in zip(keys, message.ids if message.wanted is None else message.wanted, strict=True):
                name = names.get(key, key)
                state = session.ledger.states.get(name)
                if state is None:
                    state = session.ledger.add(name, id)
                    state.digest = digests.get(key, b"")
                    wanted.append(id)
                else:
                    # Another thread was faster, and wants it under its own id. Nobody would ever release this one.
                    state.refcount += 1
                futures[key] = Future(name, client, state)
            if len(wanted) < len(keys):
                message.wanted = wanted
            session.outgoing.add(message, columns.beside, columns.nbytes + 64 * len(columns))
        return futures


def _asked(terms: Terms) -> dict[str, Any]:
    """The options of the call, for rows that have annotations beside."""
    options = terms.options
    if options is None:
        return {}
    asked = {
        "workers": options.workers,
        "allow_other_workers": options.allow_other_workers,
        "resources": options.resources,
        "retries": options.retries,
        "executor": options.executor,
    }
    return {name: value for name, value in asked.items() if value}


def _delayed(item: Any) -> Any:
    from dask.delayed import delayed

    try:
        return delayed(item)
    except RecursionError:
        raise ValueError(
            f"compute looks for collections in a {type(item).__name__} that contains itself, or is nested too deeply: use traverse=False"
        ) from None


def _refuse_unknown(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise NotImplementedError(f"this option is not available: {', '.join(kwargs)}")
