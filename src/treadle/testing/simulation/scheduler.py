"""One incarnation of a simulated scheduler: the real core, sessions, turns and journal, without sockets, threads and clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from treadle.comm.interface import Role
from treadle.messages.codec import (
    decode_client_to_scheduler,
    decode_scheduler_to_client,
    decode_scheduler_to_worker,
    decode_worker_to_scheduler,
)
from treadle.messages.nanny import WorkerDied
from treadle.messages.scheduler_local import Retire, Tick
from treadle.messages.worker_scheduler import CloseWorker
from treadle.scheduler.failures import CoreFailure
from treadle.scheduler.liveness import Liveness, Nannies
from treadle.scheduler.policies.retirement import Retirement
from treadle.scheduler.policies.steps import LOOK_S, is_here
from treadle.scheduler.sessions import Arrival, Session, Sessions
from treadle.scheduler.transitions.machine import Transitions
from treadle.scheduler.transitions.records import WorkerState
from treadle.scheduler.transitions.state import Limits
from treadle.scheduler.turns import Turns
from treadle.testing.simulation.disk import Disk, SimulatedDirectory, SimulatedJournal, SimulatedWriter
from treadle.testing.simulation.network import Connection, SimulatedLoop, World, _SchedulersEnd

TICK_S = 0.5


class SimulatedScheduler:
    """``disk``: it has a journal there. ``validate_every``: turns between two looks at all invariants; 0: never.

    Raises JournalError when the journal cannot be used.
    """

    def __init__(
        self,
        world: World,
        limits: Limits,
        incarnation: int,
        first_attempt: int,
        disk: Disk | None,
        compact_from_bytes: int,
        validate_every: int,
        ticking: Callable[[], bool],
    ) -> None:
        self.world = world
        self.incarnation = incarnation
        self.loop = SimulatedLoop(world)
        self.core = Transitions(limits, f"incarnation {incarnation}", first_attempt)
        self._validate_every = validate_every
        self._turns_taken = 0
        #: Numbers of workers whose nannies have said that they died: what they had sent may come behind that.
        self._dead: set[int] = set()
        self._ticking = ticking
        self._clock_offset_s = 0.0
        self.sessions = Sessions(self.loop.as_loop(), self._on_turn, incarnation)
        self.turns = Turns(
            self.core,
            self.sessions,
            self._now,
            on_message=self._on_message,
            on_ended=self._on_ended,
            on_close=self._close_session,
            on_failure=self._on_failure,
        )
        self._nannies = Nannies()
        self._liveness = Liveness(self.core, self.sessions, self._nannies, self.turns.handle, None)
        self.journal: SimulatedJournal | None = None
        if disk is not None:
            self.journal = SimulatedJournal(
                SimulatedDirectory(disk),
                self.core,
                self.sessions,
                self.loop.as_loop(),
                compact_from_bytes=compact_from_bytes,
                tell=self.turns.tell,
                writer=SimulatedWriter,
            )
            if self.journal.recovery.records:
                self._clock_offset_s = self.core.state.now - self.loop.time()
            self.turns.journal = self.journal
        self._series = 0
        self._tick(0)

    def _now(self) -> float:
        return self.loop.time() + self._clock_offset_s

    def accept(self, connection: Connection) -> None:
        self.sessions.accept(connection.comm)

    def kill(self, chance: Random) -> None:
        """At once: nothing that it was about to do is done; what it has sent may arrive."""
        self.loop.stopped = True
        if self.journal is not None:
            self.journal.kill()
        for session in self.sessions.by_number.values():
            assert isinstance(session.comm, _SchedulersEnd)
            session.comm.vanish(chance)

    # ------------------------------------------------------------------------------------------------- a turn

    def _on_turn(self, arrivals: list[Arrival]) -> None:
        if self.world.logging:
            for arrival in arrivals:
                self._note_arrival(arrival)
        self._turns_taken += 1
        self.core.state.limits.validate = self._validate_every > 0 and self._turns_taken % self._validate_every == 0
        self.turns.take(arrivals)

    def _note_arrival(self, arrival: Arrival) -> None:
        session = arrival.session
        name = f"{session.comm.peer_address[6:]} ({session.number})"
        if not self.sessions.is_current(session):
            return
        if arrival.body is None:
            self.world.note(f"{name} -> scheduler: the stream has ended")
            return
        decode: Any = decode_worker_to_scheduler if session.role is Role.WORKER else decode_client_to_scheduler
        for message in decode(arrival.body):
            self.world.note(f"{name} -> scheduler: {in_short(message)}")

    def _on_message(self, session: Session, message: Any) -> None:
        raise AssertionError(f"nobody sends {message} in simulations")

    def _on_ended(self, number: int) -> None:
        return

    def _on_failure(self, failure: CoreFailure) -> None:
        # The error that is being handled.
        raise

    def _close_session(self, number: int, reason: str) -> None:
        session = self.sessions.by_number[number]
        self.world.note(f"the scheduler closes {session.comm.peer_address[6:]}: {reason}")
        expected = reason in ("refused", "the client left", "retired") or number in self._dead
        assert expected, f"{session.comm.peer_address} was closed: {reason}"
        session.leaving = True
        session.comm.abort()

    def _tick(self, series: int) -> None:
        """There is one series of ticks at a time."""
        if not self.loop.stopped and series == self._series and self._ticking():
            self.turns.tell(Tick())
            self.world.timer(TICK_S, lambda: self._tick(series))

    # ------------------------------------------------------------------------------------- what else happens

    def tell(self, message: Any) -> None:
        """A local event."""
        self.turns.tell(message)

    def nanny_says(self, name: str, died: WorkerDied) -> None:
        """The nanny of that name has seen the end of its process."""
        number = next((number for number, id in self._nannies.by_number.items() if id == name), 0)
        if not number:
            number = -1 - len(self._nannies.by_number)
            self._nannies.add(name, name, number)
        self._dead.update([worker.number for worker in self.core.state.workers.values() if worker.nanny == name])
        self._liveness.process_ended(number, died)

    def tick(self) -> None:
        """Look at the clock, now and until nobody asks for it any more."""
        self._series += 1
        self._tick(self._series)

    def retire(self, numbers: list[int]) -> None:
        """Empty these workers, by the product's own steps, and close them. One that cannot be emptied stays."""
        state = self.core.state
        leaving = [state.by_number[number] for number in numbers if number in state.by_number]
        self.tell(Retire([worker.number for worker in leaving]))
        retirement = Retirement(state, leaving, None, self.loop.time())

        def step() -> None:
            if self.loop.stopped:
                return
            for order in retirement.step(self.loop.time()):
                self.tell(order)
            if not retirement.done:
                self.world.later(LOOK_S, step)
                return
            self.tell(Retire([worker.number for worker in retirement.kept], retiring=False))
            close([worker for worker in leaving if worker not in retirement.kept], 100)

        def close(workers: list[WorkerState], times: int) -> None:
            here = [worker for worker in workers if is_here(state, worker)]
            if self.loop.stopped or not here:
                return
            for worker in here:
                session = self.sessions.by_number.get(worker.number)
                if session is not None:
                    session.leaving = True
                    self.sessions.send(worker.number, [CloseWorker("retired")], [])
            if times:
                # Again, because a connection that breaks may take the order with it.
                self.world.later(5 * LOOK_S, lambda: close(here, times - 1))
            else:
                self.tell(Retire([worker.number for worker in here], retiring=False))

        step()


_BYTES = re.compile(r"b'(\\.|[^'\\])*'|b\"(\\.|[^\"\\])*\"")


def in_short(message: Any) -> str:
    """Without pickles: these say nothing to people, and depend on the order of sets."""
    text = _BYTES.sub("...", repr(message))
    return text if len(text) < 400 else text[:400] + "..."


def decoded(role: Role, body: bytes) -> list[Any]:
    """What a scheduler has sent to such a party."""
    return list((decode_scheduler_to_worker if role is Role.WORKER else decode_scheduler_to_client)(body))
