"""The thread pool of a worker, and what a task can do in it: secede, rejoin, get_worker.

Each thread takes its next task from a sorted queue, and one wake-up of the event loop brings the outcomes of all threads.
The cost per task matters here: no future, closure, dict or log line is made for a task.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic, time
from types import CoroutineType
from typing import Any, Final, NoReturn, TypeAlias

from treadle.context import current_task, current_worker
from treadle.exceptions import Reschedule
from treadle.messages.local import Execute, ExecutionFailed, ExecutionRescheduled, ExecutionsSeceded, ExecutionUnready
from treadle.serialize.errors import dump_error
from treadle.serialize.sizes import sizeof, type_name
from treadle.serialize.values import dumps_small
from treadle.utils.background import start_thread
from treadle.utils.execution_record import record_of_process
from treadle.utils.turn import Turn
from treadle.worker.calling import DependencyGone, FunctionTable, call
from treadle.worker.data.store import Store

#: Of a task that returned: (id, value, nbytes, type name, start, stop, the value's pickle if it is to go with the report). Or an event,
#: or ``Exited``.
Outcome: TypeAlias = object
#: (priority, serial number, specification).
Row: TypeAlias = tuple[tuple[float, float, int], int, Execute]

#: Fewer rows than this are inserted into the queue one by one.
_FEW: Final = 16
#: After this many rows were taken, their memory in the queue is freed.
_MANY: Final = 1000


class Exited:
    """A task raised SystemExit or KeyboardInterrupt: the worker is to end."""

    def __init__(self, spec: Execute, error: BaseException) -> None:
        self.spec = spec
        self.error = error


class RunningTask:
    """The task that the calling thread or coroutine executes; see ``treadle.context.current_task``."""

    __slots__ = ("place", "reported", "spec", "start_time")

    def __init__(self, spec: Execute, place: Place | None, start_time: float) -> None:
        self.spec = spec
        #: The thread of the worker's pool that executes the task; None in another executor.
        self.place = place
        #: In seconds since the epoch.
        self.start_time = start_time
        #: Whether the task was reported to the scheduler as executing.
        self.reported = False

    @property
    def key(self) -> Any:
        return self.spec.key

    @property
    def id(self) -> int:
        return self.spec.id

    @property
    def attempt(self) -> int:
        return self.spec.attempt

    @property
    def priority(self) -> tuple[float, float, int]:
        return self.spec.priority

    def secede(self) -> None:
        """Leave the thread pool: another thread takes the place in it, and the task goes on beside it. Idempotent."""
        self._place().pool.secede(self)

    def rejoin(self) -> None:
        """Come back into the thread pool when one of its threads has finished a task. Blocks until then. Idempotent."""
        self._place().pool.rejoin(self)

    def _place(self) -> Place:
        if self.place is None:
            raise ValueError(f"the task {self.key!r} runs in the executor {self.spec.executor!r}; only the worker's own pool can be left")
        return self.place


class Place:
    """A thread of the pool, or one that has left it with its task."""

    __slots__ = ("in_pool", "pool", "rejoined", "running", "thread")

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.running: RunningTask | None = None
        #: Whether the thread counts as one of the pool's. If it does not, it ends with its task.
        self.in_pool = True
        self.rejoined = threading.Event()
        self.thread: threading.Thread


class ThreadPool:
    """Executes specifications by priority.

    ``handle`` is called on the loop with the outcomes since its last call. ``get_worker`` returns ``worker`` in tasks.
    """

    def __init__(
        self,
        nthreads: int,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[list[Outcome]], None],
        functions: FunctionTable,
        store: Store,
        worker: Any,
        *,
        name: str = "worker",
        max_error_length: int = 10_000,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.nthreads = nthreads
        #: Called on the loop with the exception that ended a thread unexpectedly.
        self._failed = failed
        self._loop = loop
        self._add = Turn(loop, handle).add_from_thread
        self._functions = functions
        self._store = store
        self._worker = worker
        #: Where threads write what they execute; the nanny reads it when the process has died.
        self._record = record_of_process()
        self._name = name
        self._max_error_length = max_error_length
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        # Everything below is guarded by the lock.
        #: Ascending from ``_head`` on. May hold stale rows of tasks that were taken back, even if they were offered again.
        self._queue: list[Row] = []
        self._head = 0
        #: How many rows were ever queued. The number distinguishes a task's row from its stale row of an earlier offer.
        self._serial = 0
        #: Tasks that have not started, by id.
        self._queued: dict[int, Execute] = {}
        #: All threads by number, including those of tasks that seceded.
        self._places: dict[int, Place] = {}
        self._in_pool = 0
        #: Threads that are waiting and were not woken up.
        self._idle = 0
        self._count = 0
        self._rejoining: deque[Place] = deque()
        self._paused = False
        self._closed = False
        self._coroutines: dict[asyncio.Task[Any], None] = {}

    # ---------------------------------------------------------------------------------- from the loop's thread

    def offer(self, specs: Sequence[Execute]) -> None:
        """Queue tasks; free threads take them."""
        with self._lock:
            queued = self._queued
            serial = self._serial
            rows: list[Row] = []
            for spec in specs:
                queued[spec.id] = spec
                serial += 1
                rows.append((spec.priority, serial, spec))
            self._serial = serial
            self._enqueue(rows)
            if not self._paused and not self._closed:
                self._wake(len(specs))

    def take_back(self, id: int) -> bool:
        """Remove a task from the queue. False if it has started already."""
        with self._lock:
            return self._queued.pop(id, None) is not None

    def pause(self) -> None:
        """Start no task until ``resume``."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        with self._lock:
            self._paused = False
            self._wake(len(self._queued))

    def running(self) -> list[RunningTask]:
        """The tasks that are executing, including seceded ones."""
        with self._lock:
            return [place.running for place in self._places.values() if place.running is not None]

    @property
    def queued(self) -> int:
        return len(self._queued)

    async def close(self, wait_s: float) -> bool:
        """Start no more tasks, and wait up to ``wait_s`` seconds for those that execute. Whether all threads have ended."""
        with self._lock:
            self._closed = True
            self._queued.clear()
            self._queue.clear()
            self._head = 0
            self._idle = 0
            self._condition.notify_all()
            for place in self._rejoining:
                place.rejoined.set()
            threads = [place.thread for place in self._places.values()]
        for task in list(self._coroutines):
            task.cancel()
        deadline = monotonic() + wait_s
        while threads and monotonic() < deadline:
            threads = [thread for thread in threads if thread.is_alive()]
            if threads:
                await asyncio.sleep(0.005)
        return not threads

    def _enqueue(self, rows: list[Row]) -> None:
        """Rows mostly arrive in order and are appended: then a sorted list costs a quarter of a heap."""
        rows.sort()
        queue = self._queue
        if self._head == len(queue):
            self._queue, self._head = rows, 0
        elif queue[-1] < rows[0]:
            queue += rows
        elif len(rows) < _FEW:
            for row in rows:
                insort(queue, row, self._head)
        else:
            self._queue, self._head = sorted(queue[self._head :] + rows), 0

    def _dequeue(self) -> Execute | None:
        """The most urgent task that was not taken back; None if there is none."""
        queue, queued = self._queue, self._queued
        while self._head < len(queue):
            row = queue[self._head]
            self._head += 1
            if self._head > _MANY:
                # Frees the rows that were taken from time to time, at a small cost for each.
                del queue[: self._head]
                self._head = 0
            spec = row[2]
            if queued.get(spec.id) is spec:
                del queued[spec.id]
                return spec
        self._queue, self._head = [], 0
        return None

    def _wake(self, count: int) -> None:
        """Wake or start up to ``count`` threads. To be called with the lock held."""
        if self._idle:
            woken = min(count, self._idle)
            self._condition.notify(woken)
            # Threads count as busy from now on, before they wake up, so that tasks offered meanwhile wake other threads.
            self._idle -= woken
            count -= woken
        while count > 0 and self._in_pool < self.nthreads:
            self._start_thread()
            count -= 1

    def _start_thread(self) -> None:
        place = Place(self)
        self._count += 1
        self._in_pool += 1
        self._places[self._count] = place
        name = f"{self._name}-{self._count}"
        place.thread = start_thread(name, partial(self._work, place, self._count), self._thread_failed)

    def _thread_failed(self, name: str, error: BaseException) -> None:
        if self._failed is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._failed, error)

    # ------------------------------------------------------------------------------------- in the threads

    def _work(self, place: Place, number: int) -> None:
        """The body of a thread."""
        current_worker.set(self._worker)
        record = self._record
        slot = 0 if record is None else record.take_slot()
        cells = None if record is None or slot == 0 else record.cells
        try:
            while True:
                spec = self._next(place)
                if spec is None:
                    return
                running = RunningTask(spec, place, time())
                place.running = running
                current_task.set(running)
                if cells is not None:
                    cells[slot + 1] = spec.attempt
                    cells[slot] = spec.id
                outcome = self._execute(spec, running)
                if cells is not None:
                    cells[slot] = 0
                place.running = None
                self._add(outcome)
                # A thread that waits for the next task must not keep the last task's value alive.
                del spec, running, outcome
        except RuntimeError:
            if not self._loop.is_closed():
                raise
        finally:
            if record is not None:
                record.give_back(slot)
            with self._lock:
                del self._places[number]
                if place.in_pool:
                    self._in_pool -= 1

    def _next(self, place: Place) -> Execute | None:
        """Wait for the most urgent task. None when the thread is to end."""
        with self._lock:
            while True:
                if self._closed or not place.in_pool:
                    return None
                if self._rejoining:
                    # A task wants to come back into the pool: this thread gives up its place.
                    other = self._rejoining.popleft()
                    other.in_pool = True
                    place.in_pool = False
                    other.rejoined.set()
                    return None
                if self._queued and not self._paused:
                    spec = self._dequeue()
                    if spec is not None:
                        return spec
                current_task.set(None)
                self._idle += 1
                self._condition.wait()

    def _execute(self, spec: Execute, running: RunningTask) -> Outcome:
        start = running.start_time
        try:
            value = call(spec, self._functions, self._store)
            if type(value) is CoroutineType:
                value = self._await(value)
            stop = time()
            return outcome_of_value(spec, value, start, stop)
        except BaseException as error:
            return outcome_of_error(spec, error, start, self._max_error_length)

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the coroutine of a task on the loop, in this thread's context, while the thread waits and counts as executing."""
        future = asyncio.run_coroutine_threadsafe(self._guarded(coroutine), self._loop)
        value, error = future.result()
        if error is not None:
            raise error
        return value

    async def _guarded(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
        """Await a task's coroutine and return its exception, because some exceptions would end the loop if they were raised in it."""
        task = asyncio.current_task()
        assert task is not None
        self._coroutines[task] = None
        try:
            return await coroutine, None
        except BaseException as error:
            return None, error
        finally:
            del self._coroutines[task]

    # ------------------------------------------------------------------------------------ leaving the pool

    def secede(self, running: RunningTask) -> None:
        place = running.place
        assert place is not None
        with self._lock:
            if place.running is not running or not place.in_pool or self._closed:
                return
            place.in_pool = False
            self._in_pool -= 1
            if self._queued and not self._paused and not self._idle:
                self._start_thread()
        self._add(ExecutionsSeceded([running.id]))

    def rejoin(self, running: RunningTask) -> None:
        place = running.place
        assert place is not None
        if threading.get_ident() != place.thread.ident:
            raise RuntimeError("rejoin() blocks, so a coroutine cannot call it; call it in a task that is a plain function")
        with self._lock:
            if place.running is not running or place.in_pool or self._closed:
                return
            if self._in_pool < self.nthreads:
                place.in_pool = True
                self._in_pool += 1
                return
            place.rejoined.clear()
            self._rejoining.append(place)
            if self._idle:
                self._condition.notify()
                self._idle -= 1
        place.rejoined.wait()


def outcome_of_value(spec: Execute, value: Any, start: float, stop: float) -> Outcome:
    """The outcome of a task that returned."""
    nbytes = sizeof(value)
    return (spec.id, value, nbytes, type_name(value), start, stop, dumps_small(value, nbytes) if spec.eager else b"")


def outcome_of_error(spec: Execute, error: BaseException, start: float, max_error_length: int) -> Outcome:
    """The outcome of a task that raised."""
    if isinstance(error, Reschedule):
        return ExecutionRescheduled(spec.id)
    if isinstance(error, DependencyGone):
        return ExecutionUnready(spec.id)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return Exited(spec, error)
    return ExecutionFailed(spec.id, dump_error(error, max_error_length), start, time())


# ---------------------------------------------------------------------------------------- for use in tasks


def get_worker() -> Any:
    """The worker that runs the current task. Raises ValueError outside of a task."""
    worker = current_worker.get()
    if worker is None:
        raise ValueError("No worker found: call get_worker() inside of tasks, in a thread of a worker")
    return worker


def secede(adjust: bool = True) -> None:
    """Have the current task leave the worker's thread pool, so that another one can run beside it.

    ``adjust=False`` (leave the place empty) raises NotImplementedError. Raises ValueError outside of a task.
    """
    if not adjust:
        raise NotImplementedError("secede(adjust=False) is not available: another thread always takes the place; leave adjust out")
    task = current_task.get()
    if task is None:
        _no_task("secede")
    task.secede()


def rejoin() -> None:
    """Have the current task come back into the thread pool; blocks until there is a place. Raises ValueError outside of a task."""
    task = current_task.get()
    if task is None:
        _no_task("rejoin")
    task.rejoin()


def _no_task(name: str) -> NoReturn:
    raise ValueError(f"{name}() works only inside of tasks, in a thread of a worker")
