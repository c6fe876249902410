"""What administrators ask for: functions run on servers, restarts. Collects the answers of many into one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from treadle.messages.base import FunctionRan, RunFunction, TaskError
from treadle.messages.client_scheduler import ClientRefused, ClientReply, Query, RanOn, Restart, RunOn
from treadle.messages.nanny import NannyRan, NannyRun, RestartWorker, WorkerRestarted
from treadle.messages.scheduler_local import Forget
from treadle.messages.worker_scheduler import CloseWorker, ExplainTask, TaskExplained, WorkerRan, WorkerRun
from treadle.scheduler import queries
from treadle.scheduler.liveness import Nannies
from treadle.scheduler.queries import find_worker
from treadle.scheduler.sessions import Sessions
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import WorkerState
from treadle.serialize.run import run_function

logger = logging.getLogger(__name__)

#: What clients are told of their keys when everything is restarted.
RESTART_REASON = "scheduler-restart"
#: For a worker to say what it knows of a task, seconds; one that does not answer is busy with code that lets nobody else run.
_EXPLAIN_S: Final = 5.0

A = TypeVar("A")


class Admin:
    """Requests that several parties answer. ``tell`` hands local events to the core; ``scheduler`` is what users' functions get."""

    def __init__(self, core: Transitions, sessions: Sessions, nannies: Nannies, tell: Callable[[Any], None], scheduler: Any) -> None:
        self._core = core
        self._sessions = sessions
        self._nannies = nannies
        self._tell = tell
        self._scheduler = scheduler
        self._next_request = 1
        #: Requests under way, by the session that was asked and the number that it answers with: the kind of the answer.
        self._waiting: dict[int, dict[int, tuple[type, asyncio.Future[Any]]]] = {}

    # -------------------------------------------------------------------------------- requests to one party

    def _ask(self, number: int, make: Callable[[int], Any], kind: type[A]) -> asyncio.Future[A]:
        """Send ``make(request)`` to that session; the future has its answer, a ``kind``, or ConnectionError when it goes away first."""
        request = self._next_request
        self._next_request += 1
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(number, {})[request] = (kind, future)
        if not self._sessions.send(number, [make(request)], []):
            self._take(number, request)
            future.set_exception(ConnectionError("the party has gone away, or what it was to be asked cannot be sent"))
        return future

    def answered(self, number: int, answer: Any) -> None:
        """That session says something that has a ``request``. What it was not asked is nobody's answer."""
        request: int = answer.request
        waiting = self._waiting.get(number, {}).get(request)
        if waiting is None or type(answer) is not waiting[0]:
            return
        self._take(number, request)
        if not waiting[1].done():
            waiting[1].set_result(answer)

    def _take(self, number: int, request: int) -> None:
        """That request is not waited for any more."""
        waiting = self._waiting[number]
        del waiting[request]
        if not waiting:
            del self._waiting[number]

    def lost_all(self) -> None:
        """All streams were cut."""
        for number in list(self._waiting):
            self.lost(number)

    def lost(self, number: int) -> None:
        """That session is gone, and answers no more."""
        for _kind, future in self._waiting.pop(number, {}).values():
            if not future.done():
                future.set_exception(ConnectionError("the party went away before it answered"))

    # ------------------------------------------------------------------------------------ functions to run

    async def run_on(self, client: int, order: RunOn) -> None:
        """Run a client's function where it says, and send the client all results."""
        try:
            targets = self._targets(order)
        except ValueError as error:
            self._sessions.send(client, [ClientRefused(order.request, "ValueError", str(error))], [])
            return
        if order.where == "scheduler":
            results = [(str(self._scheduler.address), await self._run_here(order))]
        else:
            kind = WorkerRun if order.where == "workers" else NannyRun

            def make(request: int) -> Any:
                return kind(request, order.payload, order.wait)

            if not order.wait:
                for number, _name in targets:
                    self._sessions.send(number, [make(0)], [])
                results = []
            else:
                ran = WorkerRan if order.where == "workers" else NannyRan
                futures = [self._ask(number, make, ran) for number, _name in targets]
                answers = await asyncio.gather(*futures, return_exceptions=True)
                results = [(name, _ran(answer, name)) for (_number, name), answer in zip(targets, answers, strict=True)]
        self._sessions.send(client, [RanOn(order.request, results)], [])

    def _targets(self, order: RunOn) -> list[tuple[int, str]]:
        """(session, name) of those who are to run it. Raises ValueError for a worker that is not there."""
        if order.where == "scheduler":
            return []
        if order.where not in ("workers", "nannies"):
            raise ValueError(f"functions run on workers, nannies or the scheduler, not on {order.where!r}")
        workers: list[WorkerState] = []
        if order.workers is None:
            workers = list(self._core.workers.values())
        else:
            for name in order.workers:
                workers.append(self.find(name))
        if order.where == "workers":
            return [(worker.number, worker.address) for worker in workers]
        found = []
        for worker in workers:
            number = self._nannies.numbers.get(worker.nanny or "")
            if number is None:
                raise ValueError(f"the worker {worker.address} has no nanny to run a function on")
            found.append((number, worker.address))
        return found

    async def _run_here(self, order: RunOn) -> FunctionRan:
        payload, error = await run_function(RunFunction(0, order.payload, order.wait), {"dask_scheduler": self._scheduler})
        return FunctionRan(0, payload, error)

    # -------------------------------------------------------------------------------------------- restart

    async def restart(self, client: int, order: Restart) -> None:
        """Forget all tasks, end all workers; those that somebody replaces come back: a nanny, or their cluster."""
        self._tell(Forget(RESTART_REASON))
        workers = list(self._core.workers.values())
        replaced = {worker.nanny for worker in workers if worker.nanny is not None and worker.nanny in self._nannies.numbers}
        old = {worker.number for worker in workers}
        asked = [
            self._ask(self._nannies.numbers[nanny], lambda request: RestartWorker(request, order.timeout_s), WorkerRestarted)
            for nanny in replaced
        ]
        names = set()
        for worker in workers:
            if worker.nanny not in replaced:
                self.close_worker(worker.number, "restart", restart=True)
                if worker.name in self._scheduler.replaced_names:
                    names.add(worker.name)
        try:
            async with asyncio.timeout(order.timeout_s):
                answers = await asyncio.gather(*asked, return_exceptions=True)
                failed = [str(answer) for answer in answers if isinstance(answer, BaseException)]
                failed += [answer.error for answer in answers if not isinstance(answer, BaseException) and answer.error]
                if failed:
                    raise TimeoutError(f"{len(failed)} of {len(workers)} workers did not restart: {failed[0]}")
                while order.wait_for_workers and not self._returned(replaced, names, old):
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            back = sum(worker.number not in old for worker in self._core.workers.values())
            text = str(error) or f"{back} of {len(replaced) + len(names)} workers came back within {order.timeout_s:g} s"
            self._sessions.send(client, [ClientRefused(order.request, "TimeoutError", text)], [])
            return
        self._sessions.send(client, [ClientReply(order.request, None)], [])

    def _returned(self, nannies: set[str], names: set[str], old: set[int]) -> bool:
        """Whether each of these nannies has a new worker, each of these names is there again, and the old ones are gone."""
        workers = self._core.workers.values()
        if any(worker.number in old for worker in workers):
            return False
        return names <= {worker.name for worker in workers} and nannies <= {worker.nanny for worker in workers if worker.nanny is not None}

    async def ask_worker(self, worker: WorkerState, id: int) -> TaskExplained:
        """What the worker knows of a task. Raises ConnectionError when the worker goes away before it answers."""
        return await self._ask(worker.number, lambda request: ExplainTask(request, id), TaskExplained)

    async def explain(self, query: Query) -> dict[str, Any]:
        """The answer to "why": see ``treadle.scheduler.explaining``, and what the worker says that was given the task: ``at_worker``
        (sentences) and ``executing_s``. Raises ValueError, TypeError."""
        found: dict[str, Any] = queries.answer(self._core, query.subject, query.options)
        found["at_worker"], found["executing_s"] = [], None
        worker = self._core.workers.get(found["worker"] or "")
        if worker is None:
            return found
        try:
            async with asyncio.timeout(_EXPLAIN_S):
                said = await self.ask_worker(worker, found["id"])
        except TimeoutError:
            found["at_worker"] = [f"nothing, within {_EXPLAIN_S:g} s: something holds its interpreter, or it is stopped"]
        except ConnectionError as error:
            found["at_worker"] = [f"nothing: {error}"]
        else:
            reasons = found["at_worker"] = list(said.reasons)
            found["executing_s"] = said.executing_s
            if said.attempt not in (found["attempt"], None):
                reasons.append(
                    f"it has attempt {said.attempt}, the scheduler's is {found['attempt']}: one of the two is about to hear of a change"
                )
        return found

    def find(self, name: Any) -> WorkerState:
        """Raises ValueError that names those that there are."""
        worker = find_worker(self._core, str(name))
        if worker is None:
            known = ", ".join(self._core.workers) or "none at all"
            raise ValueError(f"there is no worker {name!r}; there are {known}")
        return worker

    async def restart_workers(self, workers: list[str], timeout_s: float, raise_for_error: bool = True) -> dict[str, str]:
        """End these workers' processes and start others: ``"OK"``, ``"removed"`` or ``"timed out"`` for each name that was given."""
        chosen = {name: self.find(name) for name in workers}
        for name, worker in chosen.items():
            if not self.is_replaced(worker):
                raise ValueError(f"the worker {name!r} has no nanny that could restart it")
        outcomes = await asyncio.gather(*(self.restart_worker(worker, timeout_s) for worker in chosen.values()))
        results = dict(zip(chosen, outcomes, strict=True))
        late = [name for name, outcome in results.items() if outcome == "timed out"]
        if late and raise_for_error:
            raise TimeoutError(f"{len(late)} of {len(results)} workers did not restart within {timeout_s:g} s: {', '.join(late)}")
        return results

    def is_replaced(self, worker: WorkerState) -> bool:
        """Whether there will be another one when it is told to restart."""
        return self._has_nanny(worker) or worker.name in self._scheduler.replaced_names

    def _has_nanny(self, worker: WorkerState) -> bool:
        return worker.nanny is not None and worker.nanny in self._nannies.numbers

    async def restart_worker(self, worker: WorkerState, timeout_s: float) -> str:
        """Have its nanny end its process and start another: ``"OK"``, ``"removed"`` when both are gone, or ``"timed out"``.

        A worker without a nanny is ended, and its cluster starts another one of its name.
        """
        try:
            async with asyncio.timeout(timeout_s):
                if not self._has_nanny(worker):
                    self.close_worker(worker.number, "restart", restart=True)
                    while self._core.state.by_name.get(worker.name) in (None, worker):
                        await asyncio.sleep(0.02)
                    return "OK"
                number = self._nannies.numbers[worker.nanny or ""]
                answer = await self._ask(number, lambda request: RestartWorker(request, timeout_s), WorkerRestarted)
                if answer.error:
                    logger.warning("worker %s was not restarted: %s", worker.address, answer.error)
                    return "timed out"
                while not any(new is not worker for new in self._core.state.by_nanny.get(worker.nanny or "", ())):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return "timed out"
        except ConnectionError:
            return "removed"
        return "OK"

    def close_worker(self, number: int, reason: str, restart: bool = False) -> None:
        """Tell a worker to stop; its end is not held against its tasks. ``restart``: its nanny shall start another one."""
        session = self._sessions.by_number.get(number)
        if session is not None:
            session.leaving = True
            self._sessions.send(number, [CloseWorker(reason, restart)], [])


def _ran(answer: Any, name: str) -> FunctionRan:
    """What a party answered, or what became of it."""
    if isinstance(answer, FunctionRan):
        return FunctionRan(0, answer.payload, answer.error)
    return FunctionRan(0, b"", TaskError(b"", b"", f"CommClosedError: {name}: {answer}", ""))
