"""A client's connection: made, broken, made again; and then it and the scheduler are brought together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from treadle.client.session.frames import FunctionCache, SentFrames, confirmation, recollections
from treadle.client.session.ledger import ID_BITS, Waiter
from treadle.client.session.outgoing import Outgoing, raise_ids
from treadle.client.session.requests import Requests
from treadle.client.session.waiting import Waiting
from treadle.comm.interface import Buffer, Comm, Introduction, Role
from treadle.comm.reconnect import WELCOME_S, Refused, come_back
from treadle.comm.registry import connect
from treadle.exceptions import CommClosedError, PeerProtocolError
from treadle.messages.client_scheduler import ClientWelcome, ForgetFunctions, RegisterClient, Sent, SubmitTasks
from treadle.messages.codec import encode
from treadle.utils.background import Background

logger = logging.getLogger("treadle.client")

CONNECTION_LOST: Final = "scheduler-connection-lost"
LOST_IN_RESTART: Final = "lost-in-scheduler-restart"


class Connecting(Waiting):
    """The part of a session that connects. Methods are for the loop's thread unless they say otherwise."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: bytes,
        functions: FunctionCache,
        on_status: Callable[[str], None],
        reconnect_grace_s: float,
    ) -> None:
        super().__init__(loop)
        self.session = session
        #: Told "closed", "connecting" and "running" whenever the connection has come to that.
        self._tell_status = on_status
        self._grace_s = reconnect_grace_s
        #: Guarded by the lock.
        self._functions = functions
        self.outgoing = Outgoing()
        #: What was sent and is not acknowledged.
        self.sent = SentFrames()
        self.comm: Comm | None = None
        #: Frames may be sent.
        self.connected = False
        #: The scheduler gave this client its number: ids are final, and it may be told of them.
        self.welcomed = False
        self._number = 0
        self.scheduler_id = ""
        #: Addresses of the workers that the scheduler mentioned, by number.
        self.peers: dict[int, str] = {}
        self._registration = RegisterClient("", {})
        self._connect_again: Callable[[float], Any]
        self._welcome: asyncio.Future[None] | None = None
        self._requests = Requests(loop)
        #: What arrived since the last turn.
        self._frames: list[tuple[Buffer, list[Buffer]]] = []
        self._background = Background("client", lambda name, error: self._fail(error), loop)
        self._reconnecting: asyncio.Task[None] | None = None
        #: The welcome of a scheduler to which it has come back, until the two are brought together: as soon as no thread has keys in
        #: the ledger that are not yet in ``outgoing``.
        self._returned: ClientWelcome | None = None
        self._composing = 0
        #: First of all, what is not acknowledged is sent again.
        self._resend_due = False
        self._ended = asyncio.Event()

    def _receive(self, body: Buffer, buffers: list[Buffer]) -> None:
        raise NotImplementedError

    def _end(self, reason: str) -> None:
        raise NotImplementedError

    def _fail(self, error: BaseException) -> None:
        raise NotImplementedError

    async def _connect(self, address: str, *, secret: bytes, timeout_s: float, id: str, versions: dict[str, str]) -> None:
        """Connect and be welcomed. Raises OSError naming the address, AuthenticationError, VersionError."""
        introduction = Introduction(Role.CLIENT, self.session)
        self._connect_again = lambda remaining_s: connect(address, introduction, secret=secret, timeout_s=remaining_s)
        self._registration = RegisterClient(id, versions)
        try:
            comm = await self._connect_again(timeout_s)
            await self._register(comm, timeout_s)
        except TimeoutError:
            self._give_up(f"the scheduler at {address} did not welcome the client")
            raise OSError(f"the scheduler at {address} did not welcome this client (timeout {timeout_s:g} s)") from None
        except BaseException as error:
            self._give_up(f"the client could not connect ({error})")
            raise

    async def _register(self, comm: Comm, timeout_s: float) -> None:
        """Raises TimeoutError, CommClosedError, or what the scheduler refuses it with."""
        self.comm = comm
        self._welcome = self.loop.create_future()
        comm.start(self._receive, lambda error: self._on_closed(comm, error))
        self._registration.number = self._number
        comm.send(encode([self._registration]))
        async with asyncio.timeout(timeout_s):
            await self._welcome

    def _give_up(self, reason: str) -> None:
        self._end(reason)
        if self.comm is not None:
            self.comm.abort()

    def _on_closed(self, comm: Comm, error: Exception | None) -> None:
        if comm is not self.comm:
            return
        text = str(error) if error is not None else "the scheduler closed the connection"
        if self._frames:
            # What it said last counts.
            self._turn()
        self.connected = False
        self._returned = None
        if self._reconnecting is not None and self.closed_reason is None:
            # It goes on trying.
            if self._welcome is not None and not self._welcome.done():
                self._welcome.set_exception(CommClosedError(text))
            return
        self._ended.set()
        if self.closed_reason is None and self.welcomed and self._grace_s > 0 and not isinstance(error, PeerProtocolError):
            logger.warning("the connection to the scheduler is lost (%s); the client tries for %g s to come back", text, self._grace_s)
            self._tell_status("connecting")
            self._reconnecting = self._background.spawn("coming back", self._reconnect(text))
            return
        if self.closed_reason is None:
            logger.warning("the connection to the scheduler is lost: %s", text)
            self._end(f"the connection to the scheduler was lost ({text})")
        self._tell_status("closed")

    async def _reconnect(self, lost: str) -> None:
        """Come back; what is submitted meanwhile waits."""
        why = await come_back(self._come_back, grace_s=self._grace_s, why=lost)
        self._reconnecting = None
        if why is None:
            logger.info("the client is back at its scheduler")
            self._tell_status("running")
            return
        logger.warning("the connection to the scheduler is lost: %s", why)
        self._give_up(f"the connection to the scheduler was lost ({why})")
        self._tell_status("closed")

    async def _come_back(self, remaining_s: float) -> None:
        comm: Comm = await self._connect_again(remaining_s)
        try:
            await self._register(comm, min(WELCOME_S, max(remaining_s, 1.0)))
            if comm.closed:
                raise CommClosedError("the scheduler closed the connection")
        except OSError:
            comm.abort()
            raise
        except Exception as error:
            raise Refused(f"the scheduler refused the client: {error}") from error

    def _on_welcome(self, message: ClientWelcome) -> None:
        """Under the lock."""
        self.scheduler_id = message.scheduler_id
        if self.welcomed:
            self.ledger.take_own_ids()
            self._returned = message
        else:
            self._take_number(message.number)
            self.welcomed = self.connected = True
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_result(None)

    def _take_number(self, number: int) -> None:
        shift = self.ledger.set_number(number)
        self.outgoing.rebase(shift)
        self._functions.rebase(shift)
        self._number = number

    def renew_ids(self, message: SubmitTasks | ForgetFunctions) -> bool:
        """``message`` was composed over time: the ids in it may be older than this client's number. Under the lock.

        False: they belong to a number that it had before, and mean nothing any more.
        """
        if not self.welcomed or not message.ids:
            return True
        number = message.ids[0] >> ID_BITS
        if number == 0:
            raise_ids(message, self._number << ID_BITS)
        return number in (0, self._number)

    def _settle_return(self, welcome: ClientWelcome, wake: list[Waiter]) -> None:
        """All that this client has said is in ``sent`` or ``outgoing``: bring it together with what the scheduler has. Under the lock."""
        self._returned = None
        self.peers.clear()
        if welcome.number != self._number:
            # Somebody else has its number: nothing that it has said of its keys means anything any more.
            self.ledger.cancel_all(LOST_IN_RESTART, wake)
            self.sent.clear()
            self.outgoing.take()
            self._take_number(welcome.number)
        if welcome.known:
            self.sent.received(welcome.received)
        else:
            on_their_way = self.sent.messages() + self.outgoing.messages()
            lost = recollections(self.ledger, self._number, self._functions.defined(), on_their_way)
            if lost:
                self.sent.put_first(encode([*lost, Sent(self.sent.acknowledged)]))
        for message in self._requests.ask_again(self.sent.acknowledged):
            self.outgoing.add(message)
        self.outgoing.add(confirmation(self.ledger))
        self._resend_due = self.connected = True

    @contextmanager
    def composing(self) -> Iterator[None]:
        """Keys are claimed in the ledger inside the block, and are in ``outgoing`` at its end. From any thread."""
        with self.lock:
            self._composing += 1
        try:
            yield
        finally:
            with self.lock:
                self._composing -= 1
            if self._returned is not None:
                self.wake_up()
