"""``Client``: what a user connects, computes and closes with. A facade; the work is in the modules it is made of."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager
from html import escape
from types import TracebackType
from typing import Any

from dask.utils import format_bytes

from treadle import config
from treadle.client import current
from treadle.client.as_completed import as_completed
from treadle.client.base import optional_seconds
from treadle.client.cluster.control import ClusterMethods
from treadle.client.cluster.introspection import IntrospectionMethods
from treadle.client.cluster.proxy import SchedulerProxy
from treadle.client.data.datasets import DatasetMethods
from treadle.client.opening import loop_of, scheduler_of, security_of, versions
from treadle.client.options import text
from treadle.client.rows.functions import Functions
from treadle.client.session.ledger import KeyState, Waiter
from treadle.client.session.peers import PeerPool
from treadle.client.session.stream import Session
from treadle.client.submitting.computing import CollectionMethods
from treadle.client.submitting.executor import ClientExecutor
from treadle.client.submitting.redefined import hear_redefined
from treadle.client.waiting import futures_of
from treadle.comm.addressing import normalize_address
from treadle.comm.security import find_secret
from treadle.context import current_client
from treadle.messages.client_scheduler import CancelKeys, RetryKeys
from treadle.plugins.registry import factory
from treadle.unused_settings import begin
from treadle.utils.keys import Key
from treadle.utils.loop import LoopRunner
from treadle.utils.scheduler_file import wait_for_scheduler_file


class Client(CollectionMethods, ClusterMethods, DatasetMethods, IntrospectionMethods):
    """A connection to a cluster: it computes calls, graphs and dask collections there.

    ``address``: of a scheduler, or a cluster object; without one (and without ``scheduler_file`` or the config key
    ``scheduler-address``) a ``LocalCluster(**kwargs)`` is started, and closed with the client. The cluster's secret is found as
    ``treadle.comm.security.find_secret`` says, or is given by ``security`` (a ``Security`` or a dict of its arguments).

    Synchronous: usable when the constructor returns, ``with`` closes it. ``asynchronous=True``: ``await`` it or use
    ``async with``, and await what would block. While it is open and ``set_as_default``, dask computes with it.
    Raises OSError naming address and timeout when the scheduler cannot be reached, AuthenticationError, VersionError.
    """

    as_completed = staticmethod(as_completed)

    def __init__(
        self,
        address: Any = None,
        loop: Any = None,
        timeout: Any = "default",
        set_as_default: bool = True,
        scheduler_file: str | os.PathLike[str] | None = None,
        security: Any = None,
        asynchronous: bool = False,
        name: str | None = None,
        heartbeat_interval: Any = None,
        serializers: Any = None,
        deserializers: Any = None,
        extensions: Any = None,
        direct_to_workers: Any = None,
        connection_limit: int = 512,
        **kwargs: Any,
    ) -> None:
        self._session: Session | None = None
        self._pool: PeerPool | None = None
        self.status = "newly-created"
        if serializers or deserializers or extensions:
            raise NotImplementedError("serializers, deserializers and extensions are not available: leave them out")
        if timeout is None:
            raise ValueError("timeout=None has no meaning here: give a number of seconds, or leave it out")
        self._timeout_s = config.comm_settings().connect_timeout_s if timeout == "default" else config.seconds(timeout)
        begin("a client")
        settings = config.client_settings()
        self._heartbeat_s = config.seconds(heartbeat_interval) if heartbeat_interval else settings.heartbeat_s
        self._reconnect_grace_s = settings.reconnect_grace_s
        self._connection_limit = int(connection_limit)
        self._set_as_default = set_as_default
        self._asynchronous = asynchronous
        self.cluster: Any = None
        self._own_cluster = False
        self._cluster_kwargs: dict[str, Any] = {}
        self._address = ""
        #: Data always travels straight between client and workers.
        self.direct_to_workers = True
        name = name or config.get("client-name")
        self.id = f"Client-{f'{name}-' if name else ''}{uuid.uuid1()}"
        self._functions = Functions()
        self._last_function = (None, None)
        self._submissions = 0
        self._near: dict[str, str] = {}
        self._entered: list[AbstractContextManager[Any]] = []
        self._starting: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self.scheduler_file = scheduler_file
        self.security = security_of(security)
        self._choose_scheduler(address, kwargs)
        loop = loop if loop is not None or asynchronous else loop_of(self.cluster)
        self._runner = LoopRunner(asynchronous=asynchronous, loop=loop)
        if not asynchronous:
            self.start()
        elif self._runner.started and self._runner.in_loop_thread:
            self._begin()

    def _choose_scheduler(self, address: Any, kwargs: dict[str, Any]) -> None:
        """Where to connect to: sets ``cluster`` or ``_address`` or neither (a local cluster, or the scheduler file)."""
        if address is None and self.scheduler_file is None:
            address = config.get("scheduler-address")
        if address is None and self.scheduler_file is None:
            self._own_cluster = True
            self._cluster_kwargs = kwargs
            return
        if kwargs:
            raise ValueError(f"Unexpected keyword arguments: {sorted(kwargs)}")
        if address is None:
            return
        self._address, self.cluster = scheduler_of(address)
        if self.security is None and self.cluster is not None:
            self.security = getattr(address, "security", None)

    # ------------------------------------------------------------------------------------------ start and close

    def start(self, **kwargs: Any) -> Any:
        """Connect, if that did not happen yet."""
        if self._asynchronous:
            return self._started()
        if self.status in ("newly-created", "closed") and self._session is None:
            self._runner.start()
            try:
                if self._own_cluster:
                    self.cluster = self._make_cluster()
                self._runner.sync(self._start)
            except BaseException:
                self._abandon()
                raise
            if self._set_as_default:
                current.made_here(self)
        return None

    def _make_cluster(self) -> Any:
        kwargs = dict(self._cluster_kwargs)
        if self.security is not None:
            kwargs.setdefault("security", self.security)
        if self._asynchronous:
            kwargs["asynchronous"] = True
        cluster = factory("local-cluster")(**kwargs)
        if self.security is None:
            self.security = getattr(cluster, "security", None)
        return cluster

    def _abandon(self) -> None:
        """The start failed: leave nothing behind."""
        self.status = "closed"
        current.pop_default(self)
        if self._own_cluster and self.cluster is not None:
            self.cluster.close()
        self._runner.stop()

    def _begin(self) -> asyncio.Future[None]:
        """The start of an asynchronous client, which happens once."""
        if self._starting is None:
            self._runner.start()
            if self.cluster is None and not self._own_cluster and self.scheduler_file is None:
                self._open_session()
            self._starting = asyncio.ensure_future(self._start())
            # Whoever awaits it sees the error; if nobody does, the futures tell.
            self._starting.add_done_callback(lambda started: started.cancelled() or started.exception())
        return self._starting

    async def _started(self) -> Client:
        await asyncio.shield(self._begin())
        return self

    def is_near(self, address: str, near_address: str) -> None:
        """The worker with that address is in this process, where it is reached at the other one."""
        self._near[address] = near_address

    def _open_session(self) -> Session:
        """The stream, not yet connected: calls may be made, they are sent later."""
        if self._session is None:
            loop, id = self._runner.loop, secrets.token_bytes(16)
            grace_s = self._reconnect_grace_s
            self._session = Session(
                loop,
                session=id,
                functions=self._functions,
                on_status=self._on_status,
                on_redefined=hear_redefined,
                reconnect_grace_s=grace_s,
            )
            self._pool = PeerPool(loop, session=id, limit=self._connection_limit)
            self._pool.near = self._near
        return self._session

    async def _start(self) -> None:
        self.status = "connecting"
        file_secret: str | None = None
        session = self._session
        try:
            if self._own_cluster:
                if self.cluster is None:
                    self.cluster = self._make_cluster()
                if self._asynchronous:
                    await self.cluster
            elif self.cluster is not None and getattr(self.cluster, "asynchronous", False) and hasattr(self.cluster, "__await__"):
                await self.cluster
            if self.cluster is not None:
                self._address = self.cluster.scheduler_address
            elif not self._address and self.scheduler_file is not None:
                content = await wait_for_scheduler_file(self.scheduler_file, self._timeout_s)
                self._address, file_secret = content.address, content.secret
            session = self._open_session()
            secret = find_secret(self.security, config.secret_settings(), file_secret)
            self.pool.secret = secret.value
            await session.connect(
                normalize_address(self._address),
                secret=secret.value,
                timeout_s=self._timeout_s,
                id=self.id,
                versions=versions(),
                heartbeat_s=self._heartbeat_s,
            )
        except BaseException:
            self.status = "closed"
            if session is not None:
                await session.close(fast=True)
            raise
        self.status = "running"
        current.open_clients.add(self)
        if self._set_as_default:
            current.push_default(self)

    def _on_status(self, status: str) -> None:
        """The stream ended, whoever ended it, for a while or for good; or there is another one."""
        if self.status in ("running", "connecting"):
            self.status = status
            if status == "closed":
                current.pop_default(self)

    def close(self, timeout: Any = None) -> Any:
        """Release everything and disconnect; a cluster that the client started is closed too. Idempotent."""
        timeout_s = optional_seconds(timeout) or 2 * self._timeout_s
        if self._asynchronous or self._runner.in_loop_thread:
            return self._close(timeout_s)
        if not self._runner.started:
            return None
        try:
            self._runner.sync(self._close, timeout_s)
            if self._own_cluster and self.cluster is not None:
                self.cluster.close(timeout=timeout_s)
        finally:
            self._runner.stop()
        return None

    async def _close(self, timeout_s: float = 10.0, fast: bool = False) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_once(timeout_s, fast))
        await asyncio.shield(self._closing)

    async def _close_once(self, timeout_s: float, fast: bool) -> None:
        current.pop_default(self)
        current.open_clients.discard(self)
        self.status = "closing"
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._pool is not None:
            self._pool.close()
        if self._session is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._session.close(fast=fast)
            except TimeoutError:
                await self._session.close(fast=True)
        if self._own_cluster and self._asynchronous and self.cluster is not None:
            await self.cluster.close()
        self.status = "closed"

    # ------------------------------------------------------------------------------------------ contexts

    def __enter__(self) -> Client:
        if self._asynchronous:
            raise TypeError("this client is asynchronous: use 'async with'")
        self._enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
        self.close()

    async def __aenter__(self) -> Client:
        await self._started()
        self._enter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
        await self._on_own_loop(self._close(fast=kind is not None))

    def _enter(self) -> None:
        context = self.as_current()
        context.__enter__()
        self._entered.append(context)

    def _leave(self) -> None:
        try:
            self._entered.pop().__exit__(None, None, None)
        except ValueError:
            pass  # left in another context than entered; that one has ended with its task

    def __await__(self) -> Generator[Any, None, Client]:
        return self._started().__await__()

    def as_current(self) -> AbstractContextManager[Client]:
        """Inside the block, and only there and in this task or thread, this client is the current one."""
        return current.entered(self)

    @classmethod
    def current(cls, allow_global: bool = True) -> Client:
        """The client of the surrounding ``with`` block, else the newest open default one. Raises ValueError for none."""
        found = current.default_client() if allow_global else current_client.get()
        if found is None:
            raise ValueError("No clients found")
        return found  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------ what it is

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._runner.loop

    @property
    def scheduler(self) -> SchedulerProxy:
        """The scheduler, to be asked by name: ``await client.scheduler.who_has(keys=[...])``."""
        return self._scheduler_proxy(self._address)

    @property
    def scheduler_address(self) -> str:
        """Of the scheduler that it is, or was, connected to."""
        return self._address

    @property
    def futures(self) -> dict[Key, KeyState]:
        """What is known of each key that some future refers to."""
        return {} if self._session is None else dict(self._session.ledger.states)

    @property
    def refcount(self) -> dict[Key, int]:
        """How many futures refer to each key."""
        return {key: state.refcount for key, state in self.futures.items()}

    @property
    def dashboard_link(self) -> str | None:
        """Where the dashboard is: None, there is none yet."""
        return None

    def __repr__(self) -> str:
        if self._session is None or self.status != "running":
            return f"<{type(self).__name__}: {self.status}{f', {self._address!r}' if self._address else ''}>"
        info = self._cached_info()
        if info is None:
            return f"<{type(self).__name__}: {self._address!r}>"
        memory = info.get("total_memory")
        shown = f", memory={format_bytes(memory)}" if memory else ""
        return f"<{type(self).__name__}: {self._address!r} processes={info['n_workers']} threads={info['total_threads']}{shown}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def __reduce__(self) -> Any:
        raise TypeError("a Client cannot be pickled; inside a task use get_client()")

    # ------------------------------------------------------------------------------------------ cancel and retry

    def cancel(
        self, futures: Any, asynchronous: bool | None = None, force: bool = False, reason: str | None = None, msg: str | None = None
    ) -> Any:
        """Cancel futures or the tasks of collections: their tasks are forgotten unless other clients want them, or at once
        with ``force``. What waits for them gets FutureCancelledError with ``reason`` and ``msg``."""
        for name, words in (("reason", reason), ("msg", msg)):
            if words is not None and not isinstance(words, str):
                raise TypeError(f"cancel: {name} must be a text, got {type(words).__name__}")
            text(name, words or "")
        if force is not True and force is not False:
            raise TypeError(f"cancel: force must be True or False, got {type(force).__name__}")
        session = self.session
        session.check_open()
        states = [future.state for future in futures_of(futures)]
        wake: list[Waiter] = []
        with session.lock:
            ids = session.ledger.cancel(states, reason or "unknown", msg, wake)
            if ids:
                session.outgoing.add(CancelKeys(ids, force, reason, msg))
        session.wake_up(wake)
        return self.sync(_nothing, asynchronous=asynchronous) if self._is_async(asynchronous) else None

    def retry(self, futures: Any, asynchronous: bool | None = None) -> Any:
        """Run erred tasks again, and the erred tasks that they depend on. The futures are pending at once."""
        session = self.session
        session.check_open()
        with session.lock:
            ids = session.ledger.retry([future.state for future in futures_of(futures)])
            if ids:
                session.outgoing.add(RetryKeys(ids))
        session.wake_up()
        return self.sync(_nothing, asynchronous=asynchronous) if self._is_async(asynchronous) else None

    def _is_async(self, asynchronous: bool | None) -> bool:
        return self.asynchronous if asynchronous is None else asynchronous

    def get_executor(self, **kwargs: Any) -> ClientExecutor:
        """A ``concurrent.futures.Executor`` that submits here. Options: pure, workers, resources, allow_other_workers, retries."""
        return ClientExecutor(self, **kwargs)


async def _nothing() -> None:
    """What an asynchronous caller awaits where nothing has to be waited for."""


def _close_all() -> None:
    """When the interpreter ends: say goodbye, so that the scheduler need not find out."""
    for client in list(current.open_clients):
        if not client._asynchronous:
            try:
                client.close(timeout=2)
            except Exception:
                pass


def _forget_after_fork(client: Client) -> None:
    """In the child: its loop and its connection are the parent's."""
    client.status = "closed"
    if client._session is not None:
        client._session.forget_after_fork()


current.at_fork(_forget_after_fork)
atexit.register(_close_all)
