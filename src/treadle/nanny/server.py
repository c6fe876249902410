"""``Nanny``: keeps one worker process running, and obeys the scheduler's orders about it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
import sys
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

import dask.config
import dask.system
from dask.utils import parse_timedelta

from treadle import config as settings
from treadle.comm.addressing import normalize_address
from treadle.comm.interface import Buffer, Comm, Introduction, Role
from treadle.comm.reconnect import WELCOME_S, come_back
from treadle.comm.registry import connect
from treadle.comm.security import Secret, Security, find_secret
from treadle.exceptions import CommClosedError, PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.beside import put_result_beside
from treadle.messages.codec import decode_scheduler_to_nanny, encode
from treadle.messages.nanny import (
    CloseNanny,
    NannyHeartbeat,
    NannyRan,
    NannyRun,
    NannyWelcome,
    RegisterNanny,
    RestartWorker,
    WorkerDied,
    WorkerRestarted,
)
from treadle.nanny.channel import StartWorker
from treadle.nanny.memory import guard_memory
from treadle.nanny.process import WorkerProcess, child_environment
from treadle.nanny.supervisor import Supervisor
from treadle.nanny.watch import StoppedWatch
from treadle.serialize import by_value
from treadle.serialize.run import run_function
from treadle.unused_settings import begin, take_dashboard_options
from treadle.utils.background import Background
from treadle.utils.logs import log_state
from treadle.utils.main_script import main_script
from treadle.utils.private import make_scratch_directory
from treadle.utils.scheduler_file import wait_for_scheduler_file
from treadle.utils.status import Status
from treadle.utils.worker_resources import parse_memory_limit

logger = logging.getLogger(__name__)

#: How long a worker may take to start if ``death_timeout`` is not set.
_START_TIMEOUT_S = 60.0
#: How long a worker may take to close before it is killed.
_STOP_TIMEOUT_S = 10.0


class Nanny:
    """The supervisor of one worker process. After ``await Nanny(...)`` or ``async with Nanny(...)`` the worker runs.

    ``scheduler_ip`` is the scheduler's address, ``worker_class`` a class or its dotted name. ``env`` overrides the
    environment of the process, ``config`` its dask config. ``worker_kwargs`` and all arguments that are not named here are
    keyword arguments of the worker.
    A process that crashes is replaced, after growing pauses if it crashes again and again. A process that was told to close is not.
    A process that uses more than ``distributed.worker.memory.terminate`` of its ``memory_limit`` is killed and replaced.
    """

    def __init__(
        self,
        scheduler_ip: str | None = None,
        scheduler_port: int | None = None,
        *,
        scheduler_file: str | os.PathLike[str] | None = None,
        nthreads: int | None = None,
        name: Any = None,
        memory_limit: Any = "auto",
        resources: dict[str, float] | None = None,
        security: Security | None = None,
        host: str | None = None,
        worker_port: int | str | None = 0,
        contact_address: str | None = None,
        interface: str | None = None,
        protocol: str | None = None,
        local_directory: str | os.PathLike[str] | None = None,
        death_timeout: float | str | None = None,
        env: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        worker_class: type | str = "treadle.worker.server.Worker",
        worker_kwargs: dict[str, Any] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **more_worker_kwargs: Any,
    ) -> None:
        if more_worker_kwargs.get("port"):
            raise NotImplementedError("a nanny listens on no port; use worker_port= for the worker's port")
        more_worker_kwargs.pop("port", None)
        # Removed here, so that the worker process does not warn about them again.
        take_dashboard_options(more_worker_kwargs)
        begin("a nanny")
        if scheduler_ip is None and scheduler_file is None:
            scheduler_ip = settings.get("scheduler-address")
            if scheduler_ip is None:
                raise ValueError("where is the scheduler? Give its address, scheduler_file=, or DASK_SCHEDULER_ADDRESS")
        self._scheduler_ip, self._scheduler_port, self._scheduler_file = scheduler_ip, scheduler_port, scheduler_file
        self.id = f"nanny-{secrets.token_hex(8)}"
        self.name = name
        self.loop = loop
        self.status = Status.created
        #: Why the nanny has ended, if not in good order.
        self.failure: str | None = None
        self.scheduler_address: str | None = None
        self.env = dict(env or {})
        self.config = dict(config or {})
        self.death_timeout = None if death_timeout is None else float(parse_timedelta(death_timeout))
        self.local_directory = local_directory
        self._security = security
        self._worker_class = worker_class
        self._worker_options: dict[str, Any] = {
            "nthreads": nthreads,
            "name": name,
            "memory_limit": memory_limit,
            "resources": resources,
            "host": host,
            "port": worker_port,
            "contact_address": contact_address,
            "interface": interface,
            "protocol": protocol,
            "death_timeout": self.death_timeout,
            **(worker_kwargs or {}),
            **more_worker_kwargs,
        }
        cores = dask.system.CPU_COUNT
        #: In bytes; 0 for no limit.
        self.memory_limit = parse_memory_limit(self._worker_options["memory_limit"], nthreads or cores, cores)
        self._secret: Secret | None = None
        self._session = secrets.token_bytes(16)
        self._comm: Comm | None = None
        #: Whether the connection broke and is being made again; and the deaths to report to the scheduler then.
        self._coming_back = False
        self._unsent_deaths: list[WorkerDied] = []
        self._welcome: asyncio.Future[NannyWelcome] | None = None
        self._closed = asyncio.Event()
        self._background = Background(f"nanny {self.name or self.id}", self._cannot_go_on)
        self._closing: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(
            self._make_process,
            start_timeout_s=_START_TIMEOUT_S if self.death_timeout is None else self.death_timeout,
            died=self._worker_died,
            ended=self._worker_ended,
            failed=self._cannot_go_on,
        )

    # ------------------------------------------------------------------------------------------ what it is

    def __repr__(self) -> str:
        return f"<Nanny: {self.worker_address or 'no worker'}, status: {self.status.value}, pid: {self.pid}>"

    @property
    def process(self) -> WorkerProcess | None:
        return self._supervisor.process

    @property
    def worker_address(self) -> str | None:
        return self.process.worker_address if self.process is not None else None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def is_alive(self) -> bool:
        """Whether the worker process runs."""
        return self.process is not None and self.process.is_alive()

    async def finished(self) -> None:
        """Wait until the nanny is closed."""
        await self._closed.wait()

    # ------------------------------------------------------------------------------------------ start and close

    def __await__(self) -> Generator[Any, None, Nanny]:
        return self.start().__await__()

    async def __aenter__(self) -> Nanny:
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def start(self) -> Nanny:
        """Returns when the worker runs. Raises the reason why it cannot run; then nothing is left behind. Idempotent."""
        if self.status is not Status.created:
            if self.status is not Status.running:
                raise RuntimeError(f"this nanny cannot be started (again): it is {self.status.value}")
            return self
        loop = asyncio.get_running_loop()
        if self.loop is not None and getattr(self.loop, "asyncio_loop", self.loop) is not loop:
            raise ValueError("loop= is not the loop that runs here; leave it out")
        self.loop = loop
        self.status = Status.starting
        try:
            await self._connect()
            await self._supervisor.start()
            if self._closing is not None:
                raise RuntimeError("the nanny was closed while it started")
        except BaseException:
            await self.close()
            self.status = Status.failed
            raise
        self.status = Status.running
        self._background.spawn("heartbeats", self._heartbeats(), endless=True)
        own = settings.nanny_settings()
        if self.memory_limit and own.terminate_fraction is not None:
            guard = guard_memory(lambda: self.process, self.memory_limit, own.terminate_fraction, own.memory_interval_s)
            self._background.spawn("memory guard", guard, endless=True)
        return self

    async def close(self, timeout: float = _STOP_TIMEOUT_S, reason: str = "nanny-close") -> None:
        """Stop the worker, by force after ``timeout`` seconds, then the nanny. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(timeout, reason))
        await asyncio.shield(self._closing)

    async def _close(self, timeout_s: float, reason: str) -> None:
        self.status = Status.closing
        await self._supervisor.close(timeout_s, reason)
        self._background.cancel()
        if self._comm is not None:
            await self._comm.close()
        self.status = Status.closed
        self._closed.set()

    async def _connect(self) -> None:
        """Find the scheduler and its secret, and register. Raises TimeoutError, OSError, AuthenticationError."""
        timeout_s = self.death_timeout if self.death_timeout is not None else settings.comm_settings().connect_timeout_s
        file_secret = None
        if self._scheduler_file is not None:
            content = await wait_for_scheduler_file(self._scheduler_file, timeout_s)
            address, file_secret = content.address, content.secret
        else:
            assert self._scheduler_ip is not None
            address = self._scheduler_ip if self._scheduler_port is None else f"{self._scheduler_ip}:{self._scheduler_port}"
        self.scheduler_address = normalize_address(address)
        self._secret = find_secret(self._security, settings.secret_settings(), file_secret)
        await self._register(timeout_s, timeout_s)

    async def _register(self, timeout_s: float, welcome_s: float) -> None:
        """Connect and register. Raises OSError (also TimeoutError), AuthenticationError, VersionError."""
        assert self.scheduler_address is not None and self._secret is not None
        self._welcome = asyncio.get_running_loop().create_future()
        introduction = Introduction(Role.NANNY, self._session)
        comm = await connect(self.scheduler_address, introduction, secret=self._secret.value, timeout_s=timeout_s)
        self._comm = comm
        comm.start(self._on_frame, lambda error: self._on_comm_closed(comm, error))
        self._send(RegisterNanny(id=self.id, name=str(self.name or self.id), host=os.uname().nodename, pid=os.getpid()))
        async with asyncio.timeout(welcome_s):
            await self._welcome

    async def _come_back(self, why: str) -> None:
        """Reconnect to the scheduler. The worker runs on meanwhile; if it dies, the scheduler hears of that afterwards."""
        grace_s = settings.nanny_settings().reconnect_grace_s if self.death_timeout is None else self.death_timeout
        gone = await come_back(self._register_again, grace_s=grace_s, why=why)
        if gone is not None:
            logger.info("The nanny of %s closes: %s", self.name or self.id, gone)
            await self.close(reason="scheduler-gone")
            return
        self._coming_back = False
        unsent, self._unsent_deaths = self._unsent_deaths, []
        for death in unsent:
            self._send(death)

    async def _register_again(self, remaining_s: float) -> None:
        try:
            await self._register(remaining_s, WELCOME_S)
        except OSError:
            if self._comm is not None:
                self._comm.abort()
            raise
        if self._comm is None or self._comm.closed:
            raise CommClosedError("the scheduler closed the connection")

    # ------------------------------------------------------------------------------------------ the process

    async def instantiate(self) -> Status:
        """Start a worker process if none runs. Raises the reason why the worker cannot run."""
        await self._supervisor.start()
        return self.status

    async def kill(self, timeout: float = 2.0, reason: str = "nanny-kill") -> None:
        """End the worker process, by force after ``timeout`` seconds; it is not replaced."""
        await self._supervisor.stop(timeout, reason)

    async def restart(self, timeout: float = 30.0, reason: str = "nanny-restart") -> str:
        """End the worker process, by force after ``timeout`` seconds, and start another: ``"OK"``. Raises as ``instantiate``."""
        await self._supervisor.restart(timeout, reason)
        return "OK"

    async def _make_process(self) -> WorkerProcess:
        own = settings.nanny_settings()
        environment = child_environment(own.pre_spawn_environ, {**own.environ, **self.env})
        base = self.local_directory or settings.get("temporary-directory")
        directory = await asyncio.to_thread(make_scratch_directory, base)
        return WorkerProcess(self._start_record(directory), environment=environment, directory=directory, memory_limit=self.memory_limit)

    def _start_record(self, directory: Path) -> StartWorker:
        assert self._secret is not None
        options = {
            **self._worker_options,
            "scheduler_ip": self.scheduler_address,
            "security": Security(secret=self._secret.value),
            "local_directory": str(directory),
            "nanny": self.id,
        }
        try:
            worker_class = self._worker_class if isinstance(self._worker_class, str) else by_value.dumps(self._worker_class)
            arguments = by_value.dumps({name: value for name, value in options.items() if value is not None})
        except Exception as error:
            raise TypeError(f"an argument of the worker cannot be sent to its process: {error}") from error
        return StartWorker(
            path=[entry or os.getcwd() for entry in sys.path],
            config=_sendable(dask.config.merge(dask.config.config, self.config)),
            worker_class=worker_class,
            arguments=arguments,
            directory=str(directory),
            event_loop=settings.event_loop_kind(),
            main=main_script(),
            logs=log_state(settings.log_settings().format),
        )

    def _worker_died(self, process: WorkerProcess, code: int, planned: bool) -> None:
        self._send(
            WorkerDied(
                pid=process.pid or 0,
                exitcode=code,
                stderr=process.stderr,
                executing=[id for id, _ in process.executing],
                attempts=[attempt for _, attempt in process.executing],
                died_at=process.ended_at,
                planned=planned,
                out_of_memory=process.out_of_memory,
                reason=process.kill_reason,
            )
        )

    def _worker_ended(self) -> None:
        logger.info("The worker of %s is closed, and so is its nanny", self.name or self.id)
        self._background.spawn("closing", self.close(reason="worker-closed"))

    # ------------------------------------------------------------------------------------------ the scheduler

    def _send(self, message: Message) -> None:
        if self._comm is not None:
            if isinstance(message, WorkerDied) and (self._coming_back or self._comm.closed):
                self._unsent_deaths.append(message)
            else:
                self._comm.send(encode([message]))

    def _on_frame(self, body: Buffer, buffers: list[Buffer]) -> None:
        for message in decode_scheduler_to_nanny(body):
            match message:
                case NannyWelcome():
                    if self._welcome is not None and not self._welcome.done():
                        self._welcome.set_result(message)
                case RestartWorker():
                    self._background.spawn("restarting its worker", self._restart_for_scheduler(message))
                case NannyRun():
                    self._background.spawn("running a function", self._run_for_scheduler(message))
                case CloseNanny():
                    self._background.spawn("closing", self.close(reason=message.reason))

    def _on_comm_closed(self, comm: Comm, error: Exception | None) -> None:
        if self._closing is not None or comm is not self._comm:
            return
        why = f"the connection to the scheduler {self.scheduler_address} was closed ({error or 'by the scheduler'})"
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(OSError(why))
            return
        if self.status is Status.starting or isinstance(error, PeerProtocolError):
            logger.info("The nanny of %s closes: %s", self.name or self.id, why)
            self._background.spawn("closing", self.close(reason="scheduler-gone"))
        elif not self._coming_back:
            self._coming_back = True
            self._background.spawn("coming back", self._come_back(why))

    async def _restart_for_scheduler(self, order: RestartWorker) -> None:
        try:
            # The old process gets a third of the time to end; the new one needs the rest.
            await self.restart(timeout=min(order.timeout_s / 3, _STOP_TIMEOUT_S), reason="scheduler-restart")
        except Exception as error:
            logger.error("The worker of %s could not be restarted: %s", self.name or self.id, error)
            self._send(WorkerRestarted(request=order.request, error=f"{type(error).__name__}: {error}"))
        else:
            self._send(WorkerRestarted(request=order.request, error=""))

    async def _run_for_scheduler(self, order: NannyRun) -> None:
        payload, error = await run_function(order, {"dask_worker": self, "dask_nanny": self})
        if order.wait and self._comm is not None:
            message, buffers = put_result_beside(NannyRan(request=order.request, payload=payload, error=error))
            self._comm.send(encode([message]), buffers)

    async def _heartbeats(self) -> None:
        """Tell the scheduler that the process exists, however busy it is. A process that was stopped is replaced after a while."""
        period_s = settings.worker_settings().heartbeat_s
        limit_s = settings.nanny_settings().stopped_timeout_s
        if limit_s is not None:
            period_s = min(period_s, max(limit_s / 4, 0.05))
        stopped = StoppedWatch(limit_s, period_s)
        while True:
            await asyncio.sleep(period_s)
            process = self.process
            sight = process.look() if process is not None else None
            alive = sight is not None and not sight.stopped
            self._send(NannyHeartbeat(metrics={"alive": int(alive), "pid": self.pid or 0}))
            is_stopped = sight is not None and sight.stopped
            if stopped.is_over(is_stopped, asyncio.get_running_loop().time()) and process is not None:
                logger.warning("Worker process %s has been stopped for %.3g s; another one is started", process.pid, limit_s)
                await process.kill(0, f"it had been stopped for {limit_s:g} s")

    def _cannot_go_on(self, name: str, error: BaseException) -> None:
        """A worker that nobody watches must not go on."""
        if self._closing is None:
            self.failure = f"{name} has failed: {error!r}"
            logger.critical("The nanny of %s closes its worker and ends: %s", self.name or self.id, self.failure)
            self._background.spawn("closing", self.close(reason="nanny-failed"))


def _sendable(configuration: dict[str, Any]) -> dict[str, Any]:
    """The part of the config that can be pickled: an open client sets ``scheduler`` to one of its methods, and others may do the like."""
    sendable = {}
    for name, value in configuration.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            if name != "scheduler":
                logger.warning("The config under %r cannot be pickled and does not reach the worker process: %s", name, error)
        else:
            sendable[name] = value
    return sendable
