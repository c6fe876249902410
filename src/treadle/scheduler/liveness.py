"""Which workers are alive: what their nannies say, and who was silent for too long. Tells the core of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Callable

from treadle.messages.nanny import NannyHeartbeat, WorkerDied
from treadle.messages.scheduler_local import WorkerDeath
from treadle.scheduler.sessions import Sessions
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.records import WorkerState

logger = logging.getLogger(__name__)


class Nannies:
    """The supervisors that have registered, by the id that their workers name."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.by_number: dict[int, str] = {}
        #: Process that the nanny has last seen alive and running code, and when.
        self.vouched: dict[str, tuple[int, float]] = {}

    def add(self, id: str, name: str, number: int) -> None:
        self.numbers[id] = number
        self.names[id] = name
        self.by_number[number] = id

    def clear(self) -> None:
        """All streams were cut: those who are here register again."""
        self.numbers.clear()
        self.names.clear()
        self.by_number.clear()
        self.vouched.clear()

    def remove(self, number: int) -> None:
        id = self.by_number.pop(number, None)
        if id is not None and self.numbers.get(id) == number:
            del self.numbers[id]
            del self.names[id]
            self.vouched.pop(id, None)


class Liveness:
    """``handle`` takes events for the core. ``worker_ttl_s``: how long a worker without a nanny that vouches for it may be silent."""

    def __init__(
        self,
        core: Transitions,
        sessions: Sessions,
        nannies: Nannies,
        handle: Callable[[list[Event]], None],
        worker_ttl_s: float | None,
    ) -> None:
        self._core = core
        self._sessions = sessions
        self._nannies = nannies
        self._handle = handle
        self._worker_ttl_s = worker_ttl_s

    def process_ended(self, number: int, message: WorkerDied) -> None:
        """The nanny with that session number has seen the end of its worker process."""
        id = self._nannies.by_number.get(number)
        for worker in self._core.state.by_nanny.get(id or "", {}):
            if worker.pid == message.pid:
                break
        else:
            return  # it had said goodbye, or never came
        death = WorkerDeath(
            exitcode=message.exitcode,
            exact=True,
            executing=message.executing,
            attempts=message.attempts,
            planned=message.planned,
            out_of_memory=message.out_of_memory,
            died_at=message.died_at,
            reason=message.reason,
            stderr=message.stderr,
        )
        if not message.planned:
            logger.warning(
                "the process %d of worker %s ended with exit code %d%s while it executed %d tasks%s",
                message.pid,
                worker.address,
                message.exitcode,
                " (out of memory)" if message.out_of_memory else "",
                len(message.executing),
                f"; {message.reason}" if message.reason else "",
            )
        self._bury(worker, death)

    def nanny_beat(self, number: int, message: NannyHeartbeat, now: float) -> None:
        id = self._nannies.by_number.get(number)
        if id is not None and message.metrics.get("alive"):
            self._nannies.vouched[id] = (int(message.metrics.get("pid", 0)), now)

    def look(self, now: float) -> None:
        """Give up workers that were silent for too long. One that is busy, and cannot even say so, has a nanny that does."""
        limit_s = self._worker_ttl_s
        if limit_s is None:
            return
        for worker in list(self._core.workers.values()):
            session = self._sessions.by_number.get(worker.number)
            if session is None or now - session.last_heard_s <= limit_s:
                continue
            pid, seen = self._nannies.vouched.get(worker.nanny or "", (0, 0.0))
            if pid == worker.pid and now - seen <= limit_s:
                continue
            silent_s = now - session.last_heard_s
            logger.warning("worker %s was silent for %.3g s and is taken for dead", worker.address, silent_s)
            self._bury(worker, WorkerDeath(reason=f"it was silent for {silent_s:.3g} s"))

    def _bury(self, worker: WorkerState, death: WorkerDeath) -> None:
        session = self._sessions.by_number.get(worker.number)
        self._handle([Event(worker.number, death)])
        if session is not None:
            session.leaving = True
            session.comm.abort()
