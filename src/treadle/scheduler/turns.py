"""A turn of the scheduler: frames that arrived are decoded, the core handles them, the journal keeps what must last, parties are told.

No socket and no clock of its own, so that simulations drive it as the server does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from treadle.comm.interface import Role
from treadle.exceptions import PeerProtocolError
from treadle.messages.client_scheduler import ClientRefused, ConfirmKeys, Order, Query, RegisterClient, Restart, RunOn, Shutdown
from treadle.messages.codec import encode
from treadle.messages.nanny import NannyHeartbeat, NannyRan, RegisterNanny, WorkerDied, WorkerRestarted
from treadle.messages.scheduler_local import ConnectionLost
from treadle.messages.worker_scheduler import LeaveGracefully, RegisterWorker, TaskExplained, WorkerRan, WorkerRefused
from treadle.scheduler.failures import CoreFailure, SetAside, replaced
from treadle.scheduler.journaling import Journal
from treadle.scheduler.sessions import Arrival, Session, Sessions, events_of, messages_of
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.turn_times import TurnTimes

logger = logging.getLogger(__name__)

#: What is no business of the core.
FOR_THE_SHELL = frozenset(
    [
        LeaveGracefully,
        NannyHeartbeat,
        NannyRan,
        Order,
        Query,
        RegisterNanny,
        Restart,
        RunOn,
        Shutdown,
        TaskExplained,
        WorkerDied,
        WorkerRan,
        WorkerRestarted,
    ]
)


#: How a party is told that it broke the protocol. (A nanny is closed without a word.)
_REFUSALS: dict[Role, Callable[[int, str, str], Any]] = {Role.CLIENT: ClientRefused, Role.WORKER: WorkerRefused}


class Turns:
    """The callbacks are the shell's: ``on_message`` gets what is not for the core, ``on_ended`` whose stream has ended and why,
    ``on_close`` (number, reason) which sessions the core wants closed, ``on_failure`` is told, inside ``except``, that the core failed.
    From then on nothing is handled, until the shell has brought the core to a state that can be gone on from and calls ``go_on``.
    """

    def __init__(
        self,
        core: Transitions,
        sessions: Sessions,
        now: Callable[[], float],
        *,
        on_message: Callable[[Session, Any], None],
        on_ended: Callable[[int], None],
        on_close: Callable[[int, str], None],
        on_failure: Callable[[CoreFailure], None],
    ) -> None:
        self._core = core
        self._sessions = sessions
        self._now = now
        self._on_message = on_message
        self._on_ended = on_ended
        self._on_close = on_close
        self._on_failure = on_failure
        self.journal: Journal | None = None
        #: From the core to the last send.
        self.times = TurnTimes()
        #: What the core has failed on.
        self.set_aside = SetAside()
        #: The core has failed, and there is no fresh one yet.
        self.broken = False
        self._stopped = False

    def go_on(self) -> None:
        """The core is a fresh one."""
        self.broken = False

    def stop(self) -> None:
        """Whatever comes from here on is for the next scheduler."""
        self._stopped = True

    def take(self, arrivals: list[Arrival]) -> None:
        """All that arrived in one turn of the loop: the core first hears what came before a question, then the question is answered."""
        events: list[Event] = []
        for arrival in arrivals:
            session = arrival.session
            if self.broken or self._stopped or not self._sessions.is_current(session):
                continue
            if arrival.body is None:
                self._ended(session, arrival.error, events)
                continue
            if session.refused:
                continue
            try:
                events = self._take_frame(arrival, events)
            except PeerProtocolError as error:
                # As if the core had refused it: it is gone, and would only say the same once more if it came back.
                self.handle([*events, Event(session.number, ConnectionLost(blame=False))])
                events = []
                self._refuse(session, str(error))
            except Exception:
                # Nobody else suffers for it. It comes back, and says again what was lost.
                logger.exception("a frame of %s could not be taken: its stream is cut", session.comm.peer_address)
                session.comm.abort()
        self.handle(events)

    def _take_frame(self, arrival: Arrival, events: list[Event]) -> list[Event]:
        """``events`` came before it, and are not handled yet. Returns those that are to be handled next. Raises PeerProtocolError."""
        session = arrival.session
        fresh = events_of(arrival)
        if fresh and type(fresh[0].message) in (RegisterWorker, RegisterClient):
            # Who is known depends on what came before, which may be another connection of the same party.
            self.handle(events)
            events = []
            self._identify(session, fresh, events)
        apart = False
        told: list[Any] = []
        if self.set_aside and session.role is Role.CLIENT:
            arrival, fresh, told = self._without_poison(arrival, fresh)
            apart = any([self.set_aside.is_suspect(event) for event in fresh])
        if self.journal is not None and session.role is Role.CLIENT:
            fresh = self.journal.mark(session.number, arrival, fresh, apart)
        for event in fresh:
            if type(event.message) in FOR_THE_SHELL:
                self.handle(events)
                events = []
                self._for_shell(session, event.message)
            elif apart and self.set_aside.is_suspect(event):
                self.handle(events)
                events = []
                self.handle([event])
                if not self.broken:
                    self.set_aside.acquit(event)
            else:
                events.append(event)
        if told:
            # Behind what the core says of the rest.
            self.handle(events)
            events = []
            self._sessions.send(session.number, told, [])
        return events

    def _for_shell(self, session: Session, message: Any) -> None:
        """What goes wrong with a message is told to who has sent it, and is nothing to all others."""
        try:
            self._on_message(session, message)
        except Exception as error:
            logger.exception("%s of %s could not be handled", type(message).__name__, session.comm.peer_address)
            request = getattr(message, "request", 0)
            if session.role is Role.CLIENT and request:
                text = str(error.args[0]) if error.args else str(error)
                self._sessions.send(session.number, [ClientRefused(request, type(error).__name__, text)], [])

    def _without_poison(self, arrival: Arrival, fresh: list[Event]) -> tuple[Arrival, list[Event], list[Any]]:
        """The frame without what the core has failed on before, and what its sender is to be told."""
        kept: list[Event] = []
        told: list[Any] = []
        changed = False
        for event in fresh:
            story = self.set_aside.story_of(event)
            if story is not None:
                changed = True
                instead, answer = replaced(event, story)
                kept += instead
                told += answer
                logger.error("%s of %s is set aside", type(event.message).__name__, arrival.session.comm.peer_address)
            else:
                if type(event.message) is ConfirmKeys:
                    failed = self.set_aside.failed_among(event.message)
                    changed = changed or bool(failed)
                    told += failed
                kept.append(event)
        if not changed:
            return arrival, fresh, told
        buffers = [buffer for event in kept for buffer in event.frames]
        return Arrival(arrival.session, encode(messages_of(kept)), buffers), kept, told

    def _ended(self, session: Session, error: Exception | None, events: list[Event]) -> None:
        self._sessions.forget(session.number)
        self._on_ended(session.number)
        if error is not None and not session.leaving:
            logger.info("lost %s: %s", session.comm.peer_address, error)
        events.append(Event(session.number, ConnectionLost(blame=not session.leaving)))

    def _identify(self, session: Session, fresh: list[Event], events: list[Event]) -> None:
        """A party registers: one that was here before gets its number back, whatever has become of its old stream."""
        registration = fresh[0].message
        state = self._core.state
        number = 0
        if type(registration) is RegisterWorker:
            worker = state.by_worker_id.get(registration.identity.id)
            if worker is not None:
                number = worker.number
        elif type(registration) is RegisterClient:
            client = state.clients.get(registration.id)
            if client is not None:
                number = client.number
            elif self._is_free(registration.number):
                # It served an earlier scheduler: its ids stay what they are.
                number = registration.number
        if number == 0 or number == session.number:
            return
        before = self._sessions.rename(session, number)
        if before is not None:
            logger.info("%s comes back as %s", before.comm.peer_address, session.comm.peer_address)
            before.comm.abort()
            self._on_ended(number)
            events.append(Event(number, ConnectionLost()))
        for event in fresh:
            event.session = number

    def _is_free(self, number: int) -> bool:
        state = self._core.state
        return self._sessions.may_have(number) and number not in state.by_number and number not in state.clients_by_number

    def tell(self, message: Any) -> None:
        """A local event for the core."""
        self.handle([Event(0, message)])

    def handle(self, events: list[Event]) -> None:
        if not events or self.broken:
            return
        try:
            now = self._now()
            result = self._core.handle(events, now)
        except Exception as error:
            self.broken = True
            self._on_failure(CoreFailure(self._core, error, events))
            return
        if self.journal is not None:
            self.journal.keep(events, result.records, now)
            if result.late_drops:
                self.journal.drop_when_durable(result.late_drops)
        for number, messages, frames in result.sends:
            self._sessions.send(number, messages, frames)
        for number, reason in result.offenders:
            session = self._sessions.by_number.get(number)
            if session is not None and not session.refused:
                self._refuse(session, reason)
        for number, reason in result.closes:
            session = self._sessions.by_number.get(number)
            if session is not None and not session.refused:
                logger.info("closing %s: %s", session.comm.peer_address, reason)
                self._on_close(number, reason)
        self.times.book(events, self._now() - now)

    def _refuse(self, session: Session, why: str) -> None:
        """It broke the protocol: it is told so, and closed."""
        logger.warning("dropping %s: %s", session.comm.peer_address, why)
        session.refused = True
        refusal = _REFUSALS.get(session.role)
        if refusal is not None:
            self._sessions.send(session.number, [refusal(0, PeerProtocolError.__name__, why)], [])
        self._on_close(session.number, why)
