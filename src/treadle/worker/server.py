"""The worker's shell: it hands what arrives to the core and carries out what the core decides. It owns no task state."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import sys
import uuid
import weakref
from collections.abc import Awaitable, Callable, Generator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any, ClassVar, Final

import cloudpickle
import dask
import dask.system
import msgspec
import psutil

from treadle import config
from treadle.comm.addressing import address_from_user_args, get_address_host, local_host, parse_address, resolve_address
from treadle.comm.interface import Introduction, Listener, Role
from treadle.comm.reconnect import Refused, come_back
from treadle.comm.registry import listen
from treadle.comm.security import Security, find_secret
from treadle.context import current_task, current_worker
from treadle.exceptions import AuthenticationError, PeerProtocolError, VersionError
from treadle.messages.base import Message, WorkerIdentity
from treadle.messages.local import ExecutionsStarted
from treadle.messages.worker_scheduler import (
    CloseWorker,
    ExplainTask,
    Inventory,
    LearnFunctions,
    LeaveGracefully,
    LeaveWorker,
    RegisterWorker,
    TaskExplained,
    UnlearnFunctions,
    WorkerHeartbeat,
    WorkerRan,
    WorkerRefused,
    WorkerRun,
)
from treadle.plugins.registry import factory
from treadle.serialize.errors import dump_error
from treadle.serialize.run import run_function
from treadle.utils.background import Background
from treadle.utils.execution_record import record_of_process
from treadle.utils.scheduler_file import wait_for_scheduler_file
from treadle.utils.status import Status
from treadle.utils.worker_resources import parse_memory_limit
from treadle.version import __version__
from treadle.worker import options as worker_options
from treadle.worker.calling import FunctionTable
from treadle.worker.data.store import Store, make_mapping
from treadle.worker.execution import Exited, ThreadPool
from treadle.worker.explaining import explain
from treadle.worker.named_executors import NamedExecutors
from treadle.worker.performer import Performer
from treadle.worker.serving import DataServer
from treadle.worker.stream import SchedulerStream, connect_to_scheduler
from treadle.worker.transfer import Fetcher
from treadle.worker.transitions.machine import WorkerTransitions
from treadle.worker.transitions.state import CoreStatistics
from treadle.worker.unpacking import unpack_for

logger = logging.getLogger(__name__)

#: How many seconds tasks that still execute may take when the worker closes; nobody wants their results.
EXECUTOR_GRACE_S: Final = 2.0


@dataclass(frozen=True)
class WorkerStatistics:
    core: CoreStatistics
    executing: int
    queued: int
    answers_under_way: int


class Worker:
    """Executes tasks for a scheduler. ``await Worker(address)`` or ``async with Worker(address)`` starts it; ``close`` ends it.

    ``scheduler_ip`` is the scheduler's address (or its host, with ``scheduler_port``); without it, ``scheduler_file`` or the config
    key scheduler-address names the scheduler. ``memory_limit``: see ``parse_memory_limit``. ``data``: see ``make_mapping``.
    ``executor``: see ``treadle.worker.options.named_executors``. ``port``: a number, a range or ``"8000:8010"``. ``death_timeout``: how
    long to wait for the scheduler before TimeoutError; None: for ever. ``nanny``: the id of the nanny that watches this process.
    Raises ValueError for a name that is in use, AuthenticationError, OSError when it cannot listen.
    """

    _instances: ClassVar[weakref.WeakSet[Worker]] = weakref.WeakSet()

    def __init__(
        self,
        scheduler_ip: Any = None,
        scheduler_port: int | None = None,
        *,
        scheduler_file: str | os.PathLike[str] | None = None,
        nthreads: int | None = None,
        name: Any = None,
        resources: dict[str, float] | None = None,
        memory_limit: Any = "auto",
        data: Any = None,
        executor: Any = None,
        death_timeout: Any = None,
        security: Security | dict[str, Any] | None = None,
        host: str | None = None,
        port: Any = 0,
        interface: str | None = None,
        protocol: str | None = None,
        contact_address: str | None = None,
        local_directory: str | os.PathLike[str] | None = None,
        heartbeat_interval: Any = None,
        validate: bool | None = None,
        silence_logs: int | str | None = None,
        nanny: str | None = None,
        loop: Any = None,
        **kwargs: Any,
    ) -> None:
        worker_options.check_options(kwargs)
        settings = self._settings = config.worker_settings()
        self._scheduler_address = None if scheduler_file is not None else worker_options.scheduler_address(scheduler_ip, scheduler_port)
        if self._scheduler_address is None and scheduler_file is None:
            raise ValueError("a worker needs the address of its scheduler: Worker('tcp://127.0.0.1:8786'), or scheduler_file=...")
        self._scheduler_file = scheduler_file
        self.nthreads = dask.system.CPU_COUNT if nthreads is None else int(nthreads)
        if self.nthreads < 1:
            raise ValueError(f"nthreads must be at least 1, got {nthreads}")
        self.memory_limit = parse_memory_limit(memory_limit, self.nthreads, dask.system.CPU_COUNT)
        self._given_name = name
        self.resources = worker_options.check_resources(settings.resources if resources is None else resources)
        self._data_option = data
        self._offload = ThreadPoolExecutor(1, thread_name_prefix="treadle-offload")
        self._named = worker_options.named_executors(executor, self._offload)
        self._death_timeout_s = None if death_timeout is None else config.seconds(death_timeout)
        self.security = Security(**security) if isinstance(security, dict) else security
        self._reconnect_grace_s = settings.reconnect_grace_s if self._death_timeout_s is None else self._death_timeout_s
        self._listen_arguments = (host, port, interface, protocol)
        self._ports = list(worker_options.ports(port))
        self._contact_address = contact_address
        self._base_directory = local_directory
        self._heartbeat_s = settings.heartbeat_s if heartbeat_interval is None else config.seconds(heartbeat_interval)
        self._validate = settings.validate if validate is None else bool(validate)
        if silence_logs:
            logging.getLogger("treadle").setLevel(silence_logs)
        self.nanny = nanny
        self._wanted_loop = loop

        self.id = f"Worker-{uuid.uuid4()}"
        self.status = Status.created
        #: Whether the nanny is to start another worker when this one has ended.
        self.restart_requested = False
        #: Why the worker has ended, if not in good order.
        self.failure: str | None = None
        self.local_directory = ""
        self._address: str | None = None
        self._session = secrets.token_bytes(16)
        self._secret = b""
        self._functions = FunctionTable()
        self._background = Background("worker", lambda name, error: self._broken(error))
        self._at_close: list[Callable[[], Awaitable[object]]] = []
        self._process = psutil.Process()
        self._listener: Listener | None = None
        #: For the clients of its own tasks, for which nothing need be pickled.
        self._near_listener: Listener | None = None
        self._stream: SchedulerStream | None = None
        self._finished: asyncio.Event | None = None
        # These are set at the start, when host and loop are known.
        self.loop: asyncio.AbstractEventLoop
        self._store: Store
        self._core: WorkerTransitions
        self._pool: ThreadPool
        self._performer: Performer
        self._fetcher: Fetcher
        self._server: DataServer
        Worker._instances.add(self)

    # ------------------------------------------------------------------------------------- what it knows

    @property
    def near_address(self) -> str:
        """Where the worker serves data to the clients of its own tasks, without pickling it. Raises ValueError before it is started."""
        if self._near_listener is None:
            raise ValueError("the worker has no address before it is started: await it")
        return self._near_listener.contact_address

    @property
    def address(self) -> str:
        """Where the worker serves data. Raises ValueError before it is started."""
        if self._address is None:
            raise ValueError("the worker has no address before it is started: await it")
        return self._address

    @property
    def worker_address(self) -> str:
        return self.address

    @property
    def scheduler_address(self) -> str:
        if self._scheduler_address is None:
            raise ValueError("the worker does not know its scheduler before it is started: await it")
        return self._scheduler_address

    @property
    def name(self) -> Any:
        return self._address if self._given_name is None else self._given_name

    @property
    def data(self) -> MutableMapping[Any, Any]:
        """The values that the worker keeps, by key. Read only: do not change it."""
        return self._store.mapping

    @property
    def executors(self) -> dict[str, Any]:
        """The executors of tasks, by name; ``"default"`` executes tasks that name none."""
        return {"default": self._pool, **self._named}

    def get_current_task(self) -> Any:
        """The key of the task that calls this. Raises ValueError outside of a task."""
        task = current_task.get()
        if task is None:
            raise ValueError("get_current_task() works only inside of tasks")
        return task.key

    def statistics(self) -> WorkerStatistics:
        return WorkerStatistics(
            core=self._core.statistics(),
            executing=len(self._performer.running()),
            queued=self._performer.queued,
            answers_under_way=self._server.under_way,
        )

    def story(self, *ids: int) -> list[tuple[float, int, str, str]]:
        """(when, id, start, finish) of the last transitions of these tasks, or of all tasks."""
        return self._core.story(list(ids))

    def __repr__(self) -> str:
        where = self._address or "not started"
        return f"<Worker {where!r}, name: {self.name}, status: {self.status.name}, threads: {self.nthreads}>"

    # -------------------------------------------------------------------------------------------- its life

    def __await__(self) -> Generator[Any, None, Worker]:
        return self.start().__await__()

    async def __aenter__(self) -> Worker:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> Worker:
        """Listen, connect to the scheduler, register. Idempotent. Raises the reason why it cannot run, with nothing left behind."""
        if self.status is not Status.created:
            return self
        self.status = Status.starting
        loop = self.loop = asyncio.get_running_loop()
        wanted = getattr(self._wanted_loop, "asyncio_loop", self._wanted_loop)
        try:
            if wanted is not None and wanted is not loop:
                raise RuntimeError("loop= is not the loop that the worker is started on; leave it out")
            self._finished = asyncio.Event()
            secret = self._secret = await self._find_scheduler()
            self.local_directory = worker_options.scratch_directory(self._base_directory)
            self._store = Store(make_mapping(self._data_option, self.local_directory))
            await self._listen(secret)
            self._make_parts(secret)
            await self._register(secret)
            if self.status is not Status.starting:
                raise OSError(f"the scheduler {self.scheduler_address} was lost as soon as the worker had registered")
        except BaseException:
            self.status = Status.failed
            await self._release(0.0)
            raise
        self.status = Status.running
        factory("worker-opened")(self)
        self._beat()
        logger.info("Worker %s started at %s, %s threads, scheduler %s", self.name, self.address, self.nthreads, self.scheduler_address)
        return self

    async def _find_scheduler(self) -> bytes:
        """Sets the scheduler's address and returns the secret. Raises TimeoutError, AuthenticationError."""
        file_secret = None
        if self._scheduler_file is not None:
            timeout_s = self._death_timeout_s
            content = await wait_for_scheduler_file(self._scheduler_file, float("inf") if timeout_s is None else timeout_s)
            self._scheduler_address, file_secret = content.address, content.secret
        secret = find_secret(self.security, config.secret_settings(), file_secret)
        # For the clients of this worker's tasks.
        self.security = Security(secret=secret.value)
        return secret.value

    async def _listen(self, secret: bytes) -> None:
        host, _, interface, protocol = self._listen_arguments
        scheme = parse_address(self.scheduler_address)[0]
        if host is None and interface is None and scheme != "inproc" and (protocol or scheme) != "inproc":
            # Others can reach this worker at the address at which the scheduler can.
            resolved = await self.loop.run_in_executor(self._offload, resolve_address, self.scheduler_address)
            host = local_host(get_address_host(resolved))
        failure: OSError | None = None
        for port in self._ports:
            address = address_from_user_args(host, port, interface, protocol or (None if host and "://" in host else scheme))
            try:
                self._listener = await listen(address, self._accept, session=self._session, secret=secret)
                break
            except OSError as error:
                failure = error
        if self._listener is None:
            assert failure is not None
            raise failure
        self._address = self._listener.contact_address
        self._near_listener = await listen("inproc://", partial(self._accept, is_own=True), session=self._session, secret=secret)
        if self._contact_address:
            scheme = parse_address(self._address)[0]
            self._address = self._contact_address if "://" in self._contact_address else f"{scheme}://{self._contact_address}"

    def _accept(self, comm: Any, *, is_own: bool = False) -> None:
        if self.status not in (Status.running, Status.starting, Status.paused, Status.closing_gracefully) or not hasattr(self, "_server"):
            comm.abort()
            return
        self._server.accept(comm, is_own=is_own)

    def _make_parts(self, secret: bytes) -> None:
        settings = self._settings
        host = get_address_host(self.address)
        length = settings.max_error_length
        self._core = WorkerTransitions(
            host,
            self.resources,
            settings.connections_outgoing,
            settings.transfer_message_bytes,
            self._validate,
            # One byte at least: 0 means no limit.
            max(1, int(self.memory_limit * settings.transfer_fraction)) if self.memory_limit and settings.transfer_fraction else 0,
        )
        performer = self._performer = Performer(
            self._core,
            self._store,
            self.loop,
            send=self._send,
            broken=self._broken,
            exited=self._exited,
            max_error_length=length,
        )
        name = f"treadle-worker-{self.name}"
        self._pool = ThreadPool(
            self.nthreads,
            self.loop,
            performer.outcomes,
            self._functions,
            self._store,
            self,
            name=name,
            max_error_length=length,
            failed=self._broken,
        )
        named = NamedExecutors(self._named, self.loop, performer.outcomes, self._functions, self._store, self, max_error_length=length)
        unpack = partial(unpack_for, self)
        self._fetcher = Fetcher(Introduction(Role.PEER, self._session), secret, self._offload, performer.deliver, unpack, length)
        self._server = DataServer(
            self._store,
            self._core.stored_key,
            performer.deliver,
            self._offload,
            unpack,
            max_incoming=settings.connections_incoming,
            max_answer_bytes=settings.transfer_message_bytes,
        )
        performer.connect(self._pool, named, self._fetcher)

    async def _register(self, secret: bytes) -> None:
        timeout_s = self._death_timeout_s
        each_s = config.comm_settings().connect_timeout_s if timeout_s is None else timeout_s
        introduction = Introduction(Role.WORKER, self._session)
        while True:
            try:
                comm = await connect_to_scheduler(self.scheduler_address, introduction, secret, each_s)
                break
            except (AuthenticationError, VersionError):
                raise
            except TimeoutError as error:
                if timeout_s is not None:
                    raise
                logger.warning("%s; trying again", error)
        self._stream = SchedulerStream(comm, self._on_messages, self._on_lost)
        await self._stream.register(self._registration(None))

    def _registration(self, inventory: Inventory | None) -> RegisterWorker:
        identity = WorkerIdentity(
            id=self.id,
            address=self.address,
            name=str(self.name),
            host=get_address_host(self.address),
            nthreads=self.nthreads,
            memory_limit=self.memory_limit,
            resources=self.resources,
            pid=os.getpid(),
            local_directory=self.local_directory,
            versions=_versions(),
            nanny=self.nanny,
        )
        return RegisterWorker(identity, inventory)

    async def close(self, timeout: Any = 30, executor_wait: bool = True, nanny: bool = True, reason: str = "worker-close") -> None:
        """Say goodbye to the scheduler and stop. The worker's values are lost. Idempotent; returns when all is closed.

        Executing tasks get a moment to end (at most ``timeout``), or none with ``executor_wait=False``.
        ``nanny=False``: the nanny is to start another worker.
        """
        if not nanny:
            self.restart_requested = True
        await self._close(config.seconds(timeout), executor_wait, LeaveWorker(reason))

    async def close_gracefully(self, restart: bool = False, reason: str = "worker-close-gracefully") -> None:
        """Take no new tasks, finish those that execute, hand the values over to other workers, then close.

        Values that no other worker can take are computed again. ``restart``: the nanny is to start another worker.
        """
        if self.status not in (Status.running, Status.paused) or self._stream is None:
            await self.close(reason=reason)
            return
        self.status = Status.closing_gracefully
        logger.info("worker %s closes as soon as other workers have its data: %s", self.name, reason)
        self._stream.send([LeaveGracefully(restart)])
        await self.finished()

    async def finished(self) -> None:
        """Wait until the worker is closed."""
        if self._finished is None:
            raise RuntimeError("the worker was not started")
        await self._finished.wait()

    async def _close(self, timeout_s: float, executor_wait: bool, farewell: LeaveWorker | None) -> None:
        if self.status in (Status.closing, Status.closed):
            if self._finished is not None:
                await self._finished.wait()
            return
        if self.status in (Status.created, Status.failed):
            self.status = Status.closed
            self._offload.shutdown(wait=False)
            return
        self.status = Status.closing
        if self._stream is not None and farewell is not None:
            self._stream.send([farewell])
        await self._release(min(timeout_s, EXECUTOR_GRACE_S) if executor_wait else 0.0)
        self.status = Status.closed
        assert self._finished is not None
        self._finished.set()

    def at_close(self, call: Callable[[], Awaitable[object]]) -> None:
        """Have ``await call()`` run when the worker closes, before its tasks are told to end. For closing what tasks share."""
        self._at_close.append(call)

    async def _run_at_close(self) -> None:
        calls, self._at_close = self._at_close, []
        for outcome in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.warning("a part of worker %s could not be closed: %r", self.name, outcome)

    async def _release(self, executor_wait_s: float) -> None:
        """Release all parts of the worker, as many as were made."""
        await self._run_at_close()
        if hasattr(self, "_performer"):
            self._performer.close()
        self._background.cancel()
        if self._near_listener is not None:
            await self._near_listener.stop()
        if self._listener is not None:
            await self._listener.stop()
        if self._stream is not None:
            await self._stream.close()
        if hasattr(self, "_server"):
            self._fetcher.close()
            self._server.close()
            await self._pool.close(executor_wait_s)
            self._store.clear()
        for executor in self._named.values():
            executor.shutdown(wait=False, cancel_futures=True)
        if self.local_directory:
            shutil.rmtree(self.local_directory, ignore_errors=True)

    def _end(self, farewell: LeaveWorker | None) -> None:
        """Close the worker without waiting for it."""
        if self.status not in (Status.closing, Status.closed, Status.failed):
            self._background.spawn("closing", self._close(30.0, True, farewell))

    # ------------------------------------------------------------------------------------------- one turn

    def _on_messages(self, messages: list[Any]) -> None:
        """Handle the messages that came from the scheduler in one turn of the loop."""
        events: list[object] = []
        for message in messages:
            kind = type(message)
            if kind is LearnFunctions:
                self._functions.learn(message.ids, message.bodies)
            elif kind is UnlearnFunctions:
                self._functions.unlearn(message.ids)
            elif kind is WorkerRun:
                self._background.spawn("running a function", self._run(message))
            elif kind is ExplainTask:
                self._send([self._explain(message)])
            elif kind is CloseWorker:
                logger.info("the scheduler closes worker %s: %s", self.name, message.reason)
                self.restart_requested = self.restart_requested or message.restart
                self._end(LeaveWorker(message.reason))
            elif kind is WorkerRefused:
                logger.error("the scheduler %s dropped worker %s, which closes: %s", self.scheduler_address, self.name, message.text)
                self.failure = message.text
                self.restart_requested = True
                self._end(None)
            else:
                events.append(message)
        self._performer.handle(events)

    def _explain(self, question: ExplainTask) -> TaskExplained:
        running, queued = self._performer.running(), self._performer.queued
        return explain(self._core.state, question.request, question.id, running, queued, self.loop.time(), time())

    def _broken(self, error: BaseException) -> None:
        """Close after a failure: the worker's state cannot be trusted. Its owner makes another worker, which begins with nothing."""
        if isinstance(error, PeerProtocolError):
            logger.error("the scheduler %s broke the protocol; worker %s closes: %s", self.scheduler_address, self.name, error)
        else:
            logger.critical("worker %s failed within and closes; another one is to take its place", self.name, exc_info=error)
        self.failure = f"{type(error).__name__}: {error}"
        self.restart_requested = True
        self._end(None)

    def _send(self, messages: Sequence[Message]) -> None:
        if self._stream is not None:
            self._stream.send(messages)

    def _exited(self, outcome: Exited) -> None:
        """A task asks the process to end. End as if the process had died, so that this task is blamed and others run elsewhere."""
        logger.error("task %r raised %r; worker %s ends", outcome.spec.key, outcome.error, self.name)
        self._performer.handle([ExecutionsStarted([outcome.spec.id])])
        if (record := record_of_process()) is not None:
            record.accuse(outcome.spec.id, outcome.spec.attempt)
        self.restart_requested = True
        self._end(None)

    async def _run(self, request: WorkerRun) -> None:
        current_worker.set(self)
        try:
            payload, error = await run_function(request, {"dask_worker": self}, self._settings.max_error_length)
        except asyncio.CancelledError:
            raise
        except BaseException as failure:  # a SystemExit would end the loop
            payload, error = b"", dump_error(failure, self._settings.max_error_length)
        if error is not None and not request.wait:
            logger.warning("a function run on worker %s failed: %s", self.name, error.exception_text)
        if request.wait and self._stream is not None:
            self._stream.answer(WorkerRan(request.request, payload, error))

    # ------------------------------------------------------------------------------------------- liveness

    def _beat(self) -> None:
        if self.status in (Status.closing, Status.closed, Status.failed) or self._stream is None:
            return
        self.loop.call_later(self._heartbeat_s, self._beat)
        try:
            metrics = self._metrics()
        except Exception as error:  # the system gives no figures, but the worker is alive
            logger.warning("worker %s cannot measure itself: %r", self.name, error)
            metrics = {}
        self._stream.send([WorkerHeartbeat(metrics)])

    def _metrics(self) -> dict[str, Any]:
        states = self._core.statistics().states
        return {
            "memory": self._process.memory_info().rss,
            "cpu": self._process.cpu_percent(),
            "executing": len(self._performer.running()),
            "ready": self._performer.queued,
            "in_memory": states.get("memory", 0),
        }

    def _on_lost(self, error: Exception | None) -> None:
        reason = error or "it closed the connection"
        if isinstance(error, PeerProtocolError):
            self._broken(error)
        elif self.status is Status.starting or self._reconnect_grace_s <= 0:
            logger.warning("worker %s lost its scheduler %s (%s) and closes", self.name, self.scheduler_address, reason)
            self._end(None)
        elif self.status not in (Status.closing, Status.closed, Status.failed):
            logger.warning(
                "worker %s lost its scheduler %s (%s); it tries to come back for %g s",
                self.name,
                self.scheduler_address,
                reason,
                self._reconnect_grace_s,
            )
            self._background.spawn("coming back", self._come_back())

    async def _come_back(self) -> None:
        """Reconnect while tasks go on. Then the scheduler, or the one that has taken its place, gets this worker's inventory."""
        why = await come_back(self._register_again, grace_s=self._reconnect_grace_s, why="it does not answer")
        if why is not None:
            logger.warning("worker %s cannot come back to its scheduler %s (%s) and closes", self.name, self.scheduler_address, why)
            self._end(None)

    async def _register_again(self, remaining_s: float) -> None:
        introduction = Introduction(Role.WORKER, self._session)
        comm = await connect_to_scheduler(self.scheduler_address, introduction, self._secret, remaining_s)
        # Done while the old stream swallows the reports: the inventory includes them, and must be the first message on the new stream.
        self._performer.report_running()
        stream = self._stream = SchedulerStream(comm, self._on_messages, self._on_lost)
        # All reports from now on follow the inventory on the new stream.
        inventory = self._core.inventory(self.loop.time())
        inventory.functions = self._functions.ids()
        try:
            welcome = await stream.register(self._registration(inventory))
        except ValueError as error:
            raise Refused(str(error)) from error
        except OSError:
            stream.abort()
            raise
        how = "goes on" if welcome.known else "counts as a new one"
        logger.info("worker %s is back at its scheduler %s and %s", self.name, self.scheduler_address, how)


def _versions() -> dict[str, str]:
    return {
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "treadle": __version__,
        "dask": dask.__version__,
        "msgspec": msgspec.__version__,
        "cloudpickle": cloudpickle.__version__,
    }
