"""The user's own executors (threads or processes), which tasks choose by name: ``dask.annotate(executor="gpu")``."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping
from time import time
from types import CoroutineType
from typing import Any

from treadle.context import current_task, current_worker
from treadle.messages.local import Execute
from treadle.utils.execution_record import record_of_process
from treadle.utils.turn import Turn
from treadle.worker.calling import FunctionTable, call, call_elsewhere, collect
from treadle.worker.data.store import Store
from treadle.worker.execution import Outcome, RunningTask, outcome_of_error, outcome_of_value


class NamedExecutors:
    """Executes tasks in ``executors``. The outcomes are those of ``ThreadPool``."""

    def __init__(
        self,
        executors: Mapping[str, concurrent.futures.Executor],
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[list[Outcome]], None],
        functions: FunctionTable,
        store: Store,
        worker: Any,
        *,
        max_error_length: int = 10_000,
    ) -> None:
        self._executors = executors
        self._add = Turn(loop, handle).add_from_thread
        self._loop = loop
        self._functions = functions
        self._store = store
        self._worker = worker
        self._max_error_length = max_error_length
        self._futures: dict[int, tuple[RunningTask, concurrent.futures.Future[Any]]] = {}

    @property
    def has_default(self) -> bool:
        """Whether one of the executors replaces the thread pool."""
        return "default" in self._executors

    def offer(self, spec: Execute, name: str) -> None:
        """Execute a task; called from the loop's thread. An unknown name or an executor that is shut down is the task's error."""
        start = time()
        try:
            executor = self._executors.get(name)
            if executor is None:
                known = ", ".join(sorted(self._executors)) or "none"
                raise ValueError(f"task {spec.key!r} asks for the executor {name!r}; worker {self._worker.name} has {known}")
            running = RunningTask(spec, None, start)
            if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
                body = self._functions.body(spec.function) if spec.function else None
                values = collect(spec.dependencies or [], self._store)
                buffers = [bytes(buffer) for buffer in spec.buffers or ()]
                future = executor.submit(call_elsewhere, body, spec.payload, buffers, values)
                future.add_done_callback(lambda done: self._came_back(running, done))
            else:
                future = executor.submit(self._execute, running)
        except BaseException as error:
            self._add(outcome_of_error(spec, error, start, self._max_error_length))
            return
        self._futures[spec.id] = (running, future)
        future.add_done_callback(lambda done: self._forget(spec.id, done))

    def take_back(self, id: int) -> bool:
        """Cancel a task. False if it has started already."""
        entry = self._futures.get(id)
        return entry is not None and entry[1].cancel()

    def running(self) -> list[RunningTask]:
        return [running for running, future in list(self._futures.values()) if future.running()]

    @property
    def queued(self) -> int:
        return sum(not (future.running() or future.done()) for _, future in list(self._futures.values()))

    def _forget(self, id: int, future: concurrent.futures.Future[Any]) -> None:
        entry = self._futures.get(id)
        if entry is not None and entry[1] is future:
            self._futures.pop(id, None)

    def _execute(self, running: RunningTask) -> None:
        """Execute a task. Called in a thread of the user's executor."""
        spec = running.spec
        running.start_time = start = time()
        current_worker.set(self._worker)
        current_task.set(running)
        record = record_of_process()
        slot = 0 if record is None else record.take_slot()
        if record is not None and slot:
            record.cells[slot + 1] = spec.attempt
            record.cells[slot] = spec.id
        try:
            value = call(spec, self._functions, self._store)
            if type(value) is CoroutineType:
                value.close()
                raise TypeError(f"task {spec.key!r} is a coroutine, which only the worker's own thread pool runs; name no executor")
            self._say(outcome_of_value(spec, value, start, time()))
        except BaseException as error:
            self._say(outcome_of_error(spec, error, start, self._max_error_length))
        finally:
            if record is not None:
                record.give_back(slot)
            current_task.set(None)

    def _came_back(self, running: RunningTask, future: concurrent.futures.Future[Any]) -> None:
        """A task came back from another process. Called in a thread of the executor."""
        if future.cancelled():
            return
        spec = running.spec
        try:
            value = future.result()
            self._say(outcome_of_value(spec, value, running.start_time, time()))
        except BaseException as error:
            self._say(outcome_of_error(spec, error, running.start_time, self._max_error_length))

    def _say(self, outcome: Outcome) -> None:
        try:
            self._add(outcome)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
