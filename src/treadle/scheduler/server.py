"""The scheduler's shell: decode -> handle -> send. It owns the streams and the clock, and no task state."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import uuid
from collections.abc import Coroutine, Generator, Sequence
from time import time
from typing import Any, Final

from treadle import config
from treadle.comm.addressing import address_from_user_args
from treadle.comm.interface import Comm, Listener
from treadle.comm.registry import listen
from treadle.comm.security import Secret, Security, ensure_secret_file, find_secret
from treadle.exceptions import AuthenticationError
from treadle.journal.directory import Directory
from treadle.messages.client_scheduler import (
    ClientRefused,
    ClientReply,
    Order,
    Query,
    Restart,
    RunOn,
    SchedulerClosing,
    Shutdown,
)
from treadle.messages.nanny import CloseNanny, NannyHeartbeat, NannyRan, NannyWelcome, RegisterNanny, WorkerDied, WorkerRestarted
from treadle.messages.scheduler_local import Tick
from treadle.messages.worker_scheduler import CloseWorker, LeaveGracefully, TaskExplained, WorkerRan
from treadle.scheduler import queries
from treadle.scheduler.admin import Admin
from treadle.scheduler.failures import CoreFailure
from treadle.scheduler.journaling import Journal
from treadle.scheduler.liveness import Liveness, Nannies
from treadle.scheduler.orders import Orders
from treadle.scheduler.sessions import Arrival, Session, Sessions
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import ClientState, TaskState, WorkerState
from treadle.scheduler.transitions.state import Limits
from treadle.scheduler.turns import Turns
from treadle.scheduler.watchdog import Watchdog
from treadle.unused_settings import begin, take_dashboard_options
from treadle.utils.background import Background
from treadle.utils.scheduler_file import SchedulerFile, remove_scheduler_file, write_scheduler_file
from treadle.utils.starts import MOST_STARTS, WITHIN_S, Starts
from treadle.utils.status import Status

logger = logging.getLogger(__name__)

_DEFAULT_INTERVAL = "500ms"
_DEFAULT_SYNCHRONIZE = "60s"
#: So many places are there where a scheduler may begin to number attempts.
_ATTEMPTS: Final = 2**20


def _limits(settings: config.SchedulerSettings, allowed_failures: int | None, validate: bool | None) -> Limits:
    return Limits(
        allowed_failures=settings.allowed_failures if allowed_failures is None else int(allowed_failures),
        bandwidth_bytes_per_s=settings.bandwidth_bytes_per_s,
        no_workers_timeout_s=settings.no_workers_timeout_s,
        work_stealing=settings.work_stealing,
        worker_saturation=settings.worker_saturation,
        prefetch_time_s=settings.prefetch_time_s,
        prefetch_limit=settings.prefetch_limit,
        unknown_task_duration_s=settings.unknown_task_duration_s,
        default_task_durations_s=settings.default_task_durations_s,
        client_weights=settings.client_weights,
        validate=settings.validate if validate is None else bool(validate),
        scatter_replicas=settings.scatter_replicas,
        scatter_replica_limit_bytes=settings.scatter_replica_limit_bytes,
        worker_grace_s=settings.worker_grace_s,
        client_grace_s=settings.client_grace_s,
        recovery_grace_s=settings.recovery_grace_s,
    )


class Scheduler:
    """The centre of a cluster. ``await Scheduler(...)`` or ``async with Scheduler(...)`` starts it; ``close`` ends it.

    ``delete_interval``: how often time-outs are looked at. ``worker_ttl``: a worker that was silent for so long is taken for
    dead. ``idle_timeout``: it closes when nothing was computed for so long. Times are numbers of seconds, ``"5s"`` or timedeltas.
    Without ``security`` the cluster's secret is looked for as ``treadle.comm.security.find_secret`` says, and made on first use.
    ``journal``: a directory to keep what must outlive this process; what is there already is gone on with, and ``close`` is no goodbye.
    (``docs/reliability.md``)
    Raises OSError when the address is in use, JournalError for a journal that cannot be used, NotImplementedError for what is
    not there yet.
    """

    def __init__(
        self,
        loop: Any = None,
        delete_interval: Any = _DEFAULT_INTERVAL,
        synchronize_worker_interval: Any = _DEFAULT_SYNCHRONIZE,
        services: dict[Any, Any] | None = None,
        service_kwargs: dict[Any, Any] | None = None,
        allowed_failures: int | None = None,
        extensions: Any = None,
        validate: bool | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
        security: Security | dict[str, Any] | None = None,
        worker_ttl: Any = None,
        idle_timeout: Any = None,
        interface: str | None = None,
        host: str | None = None,
        port: int = 0,
        protocol: str | None = None,
        preload: Any = None,
        preload_argv: Sequence[str] = (),
        plugins: Sequence[Any] = (),
        journal: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        take_dashboard_options(kwargs)
        if kwargs:
            raise TypeError(f"Scheduler has no option {', '.join(sorted(kwargs))}")
        _refuse(
            {
                "services": bool(services),
                "service_kwargs": bool(service_kwargs),
                "extensions": bool(extensions),
                "preload": bool(preload),
                "preload_argv": bool(preload_argv),
                "plugins": bool(plugins),
                # Workers report each change as it happens, so there is no state to synchronize now and then.
                "synchronize_worker_interval": synchronize_worker_interval not in (_DEFAULT_SYNCHRONIZE, None),
            }
        )
        begin("a scheduler")
        settings = config.scheduler_settings()
        self._wanted_loop = loop
        self._address = address_from_user_args(host, port, interface, protocol, default_host="127.0.0.1")
        self._interval_s = config.seconds(delete_interval)
        self._worker_ttl_s = settings.worker_ttl_s if worker_ttl is None else config.seconds(worker_ttl)
        self._idle_timeout_s = settings.idle_timeout_s if idle_timeout is None else config.seconds(idle_timeout)
        self._stuck_after_s = settings.stuck_after_s
        self._scheduler_file = scheduler_file
        self.security = Security(**security) if isinstance(security, dict) else security
        self._secret: Secret | None = None
        self.id = f"Scheduler-{uuid.uuid4()}"
        self.status = Status.created
        self.transitions = Transitions(_limits(settings, allowed_failures, validate), self.id, secrets.randbelow(_ATTEMPTS) << 6)
        self.listeners: list[Listener] = []
        self._journal_path = journal
        self._journal_compaction_bytes = settings.journal_compaction_bytes
        self._journal: Journal | None = None
        #: What the core's clock is ahead of the loop's: it goes on where the journal ends.
        self._clock_offset_s = 0.0
        self._session_id = secrets.token_bytes(16)
        self._nannies = Nannies()
        #: Names of workers without a nanny that whoever has made them replaces when they are told to restart.
        self.replaced_names: set[str] = set()
        #: Of fresh cores, after failures.
        self._starts = Starts()
        #: Why it has ended, if that was not in order.
        self.failure: str | None = None
        self._background = Background("scheduler")
        self._finished: asyncio.Event | None = None
        self._sessions: Sessions
        self._turns: Turns
        self._admin: Admin
        self._liveness: Liveness
        self._orders: Orders
        self._watchdog: Watchdog
        #: Goes on when the core has failed.
        self._house = Background("scheduler", self._cannot_go_on)
        self._loop: asyncio.AbstractEventLoop
        self.started = 0.0

    # ------------------------------------------------------------------------------------- what it knows

    @property
    def tasks(self) -> dict[Any, TaskState]:
        return self.transitions.tasks

    @property
    def unrunnable(self) -> dict[TaskState, float]:
        return self.transitions.unrunnable

    @property
    def workers(self) -> dict[str, WorkerState]:
        return self.transitions.workers

    @property
    def idle(self) -> dict[str, WorkerState]:
        return self.transitions.idle

    @property
    def saturated(self) -> dict[str, WorkerState]:
        return self.transitions.saturated

    @property
    def running(self) -> dict[str, WorkerState]:
        return self.transitions.running

    @property
    def clients(self) -> dict[str, ClientState]:
        return self.transitions.clients

    @property
    def task_duration(self) -> dict[str, float]:
        return self.transitions.task_duration

    def identity(self, n_workers: int = -1) -> dict[str, Any]:
        """What it says of itself and of its workers (all, or the first ``n_workers``) when it is asked for "scheduler_info"."""
        info: dict[str, Any] = queries.scheduler_info(self.transitions, {"n_workers": n_workers})
        info.update(self._own_info())
        return info

    def _own_info(self) -> dict[str, Any]:
        return {"address": self.address, "started": self.started, "services": {}}

    def story(self, *keys: Any) -> list[tuple[Any, str, str, str, float]]:
        return self.transitions.story(*keys)

    def validate(self) -> None:
        self.transitions.validate()

    def statistics(self) -> dict[str, Any]:
        """Totals, as plain data; ``turns``: how long turns took, by the kind of their events (``TurnTimes.statistics``)."""
        return {**self.transitions.statistics(), "turns": self._turns.times.statistics()}

    @property
    def total_nthreads(self) -> int:
        return self.transitions.state.total_nthreads

    @property
    def host_info(self) -> dict[str, dict[str, Any]]:
        """host -> its workers' addresses and the number of their threads."""
        return {
            host: {"addresses": [worker.address for worker in workers], "nthreads": sum(worker.nthreads for worker in workers)}
            for host, workers in self.transitions.state.by_host.items()
        }

    @property
    def services(self) -> dict[str, Any]:
        """Other servers that run beside it: none yet."""
        return {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def client_comms(self) -> dict[str, Comm]:
        sessions = self._sessions.by_number
        return {client.id: session.comm for client in self.clients.values() if (session := sessions.get(client.number)) is not None}

    @property
    def stream_comms(self) -> dict[str, Comm]:
        sessions = self._sessions.by_number
        return {worker.address: session.comm for worker in self.workers.values() if (session := sessions.get(worker.number)) is not None}

    @property
    def address(self) -> str:
        """Where others connect to. Raises ValueError before it was started."""
        if not self.listeners:
            raise ValueError("the scheduler has no address before it is started: await it")
        return self.listeners[0].contact_address

    def __repr__(self) -> str:
        where = self.listeners[0].contact_address if self.listeners else "not started"
        return f"<Scheduler {where!r}, workers: {len(self.workers)}, threads: {self.total_nthreads}, tasks: {len(self.tasks)}>"

    # -------------------------------------------------------------------------------------------- its life

    def __await__(self) -> Generator[Any, None, Scheduler]:
        return self.start().__await__()

    async def __aenter__(self) -> Scheduler:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> Scheduler:
        """Listen, write the scheduler file. Idempotent."""
        if self.status is not Status.created:
            return self
        self.status = Status.starting
        loop = self._loop = asyncio.get_running_loop()
        wanted = getattr(self._wanted_loop, "asyncio_loop", self._wanted_loop)
        if wanted is not None and wanted is not loop:
            self.status = Status.failed
            raise RuntimeError("the scheduler was given another loop than the one it is started on; leave out loop=")
        self._finished = asyncio.Event()
        self._sessions = Sessions(loop, self._on_turn)
        turns = self._turns = Turns(
            self.transitions,
            self._sessions,
            self._now,
            on_message=self._shell,
            on_ended=self._party_ended,
            on_close=self._close_session,
            on_failure=self._core_failed,
        )
        self._admin = Admin(self.transitions, self._sessions, self._nannies, turns.tell, self)
        self._orders = Orders(self.transitions, self._admin, turns.tell)
        self._liveness = Liveness(self.transitions, self._sessions, self._nannies, turns.handle, self._worker_ttl_s)
        try:
            self._secret = self._find_secret()
            if self._journal_path is not None:
                self._journal = turns.journal = self._open_journal(self._journal_path)
            self.listeners.append(
                await listen(
                    self._address, self._accept, session=self._session_id, secret=self._secret.value, refused=self._refused
                )
            )
            if self._scheduler_file is not None:
                secret = self._secret.value.decode()
                write_scheduler_file(self._scheduler_file, SchedulerFile(self.address, self.id, secret))
        except BaseException:
            self.status = Status.failed
            for listener in self.listeners:
                await listener.stop()
            if self._journal is not None:
                await self._journal.close()
            raise
        self._begin_core()
        self.started = loop.time()
        self.status = Status.running
        self._house.spawn("housekeeping", self._keep_house())
        logger.info("Scheduler started at %s; secret from %s", self.address, self._secret.source)
        return self

    def _open_journal(self, path: str | os.PathLike[str]) -> Journal:
        """Take in what is there; the core's clock goes on where it ends. Raises JournalError."""
        journal = Journal(
            Directory(path),
            self.transitions,
            self._sessions,
            self._loop,
            compact_from_bytes=self._journal_compaction_bytes,
            tell=self._turns.tell,
        )
        if journal.recovery.records:
            # In between no time has passed: nobody's grace is used up by it.
            self._clock_offset_s = self.transitions.state.now - self._loop.time()
        return journal

    def _find_secret(self) -> Secret:
        settings = config.secret_settings()
        try:
            return find_secret(self.security, settings)
        except AuthenticationError:
            return ensure_secret_file(settings.file)

    def _refused(self, line: str) -> None:
        logger.warning("%s", line)

    async def close(self, reason: str = "scheduler closed", *, for_good: bool | None = None) -> None:
        """Stop. Idempotent; returns when it is done.

        ``for_good``: workers and clients are told that this is the end, and end too. False: they wait for another scheduler with the
        same journal at the same address, as they do when the process is killed, and lose nothing. None: so it is with a journal,
        and without one it is for good.
        """
        if self.status in (Status.closing, Status.closed):
            if self._finished is not None:
                await self._finished.wait()
            return
        if self.status is not Status.running:
            self.status = Status.closed
            return
        self.status = Status.closing
        if self._scheduler_file is not None:
            remove_scheduler_file(self._scheduler_file, self.id)
        returns = self._journal is not None and not for_good
        if returns:
            logger.info("the scheduler stops (%s); who is here waits for another one with this journal at %s", reason, self.address)
            # What arrives from here on was not received: it is said again to the next one.
            self._turns.stop()
        for listener in self.listeners:
            await listener.stop()
        if not returns:
            self._say_goodbye(reason)
        self._background.cancel()
        self._house.cancel()
        if self._journal is not None and returns:
            await self._journal.close()
        await self._sessions.close(list(self._sessions.by_number))
        if self._journal is not None and not returns:
            await self._journal.close(self._now())
        self.status = Status.closed
        assert self._finished is not None
        self._finished.set()

    def _say_goodbye(self, reason: str) -> None:
        for worker in self.workers.values():
            self._sessions.send(worker.number, [CloseWorker(reason)], [])
        for number in self._nannies.numbers.values():
            self._sessions.send(number, [CloseNanny(reason)], [])
        for client in self.clients.values():
            self._sessions.send(client.number, [SchedulerClosing(reason)], [])

    async def finished(self) -> None:
        """Wait until it is closed."""
        if self._finished is None:
            raise RuntimeError("the scheduler was not started")
        await self._finished.wait()

    def _attend(self, client: int, message: Any, coroutine: Coroutine[Any, Any, None]) -> None:
        """Answer it in its own time. Whatever goes wrong, the client does not wait in vain."""

        def refuse(_name: str, error: BaseException) -> None:
            self._sessions.send(client, [ClientRefused(message.request, type(error).__name__, str(error))], [])

        self._background.spawn(type(message).__name__, coroutine, on_failure=refuse)

    def _cannot_go_on(self, name: str, error: BaseException) -> None:
        if self.status is Status.running:
            self._background.spawn("ending", self._end(f"{name} has failed: {error!r}"))

    # ------------------------------------------------------------------------------------------- one turn

    def _on_turn(self, arrivals: list[Arrival]) -> None:
        if self.status in (Status.running, Status.closing):
            self._turns.take(arrivals)

    def _party_ended(self, number: int) -> None:
        self._nannies.remove(number)
        self._admin.lost(number)

    def _accept(self, comm: Comm) -> None:
        if self._turns.broken:
            # It comes back: there will be a fresh core soon.
            comm.start(lambda body, buffers: None, lambda error: None)
            comm.abort()
        else:
            self._sessions.accept(comm)

    def _core_failed(self, failure: CoreFailure) -> None:
        """Our bug: the state may contradict itself, so nothing that follows from it can be trusted. All goes on as after a ``kill -9``."""
        if self.status is not Status.running:
            logger.critical("the scheduler's core failed while the scheduler was closing: %s", failure.story)
            return
        what = self._turns.set_aside.blame(failure)
        logger.critical("the scheduler's core failed, and starts over (%s): %s", what, failure.story)
        self.transitions.reset(secrets.randbelow(_ATTEMPTS) << 6)
        self._admin.lost_all()
        self._nannies.clear()
        self._sessions.cut()
        self._background.cancel()
        self._house.spawn("starting over", self._start_over(failure))

    async def _start_over(self, failure: CoreFailure) -> None:
        if not self._starts.another(self._loop.time()):
            first = failure.story.partition("\n")[0]
            await self._end(f"the scheduler's core failed {MOST_STARTS + 1} times within {WITHIN_S:g} s, the last time with {first}")
            return
        try:
            if self._journal is not None:
                await self._journal.close()
                assert self._journal_path is not None
                self._journal = self._turns.journal = self._open_journal(self._journal_path)
            else:
                self._sessions.begin_another_incarnation()
        except Exception as error:
            await self._end(f"the scheduler's core failed, and its journal cannot be gone on from: {error}")
            return
        self._begin_core()
        self._turns.go_on()
        logger.warning("the scheduler has started over with a fresh core; workers and clients come back")

    def _begin_core(self) -> None:
        """The core is fresh, or has been told the journal."""
        for event, story in self._journal.recovery.set_aside if self._journal is not None else ():
            self._turns.set_aside.add(event, story)
        self.transitions.state.clock_offset_s = time() - self._now()
        self._watchdog = Watchdog(self.transitions, self._admin, self._stuck_after_s or 0.0)

    async def _end(self, line: str) -> None:
        """It cannot go on. Nobody is told goodbye: another scheduler may take its place."""
        logger.critical("%s; the scheduler ends", line)
        self.failure = line
        self.status = Status.closing
        self._house.cancel()
        for listener in self.listeners:
            await listener.stop()
        self._sessions.cut()
        if self._journal is not None:
            await self._journal.close()
        if self._scheduler_file is not None:
            remove_scheduler_file(self._scheduler_file, self.id)
        self.status = Status.failed
        assert self._finished is not None
        self._finished.set()

    def _close_session(self, number: int, reason: str) -> None:
        self._background.spawn("closing a session", self._sessions.close([number]))

    def _now(self) -> float:
        return self._loop.time() + self._clock_offset_s

    def _shell(self, session: Session, message: Any) -> None:
        """What is no business of the core."""
        kind = type(message)
        number = session.number
        if kind is Query and message.subject == "why":
            self._attend(number, message, self._explain(number, message))
        elif kind is Query:
            self._sessions.send(number, [self._answer(message)], [])
        elif kind is RunOn:
            self._attend(number, message, self._admin.run_on(number, message))
        elif kind is WorkerRan or kind is NannyRan or kind is TaskExplained:
            self._admin.answered(number, message)
        elif kind is Order:
            self._attend(number, message, self._obey(number, message))
        elif kind is LeaveGracefully:
            self._background.spawn("letting a worker go", self._let_go(number, message.restart))
        elif kind is Restart:
            self._attend(number, message, self._admin.restart(number, message))
        elif kind is Shutdown:
            self._background.spawn("closing", self.close("a client shut the cluster down", for_good=True))
        elif kind is RegisterNanny:
            self._nannies.add(message.id, message.name, number)
            self._sessions.send(number, [NannyWelcome(number, self.id)], [])
        elif kind is WorkerRestarted:
            self._admin.answered(number, message)
        elif kind is WorkerDied:
            self._liveness.process_ended(number, message)
        elif kind is NannyHeartbeat:
            self._liveness.nanny_beat(number, message, self._loop.time())

    async def _explain(self, client: int, query: Query) -> None:
        try:
            reply: ClientReply | ClientRefused = ClientReply(query.request, await self._admin.explain(query))
        except (ValueError, TypeError) as error:
            reply = ClientRefused(query.request, type(error).__name__, str(error))
        self._sessions.send(client, [reply], [])

    async def _obey(self, client: int, order: Order) -> None:
        try:
            value = await self._orders.obey(order.subject, order.options)
        except (ValueError, TypeError, KeyError, TimeoutError) as error:
            text = str(error.args[0]) if error.args else str(error)
            self._sessions.send(client, [ClientRefused(order.request, type(error).__name__, text)], [])
        else:
            self._sessions.send(client, [ClientReply(order.request, value)], [])

    async def _let_go(self, number: int, restart: bool) -> None:
        """That worker wants to leave, and will, even if nobody can take what it has."""
        worker = self.transitions.state.by_number.get(number)
        reason = "worker-close-gracefully"
        if worker is not None and not await self._orders.retire(workers=[worker.address], reason=reason, restart=restart):
            self._admin.close_worker(number, reason, restart)

    async def retire_workers(self, workers: list[str] | None = None, names: list[Any] | None = None, **options: Any) -> dict[str, Any]:
        """See ``Orders.retire``."""
        return await self._orders.retire(workers, names, **options)

    def _answer(self, query: Query) -> Any:
        try:
            value = queries.answer(self.transitions, query.subject, query.options)
        except (ValueError, TypeError) as error:
            return ClientRefused(query.request, type(error).__name__, str(error))
        if query.subject == "scheduler_info":
            value.update(self._own_info())
        elif query.subject == "statistics":
            value = self.statistics()
        return ClientReply(query.request, value)

    # ---------------------------------------------------------------------------------------- housekeeping

    async def _keep_house(self) -> None:
        """Time-outs: tasks without workers, silent workers, an idle cluster. A look that fails is not the last one."""
        active_at = watched_at = self._loop.time()
        watch: asyncio.Task[Any] | None = None
        seen = -1
        while self.status is Status.running:
            await asyncio.sleep(self._interval_s)
            now = self._loop.time()
            try:
                self._turns.tell(Tick())
                self._liveness.look(now)
                if self._stuck_after_s is not None and now - watched_at >= self._stuck_after_s / 4 and (watch is None or watch.done()):
                    watched_at = now
                    watch = self._background.spawn("watchdog", self._watchdog.look(now))
                statistics = self.transitions.statistics()
            except Exception:
                logger.exception("the scheduler's housekeeping failed, and goes on")
                continue
            counts = statistics["tasks"]
            busy = counts["waiting"] + counts["no-worker"] + counts["queued"] + counts["processing"] > 0
            if busy or statistics["transitions"] != seen:
                seen = statistics["transitions"]
                active_at = now
            elif self._idle_timeout_s is not None and now - active_at > self._idle_timeout_s:
                logger.info("nothing was computed for %.0f s: the scheduler closes", now - active_at)
                self._background.spawn("closing", self.close("idle timeout", for_good=True))
                return


def _refuse(asked: dict[str, bool]) -> None:
    names = [name for name, given in asked.items() if given]
    if names:
        raise NotImplementedError(f"treadle's Scheduler does not offer {', '.join(names)} yet; leave it out")
