"""The turn of a worker: hand the events that arrived to the core, and carry out what it decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import Final

from treadle.messages.base import Message
from treadle.messages.local import Execute, ExecutionsDone, ExecutionsStarted, StoreFailed, TakeBackDone, Tick
from treadle.messages.worker_scheduler import TaskErred, TasksFinished
from treadle.serialize.errors import dump_error
from treadle.worker.data.store import Store
from treadle.worker.execution import Exited, Outcome, RunningTask, ThreadPool
from treadle.worker.named_executors import NamedExecutors
from treadle.worker.transfer import Fetcher
from treadle.worker.transitions.machine import WorkerTransitions
from treadle.worker.transitions.outbox import WorkerOutbox

#: A task that executes longer than this is reported as started.
STARTED_AFTER_S: Final = 0.02
#: Small values go with the report of their tasks, unless they have more bytes than this together.
RIDING_BYTES: Final = 16 * 2**20


class Performer:
    """Runs the core and performs its instructions.

    ``send`` takes messages for the scheduler. ``broken`` is called when the core cannot go on, ``exited`` when a task wants the
    process to end. ``connect`` must be called before the first event, with the parts that carry out the instructions.
    """

    def __init__(
        self,
        core: WorkerTransitions,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        send: Callable[[Sequence[Message]], None],
        broken: Callable[[Exception], None],
        exited: Callable[[Exited], None],
        max_error_length: int,
    ) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._send = send
        self._broken = broken
        self._exited = exited
        self._max_error_length = max_error_length
        self._pool: ThreadPool
        self._named: NamedExecutors
        self._fetcher: Fetcher
        self._events: list[object] = []
        self._handling = False
        #: Pickles of small values that go with the reports of this turn, by id.
        self._riding: dict[int, bytes] = {}
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._started_timer: asyncio.TimerHandle | None = None

    def connect(self, pool: ThreadPool, named: NamedExecutors, fetcher: Fetcher) -> None:
        self._pool = pool
        self._named = named
        self._fetcher = fetcher

    def close(self) -> None:
        """Handle no more events and perform no more instructions."""
        self._closed = True
        for timer in (self._timer, self._started_timer):
            if timer is not None:
                timer.cancel()

    def running(self) -> list[RunningTask]:
        """The tasks that are executing now."""
        return self._pool.running() + self._named.running()

    @property
    def queued(self) -> int:
        """How many tasks the executors have not started."""
        return self._pool.queued + self._named.queued

    # ---------------------------------------------------------------------------------------- events

    def deliver(self, event: object) -> None:
        self.handle([event])

    def outcomes(self, outcomes: list[Outcome]) -> None:
        """Handle the outcomes that have come from the executors since the last call."""
        rows = [outcome for outcome in outcomes if type(outcome) is tuple]
        events: list[object] = []
        if rows:
            ids, values, nbytes, types, starts, stops, pickles = zip(*rows, strict=True)
            if any(pickles):
                self._riding.update(zip(ids, pickles, strict=True))
            events.append(ExecutionsDone(list(ids), list(values), list(nbytes), list(types), list(starts), list(stops)))
        if len(rows) != len(outcomes):
            for outcome in outcomes:
                if type(outcome) is Exited:
                    self._exited(outcome)
                elif type(outcome) is not tuple:
                    events.append(outcome)
        self.handle(events)

    def handle(self, events: list[object]) -> None:
        """Let the core decide, and perform its instructions. Calls do not nest: events that arrive meanwhile are handled next."""
        if self._closed:
            return
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events and not self._closed:
                events, self._events = self._events, []
                self._perform(self._core.handle(events, self._loop.time()))
                self._riding.clear()
        except Exception as error:
            # The turn was done in part, so the state can no longer be trusted, whatever the error is.
            self._broken(error)
        finally:
            self._handling = False

    # ----------------------------------------------------------------------------------- instructions

    def _perform(self, out: WorkerOutbox) -> None:
        if out.drop:
            self._store.drop_all(out.drop)
        if out.store and not self._store.put_all(out.store.values()):
            self._keep_one_by_one(out)
        messages = out.messages()
        if self._riding:
            self._let_ride(messages)
        if messages:
            self._send(messages)
        if out.paused:
            self._pool.pause()
        elif out.resumed:
            self._pool.resume()
        if out.execute:
            self._execute(out.execute)
        if out.take_back:
            done = TakeBackDone([], [])
            for id in out.take_back:
                taken = self._pool.take_back(id) or self._named.take_back(id)
                (done.taken if taken else done.kept).append(id)
            # The core counts on this event before any other.
            self._events.insert(0, done)
        # First, because a peer that left may be back in the same turn, under another number or the same.
        for address in out.closed_peers:
            self._fetcher.forget(address)
        for fetch in out.fetch:
            self._fetcher.fetch(fetch)
        if out.wake_at and (self._timer is None or self._timer.when() > out.wake_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(out.wake_at, self._tick)

    def _let_ride(self, messages: Sequence[Message]) -> None:
        riding = self._riding
        for message in messages:
            if type(message) is TasksFinished:
                message.values = [riding.get(id, b"") for id in message.ids]
                if sum(map(len, message.values)) > RIDING_BYTES:
                    # Clients can fetch the values from the worker.
                    message.values = None

    def _keep_one_by_one(self, out: WorkerOutbox) -> None:
        """Store values one by one, because the user's mapping may refuse some."""
        refused: list[TaskErred] = []
        for id, (key, value) in out.store.items():
            try:
                self._store.put(key, value)
            except Exception as error:
                row = out.withdraw_finished(id)
                if row is None:
                    self._store.put_anyway(key, value, error)
                else:
                    attempt, start, stop = row
                    refused.append(TaskErred(id, attempt, dump_error(error, self._max_error_length), start, stop))
        if refused:
            self._events.insert(0, StoreFailed(refused))

    def _tick(self) -> None:
        self._timer = None
        self.handle([Tick()])

    def _execute(self, specs: list[Execute]) -> None:
        named = self._named
        if named.has_default:
            own: list[Execute] = []
            others = specs
        else:
            own = [spec for spec in specs if spec.executor is None or spec.executor == "default"]
            others = [] if len(own) == len(specs) else [spec for spec in specs if spec.executor not in (None, "default")]
        if own:
            self._pool.offer(own)
        for spec in others:
            named.offer(spec, spec.executor or "default")
        if self._started_timer is None:
            self._started_timer = self._loop.call_later(STARTED_AFTER_S, self._report_started)

    def report_running(self) -> None:
        """Report all tasks that are executing as started, even those that began just now."""
        fresh = [running for running in self.running() if not running.reported]
        for running in fresh:
            running.reported = True
        if fresh:
            self.handle([ExecutionsStarted([running.id for running in fresh])])

    def _report_started(self) -> None:
        """Report tasks that have been executing for a moment. One timer serves all tasks; it runs as long as tasks may start."""
        self._started_timer = None
        fresh: list[int] = []
        again = self.queued > 0
        now = time()
        for running in self.running():
            if running.reported:
                continue
            if now - running.start_time < STARTED_AFTER_S:
                again = True
                continue
            running.reported = True
            fresh.append(running.id)
        if fresh:
            self.handle([ExecutionsStarted(fresh)])
        if again and self._started_timer is None and not self._closed:
            self._started_timer = self._loop.call_later(STARTED_AFTER_S, self._report_started)
