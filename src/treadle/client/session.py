"""A client's stream to its scheduler: what was received and what is to be sent, a turn of the loop at a time.

User threads change the ledger and append to the outgoing messages under ``lock``; one wake-up of the loop serves all of them.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from treadle import exceptions
from treadle.client.ledger import FINISHED, PENDING, KeyState, Ledger, Waiter
from treadle.client.outgoing import Outgoing
from treadle.comm.interface import Buffer, Comm, Introduction, Role
from treadle.comm.registry import connect
from treadle.exceptions import ClosedClientError, CommClosedError, PeerProtocolError
from treadle.messages.base import Message
from treadle.messages.client_scheduler import (
    ClientHeartbeat,
    ClientPeers,
    ClientPeersGone,
    ClientRefused,
    ClientReply,
    ClientWelcome,
    LeaveClient,
    RanOn,
    RegisterClient,
    SchedulerClosing,
    SubmitTasks,
)
from treadle.messages.codec import decode_scheduler_to_client, encode

logger = logging.getLogger("treadle.client")

#: A thread that submits waits when more than this is unsent.
UNSENT_LIMIT_BYTES: Final = 256 * 2**20

CONNECTION_LOST: Final = "scheduler-connection-lost"


class Session:
    """The connection of one client. Methods are for the loop's thread unless they say otherwise."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, session: bytes, on_closed: Callable[[], None], on_rebased: Callable[[int], None]
    ) -> None:
        self.loop = loop
        self.session = session
        self._tell_closed = on_closed
        #: Told, under the lock, what provisional ids that it keeps have to be raised by.
        self._tell_rebased = on_rebased
        #: Guards the ledger, the outgoing messages and the caches of the submitting threads. Reentrant because a finalizer
        #: of the user's may run, and submit, wherever memory is allocated.
        self.lock = threading.RLock()
        self.ledger = Ledger()
        self.outgoing = Outgoing()
        self.comm: Comm | None = None
        #: The scheduler gave this client its number: ids are final, and it may be told of them.
        self.welcomed = False
        self.scheduler_id = ""
        #: Addresses of the workers that the scheduler mentioned, by number.
        self.peers: dict[int, str] = {}
        #: Why nothing can be sent any more; None while all is well, also before the connection is made.
        self.closed_reason: str | None = None
        #: States that lost a reference. Appended without a lock, because finalizers run anywhere.
        self._released: deque[KeyState] = deque()
        #: Waiters to be woken in the next turn; filled by other threads under the lock.
        self._to_wake: list[Waiter] = []
        self._frames: list[Buffer] = []
        #: A turn is on its way. Set before the wake-up, cleared at the start of the turn.
        self._turn_due = False
        self._welcome: asyncio.Future[None] | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._request_count = 0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    # ------------------------------------------------------------------------------------------ opening and closing

    async def connect(
        self, address: str, *, secret: bytes, timeout_s: float, id: str, versions: dict[str, str], heartbeat_s: float
    ) -> None:
        """Connect and be welcomed. Raises OSError naming the address, AuthenticationError, VersionError."""
        introduction = Introduction(Role.CLIENT, self.session)
        try:
            self.comm = await connect(address, introduction, secret=secret, timeout_s=timeout_s)
            self._welcome = self.loop.create_future()
            self.comm.start(self._receive, self._on_closed)
            self.comm.send(encode([RegisterClient(id, versions)]))
            async with asyncio.timeout(timeout_s):
                await self._welcome
        except TimeoutError:
            self._give_up(f"the scheduler at {address} did not welcome the client")
            raise OSError(f"the scheduler at {address} did not welcome this client (timeout {timeout_s:g} s)") from None
        except BaseException as error:
            self._give_up(f"the client could not connect ({error})")
            raise
        self._beat(heartbeat_s)

    def _give_up(self, reason: str) -> None:
        self._end(reason)
        if self.comm is not None:
            self.comm.abort()

    def _beat(self, interval_s: float) -> None:
        if self.comm is not None and not self.comm.closed:
            if not self.comm.unsent_bytes:
                self.comm.send(encode([ClientHeartbeat({})]))
            self._heartbeat = self.loop.call_later(interval_s, self._beat, interval_s)

    async def close(self, *, fast: bool = False) -> None:
        """Send what is to be sent, take leave and close. Idempotent."""
        comm = self.comm
        if comm is None or comm.closed:
            self._end("the client is closed")
            return
        if fast:
            comm.abort()
        else:
            with self.lock:
                self.outgoing.add(LeaveClient())
                self.closed_reason = "the client is closed"
            self._turn()
            await comm.close()
        self._end("the client is closed")

    def _on_closed(self, error: Exception | None) -> None:
        self._ended.set()
        if self.closed_reason is None:
            text = str(error) if error is not None else "the scheduler closed the connection"
            logger.warning("the connection to the scheduler is lost: %s", text)
            self._end(f"the connection to the scheduler was lost ({text})")
        self._tell_closed()

    def _end(self, reason: str) -> None:
        """Nothing will be heard any more: nobody may wait for it."""
        wake: list[Waiter] = []
        with self.lock:
            self.closed_reason = self.closed_reason or reason
            self.ledger.cancel_all(CONNECTION_LOST, wake)
            wake += self._to_wake
            self._to_wake = []
            self.outgoing.take()
            self._released.clear()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        lost = CommClosedError(self.closed_reason)
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(lost)
        requests, self._requests = self._requests, {}
        for future in requests.values():
            if not future.done():
                future.set_exception(lost)
        for waiter in wake:
            waiter.wake()

    async def ended(self, timeout_s: float) -> None:
        """Wait until the other side has closed the stream, but no longer than that."""
        if self.comm is not None and not self.comm.closed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()
            except TimeoutError:
                logger.warning("the scheduler did not close the connection in %g s", timeout_s)

    # ------------------------------------------------------------------------------------------ sending

    def check_open(self) -> None:
        """From any thread. Raises ClosedClientError that says why nothing can be sent."""
        if self.closed_reason is not None:
            raise ClosedClientError(f"{self.closed_reason}; make a new one")

    def send(self, message: Message, buffers: Sequence[Any] = ()) -> None:
        """From any thread. Raises ClosedClientError."""
        self.check_open()
        with self.lock:
            self.outgoing.add(message, buffers)
        self.wake_up()

    def wake_up(self, waiters: Iterable[Waiter] = ()) -> None:
        """From any thread: there is something to send, or somebody to wake."""
        if waiters:
            with self.lock:
                self._to_wake.extend(waiters)
        if not self._turn_due:
            self._turn_due = True
            try:
                self.loop.call_soon_threadsafe(self._turn)
            except RuntimeError:
                pass  # the loop is closed, and so are we

    def release(self, state: KeyState) -> None:
        """A reference is gone. From anywhere, finalizers included: no lock is taken."""
        self._released.append(state)
        if not self._turn_due:
            self.wake_up()

    @property
    def unsent_bytes(self) -> int:
        """About how much waits to be sent. From any thread."""
        return self.outgoing.nbytes + (self.comm.unsent_bytes if self.comm is not None else 0)

    async def drained(self, below_bytes: int = UNSENT_LIMIT_BYTES // 2) -> None:
        """Wait until not much is unsent."""
        self._turn()
        if self.comm is not None and not self.comm.closed:
            try:
                await self.comm.drained(below_bytes)
            except CommClosedError:
                pass  # told by _on_closed

    async def request(self, make: Callable[[int], Message]) -> Any:
        """Send ``make(number)`` and wait for the answer to that number: the value of a Reply, or a RanOn.

        Raises what a Refused says, ClosedClientError, CommClosedError.
        """
        self._request_count += 1
        number = self._request_count
        future: asyncio.Future[Any] = self.loop.create_future()
        self.send(make(number))
        self._requests[number] = future
        try:
            return await future
        finally:
            self._requests.pop(number, None)

    # ------------------------------------------------------------------------------------------ a turn

    def _receive(self, body: Buffer, buffers: list[Buffer]) -> None:
        self._frames.append(body)
        if not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        frames, self._frames = self._frames, []
        try:
            messages = [message for body in frames for message in decode_scheduler_to_client(body)]
        except PeerProtocolError as error:
            messages = []
            logger.error("the scheduler broke the protocol: %s", error)
            if self.comm is not None:
                self.comm.abort()
        wake: list[Waiter] = []
        with self.lock:
            wake, self._to_wake = self._to_wake, wake
            for message in messages:
                if not self._handle(message):
                    self.ledger.handle(message, wake)
            if self._released:
                count = len(self._released)
                gone = self.ledger.release([self._released.popleft() for _ in range(count)])
                if gone:
                    self.outgoing.release(gone)
            # Before the welcome the ids are provisional.
            out = self.outgoing.take() if self.welcomed and len(self.outgoing) else []
        if self.comm is not None:
            for batch, buffers in out:
                try:
                    self.comm.send(encode(batch), buffers)
                except (TypeError, ValueError, OverflowError):
                    self._send_each(self.comm, batch, buffers, wake)
        for waiter in wake:
            waiter.wake()

    def _send_each(self, comm: Comm, batch: list[Message], buffers: list[Any], wake: list[Waiter]) -> None:
        """One message of these cannot be sent (a number too large for the wire, a text that is none): all others are.

        Who waits for what it was about hears that.
        """
        for message in batch:
            count = sum([count for _, count in message.buffers or ()]) if isinstance(message, SubmitTasks) else 0
            beside, buffers = buffers[:count], buffers[count:]
            try:
                comm.send(encode([message]), beside)
            except (TypeError, ValueError, OverflowError) as error:
                logger.error("a message to the scheduler could not be sent: %s: %s", type(message).__name__, error)
                with self.lock:
                    states = [self.ledger.by_id[id] for id in getattr(message, "ids", ()) if id in self.ledger.by_id]
                    self.ledger.cancel(states, f"could not be sent to the scheduler ({error})", None, wake)

    def _handle(self, message: Message) -> bool:
        """Messages that are not about keys. Returns whether this was one."""
        if isinstance(message, ClientReply):
            self._answer(message.request, message.value)
        elif isinstance(message, RanOn):
            self._answer(message.request, message)
        elif isinstance(message, ClientPeers):
            for peer in message.peers:
                self.peers[peer.number] = peer.address
        elif isinstance(message, ClientPeersGone):
            for number in message.numbers:
                self.peers.pop(number, None)
        elif isinstance(message, ClientRefused):
            self._refused(message)
        elif isinstance(message, ClientWelcome):
            shift = self.ledger.set_number(message.number)
            self.outgoing.rebase(shift)
            self._tell_rebased(shift)
            self.welcomed = True
            self.scheduler_id = message.scheduler_id
            if self._welcome is not None and not self._welcome.done():
                self._welcome.set_result(None)
        elif isinstance(message, SchedulerClosing):
            logger.info("the scheduler closes: %s", message.reason)
            self.closed_reason = f"the scheduler closed ({message.reason})"
            self.loop.call_soon(self._end, self.closed_reason)
        else:
            return False
        return True

    def _answer(self, request: int, value: Any) -> None:
        future = self._requests.get(request)
        if future is not None and not future.done():
            future.set_result(value)

    def _refused(self, message: ClientRefused) -> None:
        error = refusal(message.exception, message.text)
        future = self._requests.get(message.request)
        if future is not None and not future.done():
            future.set_exception(error)
        elif self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(error)
        else:
            logger.error("the scheduler refused a request: %s: %s", message.exception, message.text)

    # ------------------------------------------------------------------------------------------ waiting

    async def settled(self, states: Sequence[KeyState], *, fail_fast: bool = False) -> None:
        """Wait until all of them are settled, or with ``fail_fast`` until one of them is not finished well."""
        done: asyncio.Future[None] = self.loop.create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        waiter = Waiter(wake, fail_fast=fail_fast)
        with self.lock:
            if fail_fast:
                for state in states:
                    if state.status is not FINISHED and state.status is not PENDING:
                        return
            remaining = self.ledger.attach(states, waiter)
        if remaining:
            try:
                await done
            finally:
                waiter.active = False


def refusal(name: str, text: str) -> Exception:
    """The exception that a Refused message names; RuntimeError when the name is not known here."""
    kind = getattr(exceptions, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass
    return RuntimeError(f"{name}: {text}")
